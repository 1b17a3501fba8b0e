"""Parts of the runner's shared folder that a run may see, at /work/shared/<path>.

A path is opened beneath the shared folder without following any link, looked at, and *that* file or folder is mounted,
by its descriptor: whoever may write in the shared folder, another run among them, cannot put something else in its
place between check and mount.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.domain.authority_patterns import covers_path
from triplane.session.beneath import NotBeneath, open_beneath
from triplane.session.refusal import refused
from triplane.session.sandbox import Mount

SHARED = "/work/shared"


@dataclass(frozen=True, slots=True)
class SharedPath:
    """A file or folder that was opened. Whoever takes the descriptor closes it."""

    path: str
    writable: bool
    descriptor: int

    def mount(self) -> Mount:
        """Its place in the sandbox."""
        return Mount(Path(self.path), f"{SHARED}/{self.path}", self.writable, self.descriptor)

    def wire(self) -> dict[str, Any]:
        """What is recorded of it."""
        return {"path": self.path, "writable": self.writable}


def open_shared(shared: Path | None, uses: Sequence[Mapping[str, Any]], granted: Sequence[str]) -> list[SharedPath]:
    """Open every path of the work order, outer folders first. Blocking.

    Raises ``RunEndsEarly``: ``PathForbidden`` where the frozen authority does not grant it (operator and admission have
    looked before; nobody is believed here), ``PathUnavailable`` where the runner shares nothing, nothing is there, or a
    link, device, pipe or socket is in the way.
    """
    opened: list[SharedPath] = []
    try:
        for use in sorted(uses, key=lambda use: str(use["path"])):
            opened.append(_open_one(shared, str(use["path"]), bool(use.get("writable")), granted))  # noqa: PERF401
    except BaseException:
        for item in opened:
            os.close(item.descriptor)
        raise
    return opened


def _open_one(shared: Path | None, path: str, writable: bool, granted: Sequence[str]) -> SharedPath:
    wanted = f"{path}:rw" if writable else path
    if not any(covers_path(limit, wanted) for limit in granted):
        raise refused(
            "PathForbidden",
            f"path {wanted} is not within the authority of this session. Limit of axis paths: "
            f"{', '.join(granted) or 'none'}. Whoever sets the authority of the Task, its Node, Graph or Agent may "
            "grant it",
        )
    if shared is None:
        raise refused(
            "PathUnavailable",
            f"path {path}: this runner shares nothing; its owner sets TRIPLANE_SHARED to the folder whose parts "
            "sessions may see",
        )
    try:
        descriptor, _ = open_beneath(shared, path)
    except (NotBeneath, OSError) as error:
        raise refused("PathUnavailable", f"path {path} in the runner's shared folder: {error}") from error
    return SharedPath(path, writable, descriptor)
