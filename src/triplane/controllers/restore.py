"""Giving a backup back: everything is checked before anything is written, and the log again once it is loaded.

Nothing counts as restored before its Merkle root has been recomputed from what the database holds and compared with
the manifest, the signed checkpoint and every anchor. Interrupted anywhere, the same call begins anew: blobs that are
there are not stored twice, the database refuses everybody else until the end.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from triplane.audit.checkpoint import parse_checkpoint
from triplane.audit.digest import digest_of_bytes
from triplane.audit.note import Verified
from triplane.audit.notekey import NoteFault
from triplane.domain.backup import (
    Blob,
    Manifest,
    Seen,
    check_roots,
    decode,
    judged_by_size,
    parse_line,
    refuse_contradicted,
)
from triplane.errors import BlobMissing, Conflict, Corrupt, InvalidNote
from triplane.failpoint import failpoint
from triplane.ports import ContentStore
from triplane.ports.backup import BackupFolder, BackupSet, EmptyDatabase, NotEmpty

Progress = Callable[[str], None]
CheckSignature = Callable[[str, bytes], Sequence[Verified]]
"""Given an origin and a note: the pinned keys that signed it, ``InvalidNote`` when none did."""


@dataclass(frozen=True, slots=True)
class Demands:
    """What whoever restores knows from elsewhere."""

    manifest: str | None = None
    """``sha256:…`` of the manifest, as the backup printed it."""
    anchors: tuple[Seen, ...] = ()
    accept_rollback: bool = False
    signed: CheckSignature | None = None
    """None: no key is pinned, signatures are not looked at."""
    accept_erased: bool = False
    """Although ``manifest`` was given: blobs that the folder calls erased since may be left out. The manifest says
    nothing of them, so whoever can write the folder can take any blob away like that."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A set whose every octet is what its manifest says."""

    written: BackupSet
    manifest: Manifest
    digest: str
    smaller: tuple[Seen, ...]
    """Anchors whose roots are to be compared once the log is loaded."""
    behind: str = ""
    """Why it should not be restored, where that was accepted."""
    erased_since: frozenset[str] = frozenset()
    """Blobs that the set lists and that are left out, for they were erased since."""
    unsigned: tuple[str, ...] = ()
    """Entries that no pinned key answers for, where keys were pinned."""


class Restore:
    """Checks one set, and loads it."""

    def __init__(self, folder: BackupFolder, where: str, progress: Progress) -> None:
        self._folder = folder
        self._where = where
        self._progress = progress

    async def check(self, written: BackupSet, demands: Demands) -> Checked:
        """Read every file and every blob. Raises ``Corrupt`` naming the first that is not what it should be,
        ``RestoreBehind`` or ``Contradicted`` for an anchor, ``InvalidNote`` for a log whose checkpoint no pinned key
        signed or that has none, ``Conflict`` for blobs erased since a manifest that was demanded."""
        octets = written.manifest()
        digest = digest_of_bytes(octets)
        where = f"{self._where} {written.name}"
        if demands.manifest is not None and demands.manifest != digest:
            raise Corrupt(
                f"the manifest of {where} is {digest}, wanted was {demands.manifest}: it is another backup, or an "
                "altered one"
            )
        manifest = decode(octets, f"{where} manifest.json")
        unsigned = _unsigned(manifest, demands.signed, where) if demands.signed is not None else ()
        findings, smaller = judged_by_size(manifest, demands.anchors)
        behind = refuse_contradicted(findings, where, accept_rollback=demands.accept_rollback)
        for path, facts in manifest.files():
            async for _ in written.read(path, facts):
                pass
        count, erased_since = await self._check_blobs(written, manifest, self._folder.erased())
        if erased_since and demands.manifest is not None and not demands.accept_erased:
            raise Conflict(
                f"{where} lists {len(erased_since)} blobs that the folder says were erased since, which no manifest "
                f"proves: {_some(erased_since)}. If they were erased on purpose, restore with --accept-erased, without "
                "them; if not, somebody altered the folder: take the backup from another copy"
            )
        self._progress(f"{len(manifest.tables)} tables and {count} blobs are what the manifest says")
        return Checked(written, manifest, digest, tuple(smaller), behind, erased_since, unsigned)

    async def load(
        self,
        checked: Checked,
        database: EmptyDatabase,
        content: ContentStore,
        keep_secret: Callable[[str, bytes], Awaitable[None]] | None,
    ) -> None:
        """Into what is empty; without ``keep_secret`` the set's private files stay in it. Raises ``NotEmpty`` naming
        what is there, and as ``check``: the files are read again."""
        manifest, written = checked.manifest, checked.written
        await self._check_content(written, manifest, content)
        await database.begin(manifest.revision)
        if keep_secret is not None:
            for name, file in manifest.secrets.items():
                await keep_secret(name, b"".join([chunk async for chunk in written.read(f"secrets/{name}", file)]))
        stored = 0
        async for blob in self._blobs(written, manifest):
            if blob.digest not in checked.erased_since:
                await content.store(self._folder.blob(blob.digest), expect=blob.digest)
                stored += 1
                failpoint("restore.step")
        self._progress(f"{stored} blobs stored")
        await database.load(
            manifest.tables,
            {table.name: written.read(f"tables/{table.name}", table.content) for table in manifest.tables},
        )
        await database.count_on(manifest.counters)
        failpoint("restore.step")
        for facts in manifest.origins:
            signed = parse_checkpoint(facts.checkpoint.encode())[0] if facts.checkpoint is not None else None
            own = [] if signed is None else [Seen("the manifest's checkpoint", signed)]
            seen = [item for item in (*own, *checked.smaller) if item.checkpoint.origin == facts.origin]
            roots = dict(await database.verify(facts, {item.checkpoint.size for item in seen}))
            check_roots(facts.origin, seen, roots, written.name)
            self._progress(f"{facts.origin}: {facts.size} entries verified, root {facts.root}")
        failpoint("restore.step")
        await database.finish()

    async def _check_blobs(
        self, written: BackupSet, manifest: Manifest, erased: frozenset[str]
    ) -> tuple[int, frozenset[str]]:
        """How many are there, and those that were erased since."""
        count, octets = 0, 0
        left_out: set[str] = set()
        async for blob in self._blobs(written, manifest):
            count, octets = count + 1, octets + blob.octets
            if blob.digest in erased:
                left_out.add(blob.digest)
                continue
            size = 0
            try:
                async for chunk in self._folder.blob(blob.digest):
                    size += len(chunk)
            except BlobMissing as error:
                raise Corrupt(str(error)) from error
            if size != blob.octets:
                raise Corrupt(
                    f"the list of blobs says {blob.octets} octets of {blob.digest}, it has {size}: take another copy"
                )
        if (count, octets) != (manifest.blobs.count, manifest.blobs.octets):
            raise Corrupt(
                f"the list of blobs has {count} of {octets} octets, the manifest says {manifest.blobs.count} of "
                f"{manifest.blobs.octets}: take the backup from another copy"
            )
        for name, listed in (("blobs-erased", manifest.erased), ("blobs-lost", manifest.lost)):
            async for line in written.lines(name, listed.content):
                parse_line(line, name)
        return count - len(left_out), frozenset(left_out)

    async def _check_content(self, written: BackupSet, manifest: Manifest, content: ContentStore) -> None:
        """What an interrupted restore has stored may be there; anything else is somebody's."""
        ours = {blob.digest async for blob in self._blobs(written, manifest)}
        strange = [digest async for digest in content.list_digests() if digest not in ours]
        if strange:
            raise NotEmpty(
                f"the content store is in use: it holds {len(strange)} blobs that the backup does not name, the first "
                f"{strange[0]}. A backup is restored into an empty installation only: choose another TRIPLANE_HOME or "
                "TRIPLANE_CONTENT, or move this one away first"
            )

    async def _blobs(self, written: BackupSet, manifest: Manifest) -> AsyncIterator[Blob]:
        async for line in written.lines("blobs", manifest.blobs.content):
            yield parse_line(line, "blobs")


def _unsigned(manifest: Manifest, signed: CheckSignature, where: str) -> tuple[str, ...]:
    """Check every log's signature; the entries behind what was signed. Raises ``InvalidNote`` for entries without any
    signature: to strip one is easier than to forge it."""
    behind: list[str] = []
    for log in manifest.origins:
        if log.checkpoint is None:
            if log.size:
                raise InvalidNote(
                    f"{where} has no signed checkpoint of {log.origin}, and a key is pinned: none was signed before "
                    "this set was taken, or it was taken out. Restore another set, or this one without --key if you "
                    "trust the folder",
                    reason=NoteFault.NOT_SIGNED.value,
                )
            continue
        signed(log.origin, log.checkpoint.encode())
        size = parse_checkpoint(log.checkpoint.encode())[0].size
        if size < log.size:
            behind.append(f"entries {size} to {log.size - 1} of {log.origin}")
    return tuple(behind)


def _some(digests: frozenset[str]) -> str:
    """The digests, as many as one can read."""
    first = sorted(digests)[:20]
    return ", ".join(first) + (f" and {len(digests) - len(first)} more" if len(digests) > len(first) else "")
