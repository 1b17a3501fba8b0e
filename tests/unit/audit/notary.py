"""Keys and logs for tests of checkpoints: everything follows from a few words."""

from dataclasses import dataclass, field

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, sign_checkpoint
from triplane.audit.entry import prepare
from triplane.audit.merkle import consistency_proof, inclusion_proof, leaf_hash, leaf_reader, subtree_root
from triplane.audit.model import GENESIS_PREV, EventBody, EventSubject
from triplane.audit.note import cosign
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey, key_of
from triplane.audit.tlogproof import make_bundle

ORIGIN = "log.example/7f3a"
LOG = MemorySigner(b"the log")
THIEF = MemorySigner(b"another key")
WITNESSES = {f"witness{n}.example": MemorySigner(b"witness %d" % n) for n in (1, 2, 3)}
NOW = 1_780_000_000


def log_key(signer: MemorySigner = LOG, name: str = ORIGIN) -> VerifierKey:
    return key_of(name, KeyType.ED25519, signer)


def witness_key(name: str) -> VerifierKey:
    return key_of(name, KeyType.COSIGNATURE_V1, WITNESSES[name])


def trust(quorum: int = 0, witnesses: int = 3, origin: str = ORIGIN) -> CheckpointTrust:
    keys = [witness_key(name) for name in list(WITNESSES)[:witnesses]]
    return CheckpointTrust(origin, KeyRing([log_key()]), KeyRing(keys), quorum)


def signer_of(words: str) -> MemorySigner:
    """The key whose seed is the SHA-256 of these words (vectors/colliding_keys.json)."""
    return MemorySigner(words.encode())


def cosignature(octets: bytes, name: str, timestamp: int = NOW) -> bytes:
    """A line by this witness on a checkpoint."""
    return cosign(octets.partition(b"\n\n")[0] + b"\n", name, WITNESSES[name], timestamp).line


@dataclass
class Log:
    """A chained log in memory; ``story`` makes it another one."""

    story: str = "true"
    origin: str = ORIGIN
    entries: list[bytes] = field(default_factory=list)

    def grow(self, size: int) -> "Log":
        while len(self.entries) < size:
            number = len(self.entries)
            prev = leaf_hash(self.entries[-1]).hex() if self.entries else GENESIS_PREV
            body = EventBody(
                id=f"task.created/{self.story}/{number}",
                type="task.created",
                stream="system",
                actor="system",
                subject=EventSubject("Task", "team", f"t{number}", f"uid-{number}"),
            )
            time = f"2026-11-21T10:00:00.{number:06d}Z"
            self.entries.append(prepare(self.origin, body).seal(number, prev, time))
        return self

    @property
    def leaves(self) -> list[bytes]:
        return [leaf_hash(entry) for entry in self.entries]

    def head(self, size: int | None = None) -> Checkpoint:
        leaves = self.leaves[: len(self.entries) if size is None else size]
        return Checkpoint(self.origin, len(leaves), subtree_root(leaves))

    def signed(self, size: int | None = None, signer: MemorySigner = LOG, name: str | None = None) -> bytes:
        return sign_checkpoint(self.head(size), name or self.origin, [signer])

    def growth(self, old: int, new: int) -> tuple[bytes, ...]:
        return consistency_proof(old, new, leaf_reader(self.leaves))

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return inclusion_proof(index, size, leaf_reader(self.leaves))

    def bundle(self, index: int, size: int) -> bytes:
        return make_bundle(index, self.entries[index], self.inclusion(index, size), self.signed(size))
