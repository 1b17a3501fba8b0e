"""The program of a run: copied first, then hashed, then mounted — the copy each time.

What was hashed is what runs, because nobody but the session host can write to the copy. Swapping the original
before, during or after changes which octets are copied, never which are recorded.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from triplane.api.harness import ExecHarness
from triplane.api.meta import Material, MaterialBasis
from triplane.session.beneath import NotBeneath, NothingThere, open_beneath, what
from triplane.session.interpreter import file_digest
from triplane.session.refusal import RunEndsEarly, refused
from triplane.session.tree import hash_tree

MAX_OCTETS = 256 * 1024 * 1024
MAX_FILES = 10_000
_CHUNK = 1 << 20
_SKIPPED = frozenset({"__pycache__"})
"""Bytecode caches: derived, and written by whoever last ran the program."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program ready to be mounted."""

    path: Path
    """The host's copy: a file or a folder."""
    name: str
    digest: str
    """Of the copy: SHA-256 of the file, or of the folder's deterministic tar."""

    @property
    def material(self) -> Material:
        """Its line of the as-run record."""
        return Material(role="program", name=self.name, digest=self.digest, basis=MaterialBasis.CONTENT)

    def command(self, harness: ExecHarness, place: Path, interpreter: Path) -> list[str]:
        """The argument vector, with the program found at ``place``. No shell is involved.

        Python runs isolated from environment and user packages (``-E -s``, and ``-P`` for a single file, which has
        no modules beside it), writes no bytecode and does not buffer its output.
        """
        folder = self.path.is_dir()
        target = place / harness.entrypoint if folder and harness.entrypoint else place
        if harness.interpreter == "none":
            return [str(target), *harness.args]
        flags = ["-E", "-s", "-B", "-u"] if folder else ["-I", "-B", "-u"]
        return [str(interpreter), *flags, str(target), *harness.args]


def parse_harness(block: Mapping[str, Any]) -> ExecHarness:
    """The work order's ``harness``. Raises ``RunEndsEarly`` (``HarnessInvalid``)."""
    try:
        return ExecHarness.model_validate(block)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise refused("HarnessInvalid", f"the work order's harness: {place}: {first['msg']}") from error


def copy_approved(approved: Path | None, name: str, target: Path) -> None:
    """Copy the approved program ``name`` to ``target``, read-only, following no link. Blocking.

    Raises ``RunEndsEarly``: ``ProgramNotApproved`` where the runner approves none or not this one,
    ``ProgramRefused`` for links, special files, or more than 256 MiB or 10,000 files.
    """
    if approved is None or not approved.is_dir():
        raise refused(
            "ProgramNotApproved",
            f"program {name}: this runner approves no programs; its owner sets TRIPLANE_PROGRAMS to their directory",
        )
    try:
        descriptor, status = open_beneath(approved, name)
    except NothingThere as error:
        raise refused(
            "ProgramNotApproved", f"program {name} is not in the directory of approved programs: {error}"
        ) from error
    except NotBeneath as error:
        raise refused("ProgramRefused", f"program {name}: {error}") from error
    try:
        copier = _Copier(name)
        if stat.S_ISDIR(status.st_mode):
            copier.folder(descriptor, target)
        else:
            copier.file(descriptor, target)
    finally:
        os.close(descriptor)


def measure_program(harness: ExecHarness, path: Path) -> Program:
    """Hash the copy and hold it against the digest the Harness pins. Blocking.

    Raises ``RunEndsEarly``: ``ProgramChanged`` with both digests; ``HarnessInvalid`` where folder and entrypoint
    do not fit together.
    """
    digest = hash_tree(path) if path.is_dir() else file_digest(path)
    name = harness.program or "blob"
    if harness.digest is not None and digest != harness.digest:
        raise refused(
            "ProgramChanged",
            f"program {name} has digest {digest}, the Harness demands {harness.digest}: restore the program, or pin "
            "the new digest in a reviewed change of the Harness",
        )
    _check_entrypoint(harness, name, path)
    return Program(path, name, digest)


def _check_entrypoint(harness: ExecHarness, name: str, path: Path) -> None:
    if not path.is_dir():
        if harness.entrypoint is not None:
            raise refused("HarnessInvalid", f"program {name} is a file: remove entrypoint {harness.entrypoint}")
        return
    if harness.entrypoint is None:
        raise refused("HarnessInvalid", f"program {name} is a folder: name the file to run as entrypoint")
    try:
        descriptor, status = open_beneath(path, harness.entrypoint)
    except NotBeneath as error:
        raise refused("HarnessInvalid", f"program {name}: entrypoint {error}") from error
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise refused("HarnessInvalid", f"program {name}: entrypoint {harness.entrypoint} is {what(status)}")


class _Copier:
    """Copies one program through descriptors, within the limits."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._octets = MAX_OCTETS
        self._files = MAX_FILES

    def file(self, source: int, target: Path) -> None:
        """Copy an open file. What is read is what counts, however the file changes meanwhile."""
        self._files -= 1
        if self._files < 0:
            raise self._refused(f"has more than {MAX_FILES} files")
        executable = os.fstat(source).st_mode & 0o111
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while chunk := os.read(source, _CHUNK):
                self._octets -= len(chunk)
                if self._octets < 0:
                    raise self._refused(f"has more than {MAX_OCTETS} octets")
                view = memoryview(chunk)
                while view:
                    view = view[os.write(copy, view) :]
            os.fchmod(copy, 0o555 if executable else 0o444)
        finally:
            os.close(copy)

    def folder(self, source: int, target: Path) -> None:
        """Copy an open folder, regular files and folders only."""
        target.mkdir(mode=0o700)
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries if entry.name not in _SKIPPED)
        for name in names:
            self._entry(source, name, target / name)
        target.chmod(0o755)  # stays removable by an ordinary user; in the sandbox the mount is read-only

    def _entry(self, parent: int, name: str, target: Path) -> None:
        try:
            handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            raise self._refused(f"changed while it was copied ({name}: {error.strerror})") from error
        try:
            status = os.fstat(handle)
            is_folder = stat.S_ISDIR(status.st_mode)
            if not is_folder and not stat.S_ISREG(status.st_mode):
                raise self._refused(f"contains {what(status)}, {name}: put files and folders there, no links")
            flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if is_folder else 0)
            source = os.open(f"/proc/self/fd/{handle}", flags)
        finally:
            os.close(handle)
        try:
            (self.folder if is_folder else self.file)(source, target)
        finally:
            os.close(source)

    def _refused(self, problem: str) -> RunEndsEarly:
        return refused("ProgramRefused", f"program {self._name} {problem}")
