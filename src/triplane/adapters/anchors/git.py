"""A branch of a git repository as anchor: each checkpoint a commit on the last, so that the whole history is kept.

Only plumbing is used: no index, no work tree, no hooks, no signing, no configuration of the user, no shell. The branch
moves by compare and swap, so a commit by somebody else is never overwritten. It may be pushed to a remote, never by
force; a copy on the same disk is worth little.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from triplane.audit.note import MAX_NOTE
from triplane.errors import InvalidInput, Unavailable

FILE: Final = "checkpoint"
EVERY_SECONDS: Final = 60.0
GIT_SECONDS: Final = 10.0
AUTHOR: Final = "Triplane notary"
EMAIL: Final = "notary@triplane.invalid"
_OPTIONS: Final = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=false", "-c", "gc.auto=0")


class GitAnchor:
    """The latest checkpoint as a file of one branch."""

    kind = "git"
    every_seconds = EVERY_SECONDS
    readable = True

    def __init__(self, repository: Path, uri: str = "", *, branch: str = "main", push: str = "") -> None:
        """``push`` names a remote; empty: nothing is pushed."""
        self._repository = repository
        self._ref = f"refs/heads/{branch}"
        self._push = push
        self.uri = uri or f"git:{repository}"

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        commit = await self._commit()
        if commit is None:
            return None
        listed = await self._git("ls-tree", "--full-tree", commit, "--", FILE)
        if not listed:
            return None
        mode, kind, blob = listed.decode().split("\t")[0].split(" ")
        if kind != "blob" or mode == "120000":
            raise InvalidInput(f"{self.uri}: {FILE} is no file")
        size = int(await self._git("cat-file", "-s", blob))
        if size > MAX_NOTE:
            raise InvalidInput(f"{self.uri}: {FILE} has {size} octets, it is no checkpoint")
        return await self._git("cat-file", "blob", blob) or None

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``: one commit, unless the branch has it already; then what is not pushed yet is pushed."""
        parent = await self._commit()
        if parent is None or await self.read() != note:
            await self._add(parent, note)
        if self._push:
            await self._git("push", "--quiet", "--", self._push, f"{self._ref}:{self._ref}")

    async def close(self) -> None:
        """Nothing is open."""

    async def _add(self, parent: str | None, note: bytes) -> None:
        blob = _name(await self._git("hash-object", "-w", "--stdin", given=note))
        others = [] if parent is None else (await self._git("ls-tree", "-z", parent)).split(b"\0")
        kept = [line for line in others if line and line.partition(b"\t")[2] != FILE.encode()]
        entries = [*kept, f"100644 blob {blob}\t{FILE}".encode()]
        tree = _name(await self._git("mktree", "-z", given=b"".join(entry + b"\0" for entry in entries)))
        subject = note.partition(b"\n\n")[0].decode().split("\n")[:2]
        parents = () if parent is None else ("-p", parent)
        message = f"Checkpoint of {subject[1]} entries of {subject[0]}\n".encode()
        commit = _name(await self._git("commit-tree", tree, *parents, given=message))
        await self._git("update-ref", "-m", "checkpoint", self._ref, commit, parent or "")  # "": must not exist

    async def _commit(self) -> str | None:
        """The branch's commit; None while it has none. Raises ``Unavailable`` where there is no repository."""
        found = await self._git("for-each-ref", "--format=%(objectname)", "--", self._ref)
        return _name(found) if found else None

    async def _git(self, *arguments: str, given: bytes = b"") -> bytes:
        command = ("git", *_OPTIONS, "-C", str(self._repository), *arguments)
        try:
            return await _run(command, given)
        except OSError as error:
            raise Unavailable(f"{self.uri}: git cannot be run: {error}; install it") from error
        except TimeoutError as error:
            raise Unavailable(f"{self.uri}: git {arguments[0]} did not end within {GIT_SECONDS:.0f} s") from error
        except _FailedError as error:
            raise Unavailable(f"{self.uri}: git {arguments[0]}: {error}") from error


class _FailedError(Exception):
    """What git said when it failed."""


async def _run(command: Sequence[str], given: bytes) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
    )
    try:
        async with asyncio.timeout(GIT_SECONDS):
            out, said = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _FailedError(said.decode(errors="replace").strip()[:400] or f"exit code {process.returncode}")
    return out


def _environment() -> dict[str, str]:
    """Nothing of ours but where programs are, and what ssh needs to push."""
    passed = {name: os.environ[name] for name in ("PATH", "HOME", "SSH_AUTH_SOCK") if name in os.environ}
    return {
        **passed,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "file:https:ssh",
        "GIT_AUTHOR_NAME": AUTHOR,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": AUTHOR,
        "GIT_COMMITTER_EMAIL": EMAIL,
    }


def _name(octets: bytes) -> str:
    return octets.decode().strip()
