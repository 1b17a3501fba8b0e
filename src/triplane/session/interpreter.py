"""The Python interpreter that harness programs get: the runner's own base interpreter, without its packages.

A runner usually lives in a virtual environment full of things a harness has no business with. Programs get the
standard library only, so that what they run on is named by three digests and not by a folder of packages.
"""

import hashlib
import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from triplane.api.meta import Material, MaterialBasis

SYSTEM_FOLDERS = tuple(Path(name) for name in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64"))
"""Programs and libraries of the system, mounted read-only in every sandbox."""
_PACKAGE_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter and what of the machine it needs to run."""

    executable: Path
    """The real file, no link."""
    mounts: tuple[Path, ...]
    """Files and folders outside ``SYSTEM_FOLDERS`` that must be mounted, at their own place."""
    hidden: tuple[Path, ...]
    """Folders of installed packages within what is mounted, to be covered."""
    library: Path | None
    """The shared library the executable is linked with, if it is."""
    stdlib: Path


def find_interpreter() -> Interpreter:
    """The base interpreter of the running process."""
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME")
    library = Path(folder, name).resolve() if folder and name and str(name).endswith(".so.1.0") else None
    if library is not None and not library.is_file():
        library = None
    wanted = [executable, stdlib, Path(sys.base_prefix, "lib").resolve(), *([library] if library else [])]
    mounts: list[Path] = []
    for path in sorted(set(wanted), key=lambda item: len(item.parts)):
        if not any(path.is_relative_to(mounted) for mounted in (*SYSTEM_FOLDERS, *mounts)):
            mounts.append(path)
    visible = (*SYSTEM_FOLDERS, *mounts)
    hidden = {
        folder
        for parent in (stdlib, stdlib.parent / "python3", Path("/usr/lib/python3"))
        for folder in (parent / name for name in _PACKAGE_FOLDERS)
        if folder.is_dir() and any(folder.is_relative_to(path) for path in visible)
    }
    return Interpreter(executable, tuple(mounts), tuple(sorted(hidden)), library, stdlib)


def measure(interpreter: Interpreter) -> list[Material]:
    """The as-run record of the interpreter: executable, shared library, standard library.

    Reads some ten thousand files at most; call it in a thread. Bytecode caches are left out: they are derived.
    """
    version = platform.python_version()
    found = [_material(f"python {version}", file_digest(interpreter.executable))]
    if interpreter.library is not None:
        found.append(_material(interpreter.library.name, file_digest(interpreter.library)))
    found.append(_material(f"standard library {version}", _folder_digest(interpreter.stdlib)))
    return found


def file_digest(path: Path) -> str:
    """``sha256:…`` of a file's content."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _material(name: str, digest: str) -> Material:
    return Material(role="interpreter", name=name, digest=digest, basis=MaterialBasis.CONTENT)


def _folder_digest(folder: Path) -> str:
    """SHA-256 over ``<sha256 of the content>  <relative path>`` lines sorted by path, as ``sha256sum`` prints."""
    lines: list[tuple[str, str]] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("__pycache__", *_PACKAGE_FOLDERS)]
        for name in files:
            path = Path(parent, name)
            if path.is_file():
                lines.append((path.relative_to(folder).as_posix(), file_digest(path).removeprefix("sha256:")))
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))
    return f"sha256:{hashlib.sha256(listing.encode('utf-8', 'surrogateescape')).hexdigest()}"
