"""The folder of one run on the host: what the sandbox shows, and nothing else.

``<home>/run/sessions/<session>-<run>/`` belongs to the runner alone (0700). Removing it must cope with whatever a
harness left in its outputs.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.errors import TriplaneError
from triplane.session.client import RunEnded, RunGateway
from triplane.session.refusal import refused
from triplane.session.sandbox import NOBODY, Mount
from triplane.session.tree import unpack_tree

INSIDE = Path("/work")
_INPUT_PATH = re.compile(r"/work/inputs/([A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*)", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_ETC: Mapping[str, str] = {
    "passwd": f"agent:x:{NOBODY}:{NOBODY}:agent:/tmp:/bin/sh\n",
    "group": f"agent:x:{NOBODY}:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True, slots=True)
class Workspace:
    """The host's side of /work."""

    root: Path

    @classmethod
    def of_run(cls, sessions: Path, session_uid: str, run: int) -> "Workspace":
        """Its place; nothing is made."""
        plain = _PLAIN.fullmatch(session_uid) is not None
        label = session_uid if plain else hashlib.sha256(session_uid.encode()).hexdigest()[:32]
        return cls(sessions / f"{label}-{run}")

    @property
    def order(self) -> Path:
        return self.root / "order.json"

    @property
    def inputs(self) -> Path:
        return self.root / "inputs"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def program(self) -> Path:
        return self.root / "program"

    @property
    def shared(self) -> Path:
        """Where shared paths are linked when there is no sandbox to mount them in."""
        return self.root / "shared"

    def mounts(self) -> list[Mount]:
        """What the sandbox shows of it."""
        return [
            *(Mount(self.root / "etc" / name, f"/etc/{name}") for name in _ETC),
            Mount(self.order, "/work/order.json"),
            Mount(self.inputs, "/work/inputs"),
            Mount(self.program, "/work/program"),
            Mount(self.outputs, "/work/outputs", writable=True),
        ]


def create_workspace(workspace: Workspace, owner: int | None) -> None:
    """Make the folder. ``owner``: the user the outputs folder is given to. Blocking."""
    workspace.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if workspace.root.exists():
        remove_tree(workspace.root)
    workspace.root.mkdir(mode=0o700)
    (workspace.root / "owner").write_text(_identity(os.getpid()) or "")
    for folder in (workspace.inputs, workspace.outputs, workspace.root / "etc", workspace.root / "fetched"):
        folder.mkdir()
        folder.chmod(0o755)
    for name, text in _ETC.items():
        file = workspace.root / "etc" / name
        file.write_text(text)
        file.chmod(0o444)
    if owner is not None:
        os.chown(workspace.outputs, owner, owner)


def write_order(workspace: Workspace, order: Mapping[str, Any], *, inside: bool) -> None:
    """Write order.json as the program sees it: without ``harness``, and outside a sandbox with the host's paths."""
    document = {key: value for key, value in order.items() if key != "harness"}
    if not inside:
        document = _rebased(document, str(workspace.root))
    workspace.order.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    workspace.order.chmod(0o444)


async def fetch_inputs(workspace: Workspace, gateway: RunGateway, inputs: Sequence[Mapping[str, Any]]) -> None:
    """Put every input in its place, verified by digest, read-only.

    Raises ``RunEndsEarly`` (``InputUnusable``) naming the input: a path outside /work/inputs or taken twice, a
    digest that does not match what came, an archive that cannot be unpacked safely, a blob that is not there.
    """
    places = _places(workspace, inputs)
    fetched: dict[str, Path] = {}
    for digest in {str(item["digest"]) for item in inputs}:
        fetched[digest] = workspace.root / "fetched" / digest.removeprefix("sha256:")
    try:
        async with asyncio.TaskGroup() as group:
            for digest, path in fetched.items():
                group.create_task(fetch_blob(gateway, digest, path))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    for item, place in zip(inputs, places, strict=True):
        await asyncio.to_thread(_place, fetched[str(item["digest"])], place, item)


async def fetch_blob(gateway: RunGateway, digest: str, path: Path) -> None:
    """Download a blob and verify it. Raises ``RunEndsEarly`` (``InputUnusable``) with both digests."""

    actual = ""

    async def receive(chunks: AsyncIterator[bytes]) -> None:
        nonlocal actual
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            async for chunk in chunks:
                await asyncio.to_thread(_write, file, hasher, chunk)
        actual = f"sha256:{hasher.hexdigest()}"

    try:
        await gateway.download(digest, receive)
    except RunEnded:
        raise
    except (TriplaneError, OSError) as error:
        raise refused("InputUnusable", f"blob {digest} cannot be fetched: {error}") from error
    if actual != digest:
        raise refused("InputUnusable", f"what came for blob {digest} has digest {actual}")


def unpack_archive(archive: Path, place: Path) -> None:
    """Unpack a stored folder; raises as ``unpack_tree``. Blocking."""
    with archive.open("rb") as stream:
        unpack_tree(stream, place)


def remove_tree(root: Path) -> None:
    """Remove a folder a harness has filled: any depth, any permissions, no link followed. Blocking.

    Sub-folders are first moved up beside ``root``, so that paths stay short however deep they were nested.
    """
    waiting, number = [root], 0
    while waiting:
        folder = waiting.pop()
        folder.chmod(0o700)
        with os.scandir(folder) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_folder in found:
            if is_folder:
                os.chmod(path, 0o700)
                moved = root.with_name(f".{root.name}.{number}")
                number += 1
                os.rename(path, moved)
                waiting.append(moved)
            else:
                os.unlink(path)
        folder.rmdir()


def remove_leftovers(sessions: Path) -> list[str]:
    """Remove the folders of runner processes that are no more; returns their names. Blocking."""
    removed: list[str] = []
    if not sessions.is_dir():
        return removed
    for folder in sorted(sessions.iterdir()):
        if folder.is_symlink() or not folder.is_dir() or _owner_lives(folder):
            continue
        with contextlib.suppress(FileNotFoundError):  # another runner removes it as well
            remove_tree(folder)
        removed.append(folder.name)
    return removed


def _places(workspace: Workspace, inputs: Sequence[Mapping[str, Any]]) -> list[Path]:
    places: list[Path] = []
    for item in inputs:
        name, digest = str(item.get("name")), str(item.get("digest"))
        found = _INPUT_PATH.fullmatch(str(item.get("path")))
        if found is None:
            raise refused("InputUnusable", f"input {name}: {item.get('path')} is no path under /work/inputs")
        if _DIGEST.fullmatch(digest) is None:
            raise refused("InputUnusable", f"input {name}: {digest} is no digest")
        place = workspace.inputs / found[1]
        for other in places:
            if place == other or place.is_relative_to(other) or other.is_relative_to(place):
                raise refused("InputUnusable", f"input {name}: {item.get('path')} collides with another input")
        places.append(place)
    return places


def _place(fetched: Path, place: Path, item: Mapping[str, Any]) -> None:
    if not place.parent.is_dir():
        place.parent.mkdir()
        place.parent.chmod(0o755)
    if item.get("type") == "Directory":
        try:
            unpack_archive(fetched, place)
        except (TriplaneError, OSError) as error:
            raise refused(
                "InputUnusable",
                f"input {item['name']}: blob {item['digest']} is no archive of a folder: {error}; make it with "
                "`triplane blob put FOLDER`",
            ) from error
        return
    shutil.copyfile(fetched, place)
    place.chmod(0o444)


def _write(file: Any, hasher: Any, chunk: bytes) -> None:
    hasher.update(chunk)
    file.write(chunk)


def _rebased(value: Any, root: str) -> Any:
    """The document with every ``path`` under /work moved to ``root``."""
    if isinstance(value, Mapping):
        return {
            key: root + item.removeprefix("/work")
            if key == "path" and isinstance(item, str) and item.startswith("/work/")
            else _rebased(item, root)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rebased(item, root) for item in value]
    return value


def _identity(pid: int) -> str | None:
    """``<pid> <start time>`` of a live process: a number alone may be another's by now."""
    try:
        stat_line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return f"{pid} {stat_line.rpartition(')')[2].split()[19]}"


def _owner_lives(folder: Path) -> bool:
    try:
        identity = (folder / "owner").read_text()
        return bool(identity) and _identity(int(identity.split()[0])) == identity
    except (OSError, ValueError, IndexError):
        return False
