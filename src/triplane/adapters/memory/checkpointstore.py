"""Published checkpoints and subtrees in memory, for tests and for embedding: hashes come from the entries."""

from bisect import bisect_right
from collections.abc import Sequence

from triplane.adapters.memory.eventlog import MemoryLog
from triplane.audit.checkpoint import add_signatures, parse_checkpoint
from triplane.audit.merkle import Node, leaf_reader
from triplane.audit.note import parse_note
from triplane.audit.notekey import NoteFault, refuse
from triplane.audit.subtrees import check_committed, check_kept
from triplane.errors import Conflict, InvalidInput

LARGEST_PAGE = 10_000


class MemoryCheckpointStore:
    """``CheckpointStore`` beside a ``MemoryLog``."""

    def __init__(self, shared: MemoryLog) -> None:
        self._log = shared
        self._notes: dict[int, bytes] = {}
        self._sizes: list[int] = []
        self._kept: dict[Node, bytes] = {}

    async def latest(self) -> bytes | None:
        """See ``CheckpointStore.latest``."""
        return self._notes[self._sizes[-1]] if self._sizes else None

    async def at(self, size: int) -> bytes | None:
        """See ``CheckpointStore.at``."""
        return self._notes.get(size)

    async def published(self, *, after: int = -1, limit: int = 1000) -> Sequence[tuple[int, bytes]]:
        """See ``CheckpointStore.published``."""
        if not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(f"limit {limit} is not from 1 to {LARGEST_PAGE}: page with `after`")
        first = bisect_right(self._sizes, after)
        return [(size, self._notes[size]) for size in self._sizes[first : first + limit]]

    async def publish(self, note: bytes) -> None:
        """See ``CheckpointStore.publish``."""
        checkpoint, parsed = parse_checkpoint(note)
        if checkpoint.origin != self._log.origin:
            refuse(
                NoteFault.OTHER_ORIGIN, f"the checkpoint is of {checkpoint.origin[:200]!r}, not of {self._log.origin}"
            )
        held = await self.latest()
        if held is not None:
            last, _ = parse_checkpoint(held)
            if checkpoint.size <= last.size:
                if parse_note(held).text != parsed.text:
                    raise Conflict(
                        f"the latest checkpoint of {last.origin} is of {last.size} entries with root "
                        f"{last.root.hex()}: this one, of {checkpoint.size} with root {checkpoint.root.hex()}, "
                        "does not follow it"
                    )
                note = add_signatures(held, [item.line for item in parsed.signatures])
        if checkpoint.size not in self._notes:
            self._sizes.append(checkpoint.size)
        self._notes[checkpoint.size] = note

    async def hashes(self, nodes: Sequence[Node]) -> Sequence[bytes]:
        """See ``CheckpointStore.hashes``."""
        check_committed(nodes, len(self._log.rows))
        answer: list[bytes] = []
        for node in nodes:
            first, last = node.index << node.level, (node.index + 1) << node.level
            leaves = [bytes.fromhex(recorded.leaf_hash) for recorded, _ in self._log.rows[first:last]]
            answer += leaf_reader(leaves)([Node(node.level, 0)])
        return answer

    async def keep(self, hashes: Sequence[tuple[Node, bytes]]) -> None:
        """See ``CheckpointStore.keep``."""
        check_kept(hashes)
        for node, hash_ in hashes:
            if self._kept.get(node, hash_) != hash_:
                raise Conflict(
                    f"another hash is kept for subtree {node.index} of level {node.level} of {self._log.origin}: "
                    "verify the log"
                )
        self._kept |= dict(hashes)
