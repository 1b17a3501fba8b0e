"""A log to export, an attacker who may write any file of the export, and three verifiers that share no code."""

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, SignedCheckpoint, sign_checkpoint, verify_checkpoint
from triplane.audit.dsse import key_id_of, spki_of
from triplane.audit.entry import body_of, first_entries, open_entry, prepare, seal_all
from triplane.audit.export import Exporter, export
from triplane.audit.exported import verify_export
from triplane.audit.layout import CHECKPOINT, File, TileTree, bundles_of, encode_bundle
from triplane.audit.merkle import leaf_hash, subtree_root
from triplane.audit.model import EventBody, EventSubject
from triplane.audit.note import parse_note
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey, key_of, parse_key
from triplane.audit.tiles import WIDTH, Tile
from triplane.errors import NotFound

REPOSITORY = Path(__file__).parents[3]
VERIFY_PY = REPOSITORY / "docs/auditor/verify.py"
VERIFY_MJS = REPOSITORY / "tests/unit/audit/verify.mjs"
ORIGIN = "localhost/abc"
TIME = "2026-01-02T00:00:00.000000Z"


@dataclass(frozen=True)
class MadeUpSigner:
    """A key made from one octet, the same each time."""

    seed: int

    @property
    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(bytes([self.seed]) * 32)

    @property
    def public_key(self) -> bytes:
        return spki_of(self._private.public_key())

    @property
    def key_id(self) -> str:
        return key_id_of(self.public_key)

    def sign(self, octets: bytes) -> bytes:
        return self._private.sign(octets)


LOG, THIEF = MadeUpSigner(1), MadeUpSigner(2)
KEY = key_of(ORIGIN, KeyType.ED25519, LOG)


def body(number: int) -> EventBody:
    """Every fifth records an artifact; the others hold what JSON writers disagree on."""
    uid = f"u{number}"
    subject = EventSubject(kind="Task", namespace="demo", name=f"t{number}", uid=uid, generation=1)
    if number % 5 == 0:
        data = {"digest": artifact_digest(number), "output": "out", "run": 1, "sessionUid": "s", "size": 3}
        return EventBody(f"artifact.recorded/{uid}/1/out", "artifact.recorded", "system", "system", subject, data)
    data = {
        "text": 'é\u2028\x7f\x1f"\\/😀\u0430\n',
        "n": -(2**53) + 1 + number,
        "list": [None, True, {}, []],
        "b": {"a": ""},
    }
    return EventBody(f"resource.observed/{uid}/1", "resource.observed", "system", "system", subject, data)


def artifact_digest(number: int) -> str:
    return f"sha256:{number:064x}"


@cache
def entries(size: int, origin: str = ORIGIN, other_from: int | None = None) -> tuple[bytes, ...]:
    """A log's octets; from ``other_from`` on another history of the same log."""
    host, _, install = origin.partition("/")
    begun = first_entries(host, install, datetime(2026, 1, 1, tzinfo=UTC))
    made = [sealed.octets for sealed in begun][:size]
    for n in range(len(made), size):
        prepared = prepare(origin, body(n + 1000 if other_from is not None and n >= other_from else n))
        made += [sealed.octets for sealed in seal_all([prepared], n, leaf_hash(made[-1]).hex(), TIME)]
    return tuple(made)


def rechained(octets: Sequence[bytes], first: int, origin: str = ORIGIN) -> list[bytes]:
    """From ``first`` on, each with the prev and seq that its place asks for: what an attacker with a shell does."""
    made = list(octets[:first])
    for n in range(first, len(octets)):
        entry = open_entry(octets[n]).entry
        prev = leaf_hash(made[-1]).hex() if made else "0" * 64
        made.append(prepare(origin, body_of(entry)).seal(n, prev, entry["time"]))
    return made


def checkpoint(octets: Sequence[bytes], signer: MadeUpSigner = LOG, origin: str = ORIGIN) -> bytes:
    root = subtree_root([leaf_hash(item) for item in octets])
    return sign_checkpoint(Checkpoint(origin, len(octets), root), origin, [signer])


def trust(key: VerifierKey = KEY) -> CheckpointTrust:
    return CheckpointTrust(key.name, KeyRing([key]))


def signed(octets: Sequence[bytes]) -> SignedCheckpoint:
    return verify_checkpoint(checkpoint(octets), trust())


def reader(folder: Path) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        try:
            return (folder / path).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"{path} is not there") from error

    return read


def write(folder: Path, files: Iterable[File]) -> Path:
    for file in files:
        place(folder, file.path, file.octets)
    return folder


def place(folder: Path, path: str, octets: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(octets)


def exported(folder: Path, octets: Sequence[bytes]) -> Path:
    """As Triplane writes it."""
    return write(folder, export(Exporter(signed(octets)), octets))


def forged(folder: Path, octets: Sequence[bytes], named: int | None = None) -> None:
    """All files but the checkpoint anew, consistent among themselves, as one who may write any of them would do.

    ``named``: the signed size that the names of the files are to fit, whatever is in them (fewer than 256 entries)."""
    shutil.rmtree(folder / "tile")
    tree = TileTree()
    write(folder, [file for item in octets for file in tree.add(leaf_hash(item))])
    if named is None:
        write(folder, tree.partial())
        for bundle in bundles_of(len(octets)):
            place(folder, bundle.path, encode_bundle(octets[bundle.index * WIDTH :][:WIDTH]))
        return
    place(folder, Tile(0, 0, named).path, b"".join(leaf_hash(item) for item in octets))
    place(folder, Tile(None, 0, named).path, encode_bundle(octets))


@dataclass
class Audit:
    """What somebody who verifies has."""

    folder: Path
    octets: list[bytes]
    keys: list[str] = field(default_factory=lambda: [str(KEY)])
    earlier: list[Path] = field(default_factory=list)
    proof: Path | None = None

    @property
    def arguments(self) -> list[str]:
        given = [str(self.folder)]
        for key in self.keys:
            given += ["--key", key]
        for path in self.earlier:
            given += ["--earlier", str(path)]
        return given if self.proof is None else [*given, "--proof", str(self.proof)]

    def keep(self, size: int, octets: Sequence[bytes] | None = None) -> None:
        """Have a checkpoint of an earlier size."""
        path = self.folder.parent / f"checkpoint-{size}-{len(self.earlier)}"
        path.write_bytes(checkpoint((self.octets if octets is None else octets)[:size]))
        self.earlier.append(path)


def flip(path: str, octet: int) -> Callable[[Audit], None]:
    def alter(audit: Audit) -> None:
        found = bytearray((audit.folder / path).read_bytes())
        found[octet] ^= 1
        (audit.folder / path).write_bytes(found)

    return alter


def text_of(audit: Audit) -> bytes:
    return parse_note((audit.folder / CHECKPOINT).read_bytes()).text


@dataclass(frozen=True)
class Verdict:
    """What a verifier said: its exit code, and reason and place in its own words."""

    code: int
    reason: str = ""
    where: str = ""
    message: str = ""


def said(code: int, text: str) -> Verdict:
    if code != 1:
        return Verdict(code, message=text)
    message = text.removeprefix("NOT VERIFIED: ")
    reason, _, rest = message.partition(" at ")
    return Verdict(code, reason, rest.split(": ")[0], message)


def same(verdict: Verdict, reason: str, where: str) -> bool:
    """Whether it is refused for that; of a file's whole name the end is enough."""
    return (verdict.code, verdict.reason) == (1, reason) and verdict.where.endswith(where)


def standalone(audit: Audit, without: Sequence[str] = ()) -> Verdict:
    """docs/auditor/verify.py, with the checks for some reasons taken out."""
    module = _standalone()
    real = module.check

    def weakened(ok: object, reason: str, where: str, found: object) -> None:
        real(ok or reason in without, reason, where, found)

    module.check = weakened  # type: ignore[attr-defined]
    try:
        with redirect_stderr(io.StringIO()) as err, redirect_stdout(io.StringIO()):
            code = module.main(audit.arguments)
    finally:
        module.check = real  # type: ignore[attr-defined]
    return said(code, err.getvalue().strip())


def in_node(audit: Audit, without: Sequence[str] = ()) -> Verdict:
    """tests/unit/audit/verify.mjs, with the checks for some reasons taken out."""
    program = VERIFY_MJS
    if without:
        program = audit.folder.parent / "weakened.mjs"
        guard = "if (!ok)"
        source = VERIFY_MJS.read_text()
        assert source.count(guard) == 1
        program.write_text(source.replace(guard, f"if (!ok && !{list(without)}.includes(reason))"))
    done = subprocess.run(["node", program, *audit.arguments], capture_output=True, text=True, timeout=120, check=False)
    return said(done.returncode, done.stderr.strip())


def in_python(audit: Audit) -> Verdict:
    """docs/auditor/verify.py as an auditor runs it, where no Triplane can be imported."""
    command = [sys.executable, "-I", str(VERIFY_PY), *audit.arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return said(done.returncode, done.stderr.strip())


def ours(audit: Audit) -> Verdict:
    """``verify_export``."""
    ring = CheckpointTrust(ORIGIN, KeyRing([parse_key(text) for text in audit.keys]))
    earlier = [(str(path), path.read_bytes()) for path in audit.earlier]
    found = verify_export(reader(audit.folder), ring, earlier)
    if found.fault is None:
        return Verdict(0)
    return Verdict(1, found.fault.reason, found.fault.where, found.fault.message)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a plain web server over the folder."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@cache
def _standalone() -> ModuleType:
    spec = spec_from_file_location("auditors_verify", VERIFY_PY)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def untouched(tmp_path: Path, size: int = 12) -> Audit:
    """An untouched export."""
    octets = entries(size)
    return Audit(exported(tmp_path / "log", octets), list(octets))
