"""A whole installation in a home of its own: what ``triplane up`` makes, for tests that need all of it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.api import Api, resource
from tests.e2e.fixtures import find_kubectl

from triplane.localcluster import installation
from triplane.localcluster.apiserver import ApiServer
from triplane.settings import Settings

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Stack:
    """The installation and the three people who use it."""

    settings: Settings
    admin: Api

    @classmethod
    def start(cls, home: Path, *, fsync: bool = False, **settings: Any) -> "Stack":
        chosen = Settings(home=home, **{"programs": PROGRAMS, **settings})
        asyncio.run(installation.up(chosen, namespaces=["demo"], fsync=fsync))
        return cls(chosen, Api(chosen.secrets / "kubeconfig-admin"))

    def stop(self) -> None:
        self.admin.close()
        asyncio.run(installation.down(self.settings))

    def kubectl(self, *arguments: str, as_: str = "admin", stdin: str | None = None, check: bool = True) -> str:
        """What kubectl printed; as ``admin``, ``alice`` or ``bob``."""
        kubeconfig = self.settings.secrets / f"kubeconfig-{as_}"
        done = subprocess.run(
            [find_kubectl(), "--kubeconfig", str(kubeconfig), *arguments],
            input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def triplane(self, *arguments: str, code: int = 0, notes: bool = False) -> str:
        """What the command line printed; with ``notes``, what it said beside that as well."""
        done = subprocess.run(
            [str(Path(sys.executable).parent / "triplane"), *arguments],
            capture_output=True, text=True, timeout=120, check=False, env=self.environment(),
        )  # fmt: skip
        assert done.returncode == code, f"triplane {arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr if notes else done.stdout

    def environment(self) -> dict[str, str]:
        return {
            "TRIPLANE_HOME": str(self.settings.home),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.settings.home),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def apply(self, *documents: Mapping[str, Any], as_: str = "alice") -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [dict(item) for item in documents]})
        self.kubectl("apply", "-f", "-", as_=as_, stdin=text)

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """The object, read as admin; None when there is none."""
        answer = self.admin.get(resource(kind, namespace, name, {}))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def list(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """All of that kind."""
        items: list[dict[str, Any]] = self.admin.list(kind, namespace).raise_for_status().json()["items"]
        return items

    def wait(
        self, kind: str, namespace: str, name: str, until: Callable[[dict[str, Any]], bool], seconds: float = 60
    ) -> dict[str, Any]:
        """The object once ``until`` holds of it; fails with its last status."""
        deadline = time.monotonic() + seconds
        while True:
            obj = self.get(kind, namespace, name)
            if obj is not None and until(obj):
                return obj
            assert time.monotonic() < deadline, f"{kind} {name}: {json.dumps((obj or {}).get('status'), indent=1)}"
            time.sleep(0.02)

    def people(self, namespace: str) -> None:
        """Make a namespace in which alice and bob may work."""
        kubeconfig = self.settings.secrets / "kubeconfig-admin"

        async def grant() -> None:
            from triplane.localcluster.install import grant as open_to_people

            async with await ApiServer.from_kubeconfig(kubeconfig) as server:
                await open_to_people(server, namespace)

        asyncio.run(grant())


def condition(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """A condition of an object; an empty one when it has none."""
    for entry in (obj.get("status") or {}).get("conditions") or []:
        if entry["type"] == type_:
            return dict(entry)
    return {"status": "", "reason": "", "message": ""}


def has(type_: str, status: str, reason: str | None = None) -> Callable[[dict[str, Any]], bool]:
    """A predicate for ``Stack.wait``."""

    def check(obj: dict[str, Any]) -> bool:
        found = condition(obj, type_)
        return found["status"] == status and reason in (None, found["reason"])

    return check


def agent(
    namespace: str, name: str, capabilities: Sequence[str], program: str = "worker.py", **env: str
) -> list[dict[str, Any]]:
    """An Agent and its Harness."""
    variables = [{"name": key, "value": value} for key, value in env.items()]
    execute: dict[str, Any] = {"program": program}
    if variables:
        execute["env"] = variables
    return [
        resource("Harness", namespace, name, {"exec": execute}),
        resource("Agent", namespace, name, {"harnessRef": {"name": name}, "capabilities": list(capabilities)}),
    ]


def graph(namespace: str, name: str = "g") -> dict[str, Any]:
    """A Graph with a workstream."""
    return resource("Graph", namespace, name, {"workstream": {"markdown": "Test the spine."}})


def task(namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    """A hand-written Task for Agent ``worker``, with one text output."""
    return resource(
        "Task",
        namespace,
        name,
        {
            "graphRef": {"name": "g"},
            "objective": "Write the report",
            "agentRef": {"name": "worker"},
            "outputs": [{"name": "report", "path": "report.txt", "mediaType": "text/plain"}],
            **spec,
        },
    )
