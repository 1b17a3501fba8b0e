"""Opening a path beneath a folder without ever following a link.

Each component is opened from the one before with O_NOFOLLOW (open(2)), so neither a link left there nor one put
there meanwhile leads elsewhere; the last is opened with O_PATH and looked at before anything is read, since
opening a device or a pipe already does something.
"""

import os
import stat
from pathlib import Path

from triplane.errors import TriplaneError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


class NotBeneath(TriplaneError):
    """The path does not lead to a file or folder beneath the root without links."""


class NothingThere(NotBeneath):
    """There is nothing at that path."""


def open_beneath(root: Path, relative: str) -> tuple[int, os.stat_result]:
    """A descriptor of the regular file or folder at ``root``/``relative``, and its stat. The caller closes it.

    Raises ``NothingThere``; ``NotBeneath`` naming what is there instead: a link, device, pipe or socket, a
    linked folder on the way, or a path that is absolute or has ``..`` in it.
    """
    parts = relative.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise NotBeneath(f"{relative!r} is not a plain relative path: use names separated by single slashes")
    folder = os.open(root, _FOLDER)
    try:
        for number, part in enumerate(parts[:-1]):
            folder, outer = _open_folder(folder, part, "/".join(parts[: number + 1])), folder
            os.close(outer)
        return _open_last(folder, parts[-1], relative)
    finally:
        os.close(folder)


def what(status: os.stat_result) -> str:
    """``a symbolic link``, ``a named pipe``, …"""
    return next((name for check, name in _KINDS if check(status.st_mode)), "a regular file")


def _open_folder(parent: int, name: str, shown: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError as error:
        raise NothingThere(f"{shown} does not exist") from error
    except OSError as error:
        raise NotBeneath(
            f"{shown} is {_kind_of(parent, name)}, not a folder of its own: links are not followed"
        ) from error


def _open_last(parent: int, name: str, shown: str) -> tuple[int, os.stat_result]:
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError as error:
        raise NothingThere(f"{shown} does not exist") from error
    except OSError as error:
        raise NotBeneath(f"{shown} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise NotBeneath(f"{shown} is {what(status)}: only a regular file is accepted")
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if stat.S_ISDIR(status.st_mode) else 0)
        return os.open(f"/proc/self/fd/{handle}", flags), status  # the very inode that was looked at
    except PermissionError as error:
        raise NotBeneath(f"{shown} cannot be read: {error.strerror}") from error
    finally:
        os.close(handle)


def _kind_of(parent: int, name: str) -> str:
    try:
        return what(os.stat(name, dir_fd=parent, follow_symlinks=False))
    except OSError:
        return "gone"
