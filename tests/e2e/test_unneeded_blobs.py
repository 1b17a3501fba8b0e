"""The collector against everything that a Task leaves behind: what anybody may still ask for stays, garbage goes.

Blobs are made old by the times of their files, so the gateway's own collector, with its own grace, takes them for what
it would find in a month.
"""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, agent, graph, has, task

from triplane.adapters.filesystem.contentstore import FilesystemContentStore

NAMESPACE = "unneeded"
MONTH = 30 * 24 * 3600
JUST_NOW = 3.0
"""Seconds: a blob that another test's work stores at this moment may not be named yet."""


@pytest.fixture(scope="module")
def done(stack: Stack) -> tuple[Stack, dict[str, str]]:
    """A Task whose work was reviewed and accepted, and the digests it left."""
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    stack.apply(task(NAMESPACE, "kept"))
    status = stack.wait("Task", NAMESPACE, "kept", has("Succeeded", "True"), seconds=120)["status"]
    [output] = status["outputs"]
    return stack, {"artifact": output["artifact"], "digest": output["digest"]}


def questions(stack: Stack, artifact: str, digest: str) -> dict[str, str]:
    """Everything that is answered from blobs."""
    asked = {
        "content": ("artifact", "get", "-n", NAMESPACE, artifact),
        "attestations": ("attest", "verify", "-n", NAMESPACE, artifact),
        "lineage": ("lineage", "-n", NAMESPACE, digest, "-o", "json"),
        "as-run": ("as-run", "-n", NAMESPACE, "kept", "-o", "json"),
        "journal": ("logs", "-n", NAMESPACE, "task/kept"),
        "reflections": ("reflections", "-n", NAMESPACE, "-o", "json"),
    }
    return {name: stack.triplane(*arguments) for name, arguments in asked.items()}


def age(folder: Path) -> None:
    now = time.time()
    for path in (folder / "blobs").rglob("*"):
        if path.is_file() and path.stat().st_mtime < now - JUST_NOW:
            os.utime(path, (now - MONTH, now - MONTH))


def garbage(stack: Stack, content: bytes) -> str:
    """What a crash between storing and naming leaves."""
    return asyncio.run(FilesystemContentStore(stack.settings.cas).store(content))


def test_what_is_needed_stays_and_garbage_goes(done: tuple[Stack, dict[str, str]]) -> None:
    stack, made = done
    before = questions(stack, **made)
    waste = garbage(stack, b"nobody ever named this")
    time.sleep(JUST_NOW)
    age(stack.settings.cas)
    announced = json.loads(stack.triplane("blob", "collect", "--dry-run", "-o", "json"))
    assert waste in announced["examples"]
    collected = json.loads(stack.triplane("blob", "collect", "-o", "json"))
    assert collected["refused"] == ""
    assert collected["removed"] >= 1
    found = json.loads(stack.triplane("blob", "list", "-o", "json"))
    assert waste not in {blob["digest"] for blob in found}
    assert questions(stack, **made) == before
    stack.triplane("blob", "check")
    stack.triplane("graph", "rebuild", "--check")
    assert "chain verified" in stack.triplane("log", "verify")


def test_what_outlives_its_objects_outlives_the_collector(done: tuple[Stack, dict[str, str]]) -> None:
    stack, made = done
    stack.kubectl("delete", "task", "-n", NAMESPACE, "kept")
    deadline = time.monotonic() + 60
    while stack.get("Artifact", NAMESPACE, made["artifact"]) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    lineage = stack.triplane("lineage", "-n", NAMESPACE, made["digest"], "-o", "json")
    waste = garbage(stack, b"nobody ever named this either")
    time.sleep(JUST_NOW)
    age(stack.settings.cas)
    assert json.loads(stack.triplane("blob", "collect", "-o", "json"))["removed"] >= 1
    assert waste not in stack.triplane("blob", "list", "-o", "json")
    assert stack.triplane("lineage", "-n", NAMESPACE, made["digest"], "-o", "json") == lineage
    stack.triplane("blob", "check")
    stack.triplane("graph", "rebuild", "--check")
