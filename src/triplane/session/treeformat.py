"""The header blocks of a packed tree (``triplane.session.tree``): one way to write each entry, and how to
read one back."""

from dataclasses import dataclass
from typing import IO, Final

from triplane.errors import InvalidInput

BLOCK: Final = 512
LARGEST_FILE: Final = 0o77777777777
"""Octets of the largest file an ustar header can tell of (8 GiB)."""
LONGEST_RECORD: Final = 8 * BLOCK
"""More than any path within the limits needs; a reader takes no larger extended header into memory."""

_FOLDER, _FILE, _EXTENDED = b"5", b"0", b"x"
_EXTENDED_NAME = b"@path"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of a tree; ``path`` is relative, slash-separated, without a slash at its end."""

    path: str
    folder: bool
    executable: bool
    size: int

    @property
    def headers(self) -> bytes:
        """The one way to write this entry's header blocks."""
        name = self.path.encode() + (b"/" if self.folder else b"")
        mode = 0o755 if self.folder or self.executable else 0o644
        kind = _FOLDER if self.folder else _FILE
        if len(name) <= 100 and name.isascii():
            return _header(name, kind, mode, self.size)
        record = _pax_record(b"path", name)
        extended = _header(_EXTENDED_NAME, _EXTENDED, 0o644, len(record)) + record + padding(len(record))
        return extended + _header(_EXTENDED_NAME, kind, mode, self.size)


def header_name(header: bytes) -> bytes:
    """The name field, without its filling."""
    return header[:100].rstrip(b"\0")


def header_size(header: bytes) -> int:
    """The size field in octets. Raises ``InvalidInput``."""
    digits = header[124:135]
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise InvalidInput("a size in the archive is malformed; pack it with `triplane blob put`")
    return int(digits, 8)


def is_extended(header: bytes) -> bool:
    """Whether a pax extended header begins here."""
    return header[156:157] == _EXTENDED


def is_folder(header: bytes) -> bool:
    """Whether this is the header of a folder."""
    return header[156:157] == _FOLDER


def is_executable(header: bytes) -> bool:
    """Whether the mode is the one of executable files."""
    return header[100:107] == b"0000755" and not is_folder(header)


def padding(size: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-size % BLOCK)


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """The next ``count`` octets. Raises ``InvalidInput`` when there are fewer."""
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            raise InvalidInput("the archive ends too early; store or fetch it again")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _header(name: bytes, kind: bytes, mode: int, size: int) -> bytes:
    """One ustar header block (POSIX.1-2001, pax, "ustar Interchange Format")."""
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0" % mode,
            b"0000000\0" * 2,
            b"%011o\0" % size,
            b"00000000000\0",
            b" " * 8,
            kind,
            bytes(100),
            b"ustar\0" + b"00",
            bytes(247),  # names of owners, device numbers, prefix: none
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _pax_record(key: bytes, value: bytes) -> bytes:
    """``length key=value newline``, where length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
