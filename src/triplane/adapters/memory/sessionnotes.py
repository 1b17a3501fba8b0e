"""What the session store keeps beside the sessions; twin of Postgres'."""

from dataclasses import replace

from triplane.adapters.memory.sessionmemory import SessionMemory
from triplane.audit.digest import parse_digest
from triplane.domain.blob import check_blob_owner
from triplane.domain.collection import digests_named
from triplane.ports import Clock


class Notes(SessionMemory):
    """Owners of blobs, and cursors."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._cursors: dict[str, int] = {}
        self._blob_owners: set[tuple[str, str]] = set()

    async def own_blob(self, namespace: str, digest: str) -> None:
        """See ``SessionStore.own_blob``."""
        check_blob_owner(namespace, digest)
        self._blob_owners.add((namespace, digest))

    async def own_blob_of_run(self, session_uid: str, run: int, digest: str, octets: int) -> int:
        """See ``SessionStore.own_blob_of_run``."""
        parse_digest(digest)
        view = self._known(session_uid, run)
        owner = (self._sessions[session_uid].offer.namespace, digest)
        if owner not in self._blob_owners:
            self._blob_owners.add(owner)
            view = replace(view, blob_octets=view.blob_octets + octets)
            self._put(session_uid, view)
        return view.blob_octets

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """See ``SessionStore.owns_blob``."""
        return (namespace, digest) in self._blob_owners

    async def blob_owned(self, digest: str) -> bool:
        """See ``SessionStore.blob_owned``."""
        return any(owned == digest for _, owned in self._blob_owners)

    async def disown_blob(self, digest: str) -> frozenset[str]:
        """See ``SessionStore.disown_blob``."""
        gone = {owner for owner in self._blob_owners if owner[1] == digest}
        self._blob_owners -= gone
        return frozenset(namespace for namespace, _ in gone)

    async def blob_references(self) -> frozenset[str]:
        """See ``SessionStore.blob_references``. Whatever this store has come to keep shows in its representation."""
        return digests_named(repr([(name, kept) for name, kept in vars(self).items() if name != "_bells"]))

    async def cursor(self, name: str) -> int:
        """See ``SessionStore.cursor``."""
        return self._cursors.get(name, -1)

    async def set_cursor(self, name: str, seq: int) -> None:
        """See ``SessionStore.set_cursor``."""
        self._cursors[name] = max(seq, self._cursors.get(name, -1))
