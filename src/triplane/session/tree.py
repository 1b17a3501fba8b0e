"""Folders as one blob: a tar that depends on nothing but names, contents and the executable bit.

One tree has exactly one packing, so its digest names the tree, and unpacking accepts that packing only: every
header is compared with the one ``pack_tree`` would have written. What a hostile archive could smuggle (links,
devices, absolute paths, ``..``, duplicates, odd modes, hidden data) has no place in that form, instead of
being looked for.

The form is POSIX.1-2001 pax interchange ("ustar" headers, ``typeflag`` 0 or 5, mtime, uid and gid 0, no names
of owners, mode 0644 or 0755), entries ascending by path as octets, folders before what is in them, two zero
blocks at the end. A path that is not ASCII or longer than 100 octets goes into an extended header with the
single record ``path``. Any tar reads it.

Standard library only: the session host uses it.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from triplane.errors import InvalidInput, TooLarge
from triplane.session.treeformat import (
    BLOCK,
    LARGEST_FILE,
    LONGEST_RECORD,
    Entry,
    header_name,
    header_size,
    is_executable,
    is_extended,
    is_folder,
    padding,
    read_exactly,
)

CHUNK: Final = 1 << 20
FOLDER_MODE: Final = 0o755


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What a tree may cost. Octets count file contents."""

    entries: int = 100_000
    octets: int = 4 << 30
    depth: int = 64
    path: int = 1024
    """Longest path in octets."""


DEFAULT_LIMITS: Final = TreeLimits()


def pack_tree(path: Path, limits: TreeLimits = DEFAULT_LIMITS) -> Iterator[bytes]:
    """The canonical tar of a folder, in chunks.

    Raises ``InvalidInput`` for a path that is no folder, for links, devices, pipes and sockets in it, names
    that are not UTF-8, and files that change while they are read; ``TooLarge`` over the limits.
    """
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path.is_dir() else -1
    if root < 0:
        raise InvalidInput(f"{path} is not a folder; only folders are packed")
    try:
        budget = _Budget(limits, str(path))
        for entry in _walk(root, path, budget):
            yield entry.headers
            if not entry.folder:
                yield from _contents(root, path, entry)
        yield bytes(2 * BLOCK)
    finally:
        os.close(root)


def hash_tree(path: Path, limits: TreeLimits = DEFAULT_LIMITS) -> str:
    """``sha256:…`` of what ``pack_tree`` gives; raises as it does."""
    found = hashlib.sha256()
    for chunk in pack_tree(path, limits):
        found.update(chunk)
    return f"sha256:{found.hexdigest()}"


def unpack_tree(source: Path | IO[bytes], dest: Path, limits: TreeLimits = DEFAULT_LIMITS) -> None:
    """Make the packed folder at ``dest``, which must not exist yet. Modes are 0644 and 0755 whatever the umask.

    Raises ``InvalidInput`` for anything ``pack_tree`` does not write, with the entry named, and ``TooLarge``
    over the limits. What was made until then stays in ``dest``; nothing was made outside of it.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return unpack_tree(stream, dest, limits)
    try:
        dest.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        raise InvalidInput(f"{dest} exists already; unpack into a new folder") from None
    dest.chmod(FOLDER_MODE)
    root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _unpack(source, root, _Budget(limits, "the archive"))
    finally:
        os.close(root)
    return None


def _unpack(stream: IO[bytes], root: int, budget: "_Budget") -> None:
    folders = {""}
    previous = b""
    while (entry := _read_entry(stream)) is not None:
        budget.spend(entry)
        _check_place(entry, previous, folders)
        previous = entry.path.encode()
        if entry.folder:
            folders.add(entry.path)
        _make(root, entry, stream)


class _Budget:
    """Counts a tree against its limits."""

    def __init__(self, limits: TreeLimits, what: str) -> None:
        self._limits = limits
        self._what = what
        self._entries = self._octets = 0

    def spend(self, entry: Entry) -> None:
        limits = self._limits
        self._entries += 1
        self._octets += entry.size
        over = (
            (self._entries > limits.entries, f"more than {limits.entries} entries"),
            (self._octets > limits.octets, f"more than {limits.octets} octets"),
            (entry.path.count("/") >= limits.depth, f"folders deeper than {limits.depth}: {entry.path!r}"),
            (len(entry.path.encode()) > limits.path, f"a path over {limits.path} octets: {entry.path!r}"),
            (entry.size > LARGEST_FILE, f"a file larger than 8 GiB: {entry.path!r}"),
        )
        for exceeded, what in over:
            if exceeded:
                raise TooLarge(f"{self._what} has {what}; send a smaller tree")


def _walk(root: int, path: Path, budget: _Budget) -> list[Entry]:
    """Every entry below the root, ascending by path as octets."""
    found: list[Entry] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        descriptor = _open_below(root, folder, os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as items:
                for item in items:
                    entry = _entry(item, f"{folder}/{item.name}" if folder else item.name, path)
                    budget.spend(entry)
                    found.append(entry)
                    if entry.folder:
                        todo.append(entry.path)
        finally:
            os.close(descriptor)
    return sorted(found, key=lambda entry: entry.path.encode())


def _entry(item: os.DirEntry[str], below: str, path: Path) -> Entry:
    try:
        below.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{path}: the name {below!r} is not UTF-8; rename it") from error
    found = item.stat(follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return Entry(below, folder=True, executable=False, size=0)
    if stat.S_ISREG(found.st_mode):
        return Entry(below, folder=False, executable=bool(found.st_mode & stat.S_IXUSR), size=found.st_size)
    raise InvalidInput(f"{path / below} is a link, device, pipe or socket; only files and folders are packed")


def _contents(root: int, path: Path, entry: Entry) -> Iterator[bytes]:
    descriptor = _open_below(root, entry.path, os.O_NONBLOCK)
    try:
        left = entry.size
        while left:
            chunk = os.read(descriptor, min(CHUNK, left))
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
        if left or os.read(descriptor, 1):
            raise InvalidInput(f"{path / entry.path} changed while it was packed; nobody may write to it meanwhile")
        yield padding(entry.size)
    finally:
        os.close(descriptor)


def _open_below(root: int, path: str, flags: int) -> int:
    """Descend without following links, so that a folder swapped for a link is refused rather than followed."""
    names = path.split("/") if path else []
    current = os.dup(root)
    try:
        for name in names[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = below
        if not names:
            return os.open(".", os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=current)
        return os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=current)
    except OSError as error:
        raise InvalidInput(f"{path!r} changed while it was packed ({error.strerror}); try again") from error
    finally:
        os.close(current)


def _read_entry(stream: IO[bytes]) -> Entry | None:
    """The next entry, None at the proper end."""
    raw = header = read_exactly(stream, BLOCK)
    if not any(header):
        if any(read_exactly(stream, BLOCK)) or stream.read(1):
            raise InvalidInput("the archive goes on after its end; pack it with `triplane blob put`")
        return None
    name = header_name(header)
    if is_extended(header):
        size = header_size(header)
        if size > LONGEST_RECORD:
            raise InvalidInput("an extended header of the archive is not canonical; use `triplane blob put`")
        record = read_exactly(stream, size + len(padding(size)))
        header = read_exactly(stream, BLOCK)
        raw += record + header
        name = record[:size].partition(b"=")[2].removesuffix(b"\n")
    try:
        path = name.removesuffix(b"/").decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the archive's entry {name!r} is not UTF-8; use `triplane blob put`") from error
    entry = Entry(path, is_folder(header), is_executable(header), header_size(header))
    if entry.headers != raw:
        raise InvalidInput(
            f"the archive's entry {path!r} is not canonical: only plain files and folders as "
            "`triplane blob put` packs them are accepted, no links, devices or other headers"
        )
    return entry


def _check_place(entry: Entry, previous: bytes, folders: set[str]) -> None:
    """Refuse an entry that is not the next one in order, or not directly in a folder that came before."""
    names = entry.path.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise InvalidInput(f"the archive's path {entry.path!r} leads out of the folder or is malformed")
    if entry.path.encode() <= previous:
        raise InvalidInput(f"the archive's entry {entry.path!r} is a duplicate or out of order")
    if "/".join(names[:-1]) not in folders:
        raise InvalidInput(f"the archive's entry {entry.path!r} is in a folder that did not come before it")
    if entry.folder and entry.size:
        raise InvalidInput(f"the archive's folder {entry.path!r} has content")


def _make(root: int, entry: Entry, stream: IO[bytes]) -> None:
    """Make the file or folder; its parents are folders we made."""
    parent, _, name = entry.path.rpartition("/")
    within = _open_below(root, parent, os.O_DIRECTORY)
    try:
        if entry.folder:
            os.mkdir(name, FOLDER_MODE, dir_fd=within)
            os.chmod(name, FOLDER_MODE, dir_fd=within)
            return
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=within
        )
    finally:
        os.close(within)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        left = entry.size
        while left:
            view = memoryview(read_exactly(stream, min(CHUNK, left)))
            left -= len(view)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)
    if any(read_exactly(stream, len(padding(entry.size)))):
        raise InvalidInput(f"the archive hides data behind {entry.path!r}; pack it with `triplane blob put`")
