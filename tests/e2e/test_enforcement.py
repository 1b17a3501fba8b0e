"""Egress, secrets and shared paths on a whole installation: real RBAC, real sandbox, real proxy."""

import hashlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.stack import Stack, agent, condition, graph, has, task

pytestmark = pytest.mark.e2e
PROGRAMS = Path(__file__).with_name("programs")
TOKEN = "github-4c1f9d7e-value"
NAMESPACE = "enforced"
SECRETS = [{"name": "github", "key": "token", "env": "GITHUB_TOKEN"}]
PATHS = [{"path": "notes"}, {"path": "drop", "writable": True}]


@dataclass
class Installed:
    stack: Stack
    shared: Path
    port: int
    """Where something inside answers with a greeting."""


def _greet(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"hello from inside")


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """An installation whose ceiling lets one inner address be delegated, and whose runner shares a folder."""
    home = Path(tempfile.mkdtemp(prefix="tri-en-"))
    shared = home.with_name(f"{home.name}-shared")
    for name in ("notes", "drop", "private"):
        (shared / name).mkdir(parents=True)
    shared.chmod(0o755)
    (shared / "notes" / "today.txt").write_text("today")
    (shared / "private" / "diary.txt").write_text("not for runs")
    (shared / "drop").chmod(0o777)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    threading.Thread(target=_greet, args=(server,), daemon=True).start()
    everything = {"tools": ["**"], "capabilities": ["**"], "harnesses": ["**"], "models": ["**"], "delegationDepth": 8}
    outside = {"secrets": ["**"], "paths": ["**:rw"], "egress": ["*", f"127.0.0.1:{port}"]}
    nothing: dict[str, list[str]] = {"secrets": [], "paths": [], "egress": []}
    ceiling = home / "ceiling.yaml"
    ceiling.write_text(yaml.safe_dump({"mayUse": everything | nothing, "mayDelegate": everything | outside}))
    stack = Stack.start(home, programs=PROGRAMS, shared=shared, authority=ceiling)
    try:
        stack.people(NAMESPACE)
        stack.apply(graph(NAMESPACE))
        stack.apply(*agent(NAMESPACE, "reviewer", ["review"]), as_="bob")
        stack.kubectl("create", "secret", "generic", "github", "-n", NAMESPACE, f"--from-literal=token={TOKEN}")
        yield Installed(stack, shared, port)
    finally:
        server.close()
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(shared, ignore_errors=True)


def granted(installed: Installed, **changes: Any) -> dict[str, Any]:
    grant = {
        "secrets": ["github"],
        "paths": ["notes/**", "drop:rw"],
        "egress": [f"127.0.0.1:{installed.port}"],
    }
    return {"mayUse": grant | changes}


def reaching(installed: Installed, name: str, **changes: Any) -> dict[str, Any]:
    return task(
        NAMESPACE,
        name,
        secrets=SECRETS,
        paths=PATHS,
        authority=granted(installed, **changes),
        retry={"backoffSeconds": 1},
        outputs=[{"name": "report", "path": "report.json", "mediaType": "application/json"}],
    )


def until_told(installed: Installed, name: str, text: str) -> None:
    installed.stack.wait("Task", NAMESPACE, name, lambda obj: text in condition(obj, "Succeeded")["message"])


def test_a_secret_needs_the_rights_of_requester_and_gateway_and_then_everything_granted_is_there(
    installed: Installed,
) -> None:
    stack = installed.stack
    role = ("-n", NAMESPACE, "create", "role", "secrets", "--verb=get", "--resource=secrets", "--resource-name=github")
    stack.kubectl(*role)
    worker = agent(NAMESPACE, "worker", [], "reaches.py")
    worker[0]["spec"]["exec"]["args"] = [f"127.0.0.1:{installed.port}", "127.0.0.1:1", "example.com:443"]
    worker[1]["spec"]["authority"] = granted(installed)
    stack.apply(*worker)

    stack.apply(reaching(installed, "too-early"))
    until_told(installed, "too-early", "who made the Task, may not get Secret enforced/github")
    alice = (stack.get("Task", NAMESPACE, "too-early") or {})["metadata"]["annotations"]["triplane.dev/requester"]
    bind = ("-n", NAMESPACE, "create", "rolebinding", "--role=secrets")
    stack.kubectl(*bind, "alice-secrets", f"--user={alice}")
    stack.apply(reaching(installed, "still-early"))
    until_told(installed, "still-early", "the gateway's account may not get Secret enforced/github")
    stack.kubectl(*bind, "gateway-secrets", "--serviceaccount=triplane-system:triplane-gateway")

    stack.apply(reaching(installed, "in-time"))
    stack.wait("Task", NAMESPACE, "in-time", has("Succeeded", "True"), seconds=90)
    found = json.loads(stack.triplane("artifact", "get", "-n", NAMESPACE, "--task", "in-time", "report"))
    assert found["token"] == hashlib.sha256(TOKEN.encode()).hexdigest()
    inside, beside, outside = found["targets"].values()
    assert inside.endswith("hello from inside")
    assert "403 Forbidden: egress 127.0.0.1:1 is refused" in beside
    assert "403 Forbidden: egress example.com:443 is refused" in outside
    assert found["notes"] == "today"
    assert found["shared"] == ["drop", "notes", "notes/today.txt"]
    assert (installed.shared / "drop" / "left.txt").read_text() == "left by a run"

    session = (stack.get("Task", NAMESPACE, "in-time") or {})["status"]["session"]
    journal = stack.triplane("logs", "-n", NAMESPACE, f"session/{session}")
    assert "the token is [redacted]" in journal
    assert f"egress 127.0.0.1:{installed.port}" in journal
    assert TOKEN not in journal
    for folder in ("cas", "run"):  # nothing of what the installation keeps holds it
        for path in (stack.settings.home / folder).rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_what_authority_does_not_grant_is_not_even_accepted(installed: Installed) -> None:
    with pytest.raises(AssertionError, match=r"axis secrets: github is beyond"):
        installed.stack.apply(reaching(installed, "too-wide", secrets=[]))
    with pytest.raises(AssertionError, match=r"axis paths: drop:rw is beyond"):
        installed.stack.apply(reaching(installed, "too-wide", paths=["notes/**", "drop"]))
    assert installed.stack.get("Task", NAMESPACE, "too-wide") is None
