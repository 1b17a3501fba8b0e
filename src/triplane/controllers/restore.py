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
from triplane.errors import BlobMissing, Corrupt
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


class Restore:
    """Checks one set, and loads it."""

    def __init__(self, folder: BackupFolder, where: str, progress: Progress) -> None:
        self._folder = folder
        self._where = where
        self._progress = progress

    async def check(self, written: BackupSet, demands: Demands) -> Checked:
        """Read every file and every blob. Raises ``Corrupt`` naming the first that is not what it should be,
        ``RestoreBehind`` or ``Conflict`` for an anchor, ``InvalidNote`` for a checkpoint no pinned key signed."""
        octets = written.manifest()
        digest = digest_of_bytes(octets)
        where = f"{self._where} {written.name}"
        if demands.manifest is not None and demands.manifest != digest:
            raise Corrupt(
                f"the manifest of {where} is {digest}, wanted was {demands.manifest}: it is another backup, or an "
                "altered one"
            )
        manifest = decode(octets, f"{where} manifest.json")
        for log in manifest.origins:
            if demands.signed is not None and log.checkpoint is not None:
                demands.signed(log.origin, log.checkpoint.encode())
        findings, smaller = judged_by_size(manifest, demands.anchors)
        behind = refuse_contradicted(findings, where, accept_rollback=demands.accept_rollback)
        for path, facts in manifest.files():
            async for _ in written.read(path, facts):
                pass
        erased_since = self._folder.erased()
        count = await self._check_blobs(written, manifest, erased_since)
        self._progress(f"{len(manifest.tables)} tables and {count} blobs are what the manifest says")
        return Checked(written, manifest, digest, tuple(smaller), behind, erased_since)

    async def load(
        self,
        checked: Checked,
        database: EmptyDatabase,
        content: ContentStore,
        keep_secret: Callable[[str, bytes], Awaitable[None]],
    ) -> None:
        """Into what is empty. Raises ``NotEmpty`` naming what is there, and as ``check``: the files are read again."""
        manifest, written = checked.manifest, checked.written
        await self._check_content(written, manifest, content)
        await database.begin(manifest.revision)
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

    async def _check_blobs(self, written: BackupSet, manifest: Manifest, erased_since: frozenset[str]) -> int:
        count, octets = 0, 0
        async for blob in self._blobs(written, manifest):
            count, octets = count + 1, octets + blob.octets
            if blob.digest in erased_since:
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
        return count

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
