"""Example 09 on a whole installation: leave to launch, and a quorum of one agent and one person."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.manifests import EXAMPLES, example
from tests.e2e.stack import Stack, condition, has

pytestmark = pytest.mark.e2e

NAME = "09-approval-and-review"


@pytest.fixture(scope="module")
def installed() -> Iterator[Stack]:
    """An installation whose runner approves the programs of the examples."""
    home = Path(tempfile.mkdtemp(prefix="tri-ar-"))
    stack = Stack.start(home, programs=EXAMPLES / "programs")
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def waiting(installed: Stack, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own in which the example waits for leave to launch."""
    namespace: str = request.node.name.replace("_", "-")[:40].strip("-")
    installed.people(namespace)
    owned = list(example(NAME, namespace))
    for user in ("admin", "bob", "alice"):
        installed.apply(*(obj for owner, obj in owned if owner == user), as_=user)
    installed.wait("Task", namespace, "payout", has("WaitingForApproval", "True"))
    return namespace


def review(stack: Stack, namespace: str, user: str, *arguments: str, code: int = 0) -> str:
    kubeconfig = str(stack.settings.secrets / f"kubeconfig-{user}")
    verb, *rest = arguments
    return stack.triplane("review", verb, *rest, "-n", namespace, "--kubeconfig", kubeconfig, code=code)


def logged(stack: Stack, namespace: str, type_: str) -> list[dict[str, Any]]:
    alice = str(stack.settings.secrets / "kubeconfig-alice")
    told = stack.triplane("log", "query", "-n", namespace, "--type", type_, "-o", "json", "--kubeconfig", alice)
    return [item.get("entry", item) for item in json.loads(told)]


def test_09_leave_is_given_and_an_agent_and_a_person_accept(installed: Stack, waiting: str) -> None:
    task = installed.get("Task", waiting, "payout")
    assert task is not None
    assert task["status"]["state"] == "blocked"
    assert "bob must answer" in installed.triplane("why", "-n", waiting, "task/payout")
    (shown,) = json.loads(review(installed, waiting, "bob", "show", "-o", "json"))
    digest = shown["subjects"][0]["digest"]
    assert shown["subjects"] == task["status"]["approval"]["subjects"]

    # Somebody else's word is void, and said to be; so is leave for another digest, which is not even made.
    assert "decides nothing" in _failed(installed, waiting, "alice", "approve", "payout")
    assert "is not what is judged now" in _failed(
        installed, waiting, "bob", "approve", "payout", "--digest", "sha256:" + "0" * 64
    )
    review(installed, waiting, "bob", "approve", "payout", "--round", "1", "--digest", digest)

    installed.wait(
        "Task", waiting, "payout", lambda task: condition(task, "Reviewed")["reason"] == "WaitingForPerson", 60
    )
    installed.wait("Task", waiting, "payout", lambda task: task["status"].get("approvals") == ["payout-reviewer"], 60)
    review(installed, waiting, "alice", "approve", "payout")
    done = installed.wait("Task", waiting, "payout", has("Succeeded", "True"))
    assert installed.triplane("artifact", "get", "-n", waiting, "--task", "payout", "sum").strip() == "200"
    assert done["status"].get("approval") is None
    assert {item["spec"].get("gate") for item in installed.list("Review", waiting)} == {"Launch", "Outputs"}
    (accepted,) = logged(installed, waiting, "task.accepted")
    reviews = accepted["data"]["reviews"]
    assert [bool(item.get("reviewerAgentUid")) for item in reviews] == [True, False]
    assert len({item["reviewerPrincipal"] for item in reviews}) == 2
    given = logged(installed, waiting, "approval.given")
    assert [item["data"]["gate"] for item in given] == ["Launch", "Outputs", "Outputs"]


def test_09_a_rejection_by_either_is_another_round_without_new_leave(installed: Stack, waiting: str) -> None:
    review(installed, waiting, "bob", "approve", "payout")
    installed.wait(
        "Task", waiting, "payout", lambda task: condition(task, "Reviewed")["reason"] == "WaitingForPerson", 60
    )
    assert "needs a finding" in _failed(installed, waiting, "alice", "reject", "payout", code=2)
    review(installed, waiting, "alice", "reject", "payout", "-m", "which invoices?")
    second = installed.wait(
        "Task", waiting, "payout",
        lambda task: task["status"]["round"] == 2 and condition(task, "Reviewed")["reason"] == "WaitingForPerson",
    )  # fmt: skip
    assert second["status"]["findings"] == ["which invoices?"]
    review(installed, waiting, "alice", "approve", "payout", "--round", "2")
    installed.wait("Task", waiting, "payout", has("Succeeded", "True"))


def test_09_refused_leave_ends_it(installed: Stack, waiting: str) -> None:
    review(installed, waiting, "bob", "reject", "payout", "-m", "not before the audit")
    ended = installed.wait("Task", waiting, "payout", has("Succeeded", "False", "ApprovalDenied"))
    assert "not before the audit" in condition(ended, "Succeeded")["message"]
    assert not [run for run in installed.list("AgentSession", waiting) if run["status"].get("run")]


def _failed(stack: Stack, namespace: str, user: str, *arguments: str, code: int = 1) -> str:
    """What was said on standard error."""
    kubeconfig = str(stack.settings.secrets / f"kubeconfig-{user}")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "triplane"), "review", *arguments, "-n", namespace,
         "--kubeconfig", kubeconfig],
        capture_output=True, text=True, timeout=120, check=False, env=stack.environment(),
    )  # fmt: skip
    assert done.returncode == code, done
    return done.stderr
