"""Lenses, Guidelines and Reflections as people use them: publish, work by it, edit, search what was learnt."""

import hashlib
import json

import pytest
from tests.e2e.stack import Stack, agent, graph, has, resource, task

NAMESPACE = "lenses"
WORK = {"requiredCapabilities": ["write"]}

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lenses(stack: Stack) -> Stack:
    """A worker (alice's) and a judge (bob's), a Capability with a parameter, and a Guideline."""
    stack.people(NAMESPACE)
    parameters = [{"name": "tone", "type": "Select", "options": ["plain", "warm"], "default": "plain"}]
    lens = {"instructions": "Write in a [[tone]] tone.", "parameters": parameters}
    stack.apply(
        graph(NAMESPACE),
        *agent(NAMESPACE, "worker", ["write"]),
        resource("Capability", NAMESPACE, "write", lens),
        resource("Guideline", NAMESPACE, "units", {"text": "Use SI units.", "priority": 5}),
    )
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    return stack


def materials(stack: Stack, name: str) -> dict[str, list[tuple[str, str]]]:
    """Role to ``(name, digest)`` of what was frozen with the producing session of the Task."""
    done = stack.wait("Task", NAMESPACE, name, has("Succeeded", "True"))
    session = stack.get("AgentSession", NAMESPACE, done["status"]["session"])
    assert session is not None
    found: dict[str, list[tuple[str, str]]] = {}
    for item in session["spec"]["snapshot"]:
        found.setdefault(item["role"], []).append((item["name"], item.get("digest", "")))
    return found


def capability(stack: Stack, *arguments: str, code: int = 0) -> str:
    """As alice, who controls it."""
    kubeconfig = str(stack.settings.secrets / "kubeconfig-alice")
    return stack.triplane("capability", *arguments, "-n", NAMESPACE, "--kubeconfig", kubeconfig, code=code)


def test_from_draft_to_published_to_archived(lenses: Stack) -> None:
    stack = lenses
    assert "published version 1" in capability(stack, "publish", "write")
    assert "nothing to publish" in capability(stack, "publish", "write")
    stack.wait("Capability", NAMESPACE, "write", lambda obj: (obj.get("status") or {}).get("version") == 1)

    stack.apply(task(NAMESPACE, "first", **WORK, capabilityParameters={"tone": "warm"}))
    frozen = materials(stack, "first")
    first = frozen["capability"]
    assert [name for name, _ in first] == ["write@1"]
    units = f"sha256:{hashlib.sha256(b'Use SI units.').hexdigest()}"
    assert frozen["guideline"] == [(f"{NAMESPACE}/units", units)]

    stack.apply(resource("Capability", NAMESPACE, "write", {"instructions": "Write."}))
    assert "published version 2" in capability(stack, "publish", "write")
    stack.apply(
        task(NAMESPACE, "second", **WORK),
        task(NAMESPACE, "pinned", requiredCapabilities=["write@1"]),
    )
    assert [name for name, _ in materials(stack, "second")["capability"]] == ["write@2"]
    assert materials(stack, "pinned")["capability"] == first, "the same digest whatever was edited beside it"

    assert "archived version 2" in capability(stack, "archive", "write", "2")
    stack.apply(task(NAMESPACE, "third", **WORK))
    assert materials(stack, "third")["capability"] == first
    shown = json.loads(capability(stack, "show", "write", "-o", "json"))["versions"]
    states = {row["version"]: row["state"] for row in shown}
    assert states == {"1": "newest (Tasks get it)", "2": "archived", "draft": "not published"}
    assert "[[tone]] Select" in capability(stack, "show", "write", "--version", "1")
    capability(stack, "archive", "write", "9", code=1)


def test_the_webhook_refuses_what_no_task_could_use(lenses: Stack) -> None:
    document = resource("Capability", NAMESPACE, "broken", {"instructions": "Use [[nothing]]."})
    said = lenses.kubectl("apply", "-f", "-", as_="alice", stdin=json.dumps(document), check=False)
    assert "[[nothing]], which is no parameter" in said


def test_a_wrong_parameter_stalls_the_task_and_says_so(lenses: Stack) -> None:
    lenses.apply(task(NAMESPACE, "loud", **WORK, capabilityParameters={"tone": "loud"}))
    found = lenses.wait("Task", NAMESPACE, "loud", has("Stalled", "True", "ParameterInvalid"))
    assert "none of plain, warm" in json.dumps(found["status"])


def test_what_was_learnt_is_found_also_after_everything_is_gone(lenses: Stack) -> None:
    lenses.apply(task(NAMESPACE, "learning", **WORK))
    lenses.wait("Task", NAMESPACE, "learning", has("Succeeded", "True"))
    uid = (lenses.get("Task", NAMESPACE, "learning") or {})["metadata"]["uid"]
    lenses.kubectl("delete", "task", "-n", NAMESPACE, "learning", "--wait=true")
    arguments = ("reflections", "-n", NAMESPACE, "--task", uid, "--text", "order CLEAR", "--min-confidence", "90")
    found = json.loads(lenses.triplane(*arguments, "-o", "json"))
    assert {(item["role"], item["outcome"]) for item in found} == {("Producer", "succeeded"), ("Reviewer", "succeeded")}
    assert all("the order was clear" in item["wentWell"] for item in found)
    assert "+ the order was clear" in lenses.triplane(*arguments)
    assert json.loads(lenses.triplane(*arguments[:-1], "91", "-o", "json")) == []
