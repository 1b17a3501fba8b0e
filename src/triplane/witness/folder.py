"""A witness is a folder: its name, its key, the logs it knows, and its record of what it has cosigned.

::

    name              one line: the name that its cosignatures bear
    signing/          its private key (0600), as ``SigningKeyFolder`` keeps it
    logs              one log a line: <origin> <key> [<key> ...]; `#` begins a remark
    record.sqlite     the latest checkpoint of each log
    evidence/         signed checkpoints that contradict the record
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from triplane.adapters.filesystem.signingkeys import Ed25519Signer, SigningKeyFolder
from triplane.adapters.sqlite.witnessrecord import WitnessRecord
from triplane.audit.checkpoint import CheckpointTrust
from triplane.audit.notekey import KeyRing, KeyType, NoteFault, VerifierKey, check_name, key_of, parse_key
from triplane.errors import Conflict, InvalidInput, InvalidNote

NAME: Final = "name"
LOGS: Final = "logs"
_LOGS_HEAD = """\
# The logs this witness knows, one a line: <origin> <key> [<key> ...]
# A key is <name>+<8 hex digits>+<base64>, from the log's owner on a way you trust, never from the log itself.
# A change is taken up at the next request; one with a wrong line is not, and the lines before it stay in force.
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who cosigns."""

    name: str
    signer: Ed25519Signer

    @property
    def key(self) -> VerifierKey:
        """What those who rely on the witness pin."""
        return key_of(self.name, KeyType.COSIGNATURE_V1, self.signer)


def make(folder: Path, name: str) -> Identity:
    """A new witness. Raises ``Conflict`` when the folder holds one, ``InvalidNote`` for a name that no note bears."""
    check_name(name, NoteFault.MALFORMED_KEY)
    if (folder / NAME).exists():
        raise Conflict(f"{folder} is a witness already: it keeps its name, key and record")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        signer = SigningKeyFolder(folder).current()
        if not (folder / LOGS).exists():
            (folder / LOGS).write_text(_LOGS_HEAD, encoding="utf-8")
        WitnessRecord.make(folder)
        # Last: a folder without it is no witness yet.
        (folder / NAME).write_text(f"{name}\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{folder} cannot hold a witness: {error}") from error
    return Identity(name, signer)


def identity(folder: Path) -> Identity:
    """Raises ``InvalidInput`` when the folder is no witness."""
    try:
        name = (folder / NAME).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder} is no witness: {error}; `triplane witness init` makes one") from error
    check_name(name, NoteFault.MALFORMED_KEY)
    keys = SigningKeyFolder(folder)
    if not keys.list_ids():
        raise InvalidInput(f"{folder / 'signing'} holds no key: restore it, or make another witness with another name")
    return Identity(name, keys.current())


def parse_logs(text: str, where: str) -> Mapping[str, KeyRing]:
    """The pinned keys by origin. Raises ``InvalidInput`` naming the line."""
    found: dict[str, KeyRing] = {}
    for number, line in enumerate(text.splitlines(), 1):
        origin, *keys = line.partition("#")[0].split() or [""]
        if not origin:
            continue
        try:
            if origin in found:
                raise InvalidInput(f"{origin} is there twice: give all its keys in one line")
            check_name(origin, NoteFault.MALFORMED_KEY)
            found[origin] = CheckpointTrust(origin, KeyRing(parse_key(key) for key in keys)).log
        except (InvalidInput, InvalidNote) as error:
            raise InvalidInput(f"{where}, line {number}: {error}") from error
    return found


class KnownLogs:
    """The file ``logs``, read again when it changes. A change that is wrong is told of, and changes nothing."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InvalidInput`` when the file is missing or wrong: at the start that is fatal."""
        self._path = folder / LOGS
        self._mark = self._stat()
        self._logs = self._read()

    def current(self) -> tuple[Mapping[str, KeyRing], str | None]:
        """The logs, and what is wrong with a change that was not taken up (told once)."""
        try:
            mark = self._stat()
            if mark == self._mark:
                return self._logs, None
            self._mark = mark
            self._logs = self._read()
        except InvalidInput as error:
            return self._logs, str(error)
        return self._logs, None

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be read: {error}; it lists the logs, one a line") from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> Mapping[str, KeyRing]:
        try:
            return parse_logs(self._path.read_text(encoding="utf-8"), str(self._path))
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{self._path} cannot be read: {error}") from error
