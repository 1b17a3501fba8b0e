"""Examples 03 to 06 on a whole installation, with their own programs; 01 and 02 are what ``triplane demo`` runs."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.manifests import EXAMPLES, Owned, example
from tests.e2e.stack import Stack, condition, has

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed() -> Iterator[Stack]:
    """An installation whose runner approves the programs of the examples."""
    home = Path(tempfile.mkdtemp(prefix="tri-ex-"))
    stack = Stack.start(home, programs=EXAMPLES / "programs")
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def people_in(installed: Stack, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:50].strip("-")
    installed.people(name)
    return name


def apply(stack: Stack, owned: list[Owned]) -> None:
    for user in ("alice", "bob"):
        stack.apply(*(obj for owner, obj in owned if owner == user), as_=user)


def output(stack: Stack, namespace: str, task: str, name: str) -> str:
    return stack.triplane("artifact", "get", "-n", namespace, "--task", task, name)


def steps_of(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in node["status"]["steps"]}


def test_03_fans_out_skips_by_condition_and_merges_in_four_ways(installed: Stack, people_in: str) -> None:
    name = "03-fan-out-and-merge"
    digest = installed.triplane("blob", "put", "-n", people_in, str(EXAMPLES / name / "pages")).split()[0]
    apply(installed, list(example(name, people_in, digest=digest)))
    strict, tolerant = (
        installed.wait("Node", people_in, node, has("Succeeded", "True"), seconds=120)
        for node in ("strict", "tolerant")
    )
    assert {step["state"] for step in strict["status"]["steps"]} == {"completed"}
    states = {name: step["state"] for name, step in steps_of(tolerant).items()}
    assert states.pop("escalate") == "skipped"
    assert set(states.values()) == {"completed"}
    assert strict["status"]["progress"] == tolerant["status"]["progress"] == "6/6"
    skipped = installed.get("Task", people_in, "tolerant-escalate")
    assert skipped is not None
    assert condition(skipped, "Succeeded")["reason"] == "ConditionFalse"

    summary = json.loads(output(installed, people_in, "strict-report", "summary"))
    assert list(summary["facts"]) == ["inventory", "links", "outline", "words"]
    assert summary["counts"] == [4, 2, summary["facts"]["words"]["words"]]
    alarmed, calm = (output(installed, people_in, f"{node}-report", "report") for node in ("strict", "tolerant"))
    assert alarmed.startswith("# 2 broken links must be mended\n")
    assert calm.startswith("# 4 pages, ")
    assert "## Mend first" in alarmed
    assert "## Mend first" not in calm
    assert "## Outline" in calm

    report = installed.get("Task", people_in, "strict-report")
    assert report is not None
    digest = next(item["digest"] for item in report["status"]["outputs"] if item["name"] == "summary")
    told = installed.triplane("lineage", "-n", people_in, digest, "--up")
    for field in ("/broken", "/pages", "/words"):
        assert field in told
    assert "strict-links" in told


def test_04_retries_backs_off_and_fails_in_two_ways(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("04-retries-and-failure", people_in)))
    backing_off = installed.wait(
        "Task", people_in, "patient-fetch", lambda task: (task.get("status") or {}).get("retries", 0) >= 1
    )
    assert condition(backing_off, "Succeeded")["status"] == "Unknown"

    patient = installed.wait("Node", people_in, "patient", has("Succeeded", "False"), seconds=120)
    steps = steps_of(patient)
    assert {name: step["state"] for name, step in steps.items()} == {
        "fetch": "completed",
        "again": "completed",
        "both": "completed",
        "ask": "timed_out",
        "answer": "invalidated",
    }
    assert steps["fetch"]["retries"] == 2
    assert "ask" in condition(patient, "Succeeded")["message"]
    ask = installed.get("Task", people_in, "patient-ask")
    assert ask is not None
    assert condition(ask, "Succeeded")["reason"] == "IdleTimeout"
    assert output(installed, people_in, "patient-both", "sum").strip() == "41"  # 23 + 18

    hasty = installed.wait("Node", people_in, "hasty", has("Succeeded", "False"), seconds=60)
    assert {name: step["state"] for name, step in steps_of(hasty).items()} == {
        "doomed": "failed",
        "long": "cancelled",
        "later": "cancelled",
    }
    long = installed.get("Task", people_in, "hasty-long")
    assert long is not None
    assert condition(long, "Succeeded")["reason"] == "FailFast"


def test_05_fifty_steps_count_the_primes(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("05-fifty-steps", people_in)))
    node = installed.wait("Node", people_in, "census", has("Succeeded", "True"), seconds=240)
    assert node["status"]["progress"] == "50/50"
    assert len(installed.list("Task", people_in)) == 50
    total = json.loads(output(installed, people_in, "census-total", "census"))
    check = json.loads(output(installed, people_in, "census-check", "census"))
    assert total == check
    assert (total["primes"], total["last"], total["twins"]) == (9592, 99991, 1224)


def test_06_whatever_is_missing_is_waited_for_and_named(installed: Stack, people_in: str) -> None:
    owned = list(example("06-gitops-order", people_in))
    said = {}
    for user, obj in owned:
        installed.apply(obj, as_=user)
        key = f"{obj['kind']} {obj['metadata']['name']}"
        expected = {
            "Node ledger": ("node/ledger", "Graph gitops does not exist"),
            "Task audit": ("task/audit", "Graph gitops does not exist"),
            "Workflow ledger": ("node/ledger", "Graph gitops does not exist"),
            "Graph gitops": ("task/audit", "Agent adder (agentRef) does not exist"),
            "Agent adder": ("task/ledger-open", "Harness adder"),
        }.get(key)
        if expected is not None:
            thing, text = expected
            said[key] = until_why_says(installed, people_in, thing, text)
    installed.wait("Node", people_in, "ledger", has("Succeeded", "True"), seconds=60)
    installed.wait("Task", people_in, "audit", has("Succeeded", "True"), seconds=60)
    assert output(installed, people_in, "audit", "sum").strip() == "200"


def until_why_says(stack: Stack, namespace: str, thing: str, text: str) -> str:
    """What ``triplane why`` prints once it says ``text``."""
    kind, name = thing.split("/")

    def explained(_: dict[str, Any]) -> bool:
        nonlocal told
        told = stack.triplane("why", "-n", namespace, thing)
        return text in told

    told = ""
    stack.wait(kind.capitalize(), namespace, name, explained, seconds=30)
    return told
