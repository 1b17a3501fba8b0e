"""What no admission can prevent, on a whole installation (docs/reference/bad-input.md, rows 6 and 30): cycles by
racing edits, and parents deleted while their work is under way."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from signal import Signals
from typing import Any

import pytest
from tests.e2e.api import Api
from tests.e2e.stack import Stack, agent, condition, graph, has, resource, task

from triplane.localcluster.identity import send
from triplane.localcluster.services import admission

pytestmark = [pytest.mark.e2e, pytest.mark.attacks]

NAMESPACE = "in-flight"
HOLD = "example.org/hold"


@pytest.fixture(scope="module")
def flight(stack: Stack) -> Stack:
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"], SLEEP="300"))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    return stack


@pytest.fixture
def alice(flight: Stack) -> Iterator[Api]:
    with Api(flight.settings.secrets / "kubeconfig-alice") as api:
        yield api


@contextmanager
def late(stack: Stack) -> Iterator[None]:
    """The webhook answers only afterwards: whatever is asked meanwhile is checked at the same moment."""
    identity = admission(stack.settings).process.running()
    assert identity is not None
    send(identity, Signals.SIGSTOP)
    try:
        yield
        time.sleep(0.5)
    finally:
        send(identity, Signals.SIGCONT)


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def create_together(stack: Stack, api: Api, *objects: dict[str, Any]) -> list[int]:
    with ThreadPoolExecutor(len(objects)) as pool:
        with late(stack):
            pending = [pool.submit(api.create, obj) for obj in objects]
        return [answer.result().status_code for answer in pending]


def race(stack: Stack, api: Api) -> tuple[str, str]:
    """Two Tasks that wait for each other, each let in before the other was there. Whether the webhook looks at both in
    the same moment is the machine's to say, so the race is run until it is lost."""
    for attempt in range(20):
        names = (f"one-{attempt}", f"two-{attempt}")
        pair = [task(NAMESPACE, name, dependsOn=[other]) for name, other in (names, names[::-1])]
        answers = create_together(stack, api, *pair)
        if answers == [201, 201]:
            return names
        assert sorted(answers) == [201, 422]
        api.delete(pair[answers.index(201)]).raise_for_status()
    raise AssertionError("the race was never lost: nothing is shown")


def test_a_cycle_by_racing_creates_is_stalled_spelled_out_and_never_run(flight: Stack, alice: Api) -> None:
    one, two = race(flight, alice)
    for name in (one, two):
        found = flight.wait("Task", NAMESPACE, name, has("Stalled", "True", "DependencyCycle"))
        for said in (condition(found, "Stalled")["message"], flight.triplane("why", "-n", NAMESPACE, f"task/{name}")):
            assert f"{one} → {two} → {one}" in said or f"{two} → {one} → {two}" in said
    assert not flight.list("AgentSession", NAMESPACE)
    # The way out that the message names.
    first = task(NAMESPACE, one)
    alice.delete(first).raise_for_status()
    eventually(lambda: alice.get(first).status_code == 404)
    alice.create(task(NAMESPACE, one, agentRef={"name": "nobody"})).raise_for_status()
    flight.wait("Task", NAMESPACE, two, lambda obj: condition(obj, "Stalled")["status"] != "True")
    for name in (one, two):
        alice.delete(task(NAMESPACE, name)).raise_for_status()


def _sessions_of(stack: Stack, task_name: str) -> list[dict[str, Any]]:
    return [
        session for session in stack.list("AgentSession", NAMESPACE) if session["spec"]["taskRef"]["name"] == task_name
    ]


@pytest.mark.parametrize("parent", ["Node", "Task"])
def test_a_parent_deleted_in_flight_is_deleted_and_why_lists_the_sessions_being_stopped(
    parent: str, flight: Stack, alice: Api
) -> None:
    name = f"doomed-{parent.lower()}"
    if parent == "Node":
        work = {"name": "write", "objective": "Write the report", "agentRef": {"name": "worker"}}
        work["outputs"] = [{"name": "report", "path": "report.txt", "mediaType": "text/plain"}]  # type: ignore[assignment]
        obj = resource("Node", NAMESPACE, name, {"graphRef": {"name": "g"}, "steps": [work]})
        task_name = f"{name}-write"
    else:
        obj, task_name = task(NAMESPACE, name), name
    alice.create(obj).raise_for_status()
    flight.wait("Task", NAMESPACE, task_name, has("Succeeded", "Unknown", "Running"))
    (session,) = _sessions_of(flight, task_name)
    session_name, uid = session["metadata"]["name"], session["metadata"]["uid"]
    # Somebody's finalizer keeps it half-deleted, so that there is time to look.
    alice.merge(obj, {"metadata": {"finalizers": [HOLD]}}).raise_for_status()
    path = f"/apis/triplane.dev/v1alpha1/namespaces/{NAMESPACE}/{parent.lower()}s/{name}"
    alice.request("DELETE", path, json={"propagationPolicy": "Background"}).raise_for_status()

    said = ""

    def listed() -> bool:
        nonlocal said
        said = flight.triplane("why", "-n", NAMESPACE, f"{parent.lower()}/{name}")
        return session_name in said

    eventually(listed, 20)
    assert f"{parent} {NAMESPACE}/{name} is being deleted" in said
    assert re.search(rf"{session_name} \(producer\) (is being|was) stopped", said)

    def revoked() -> bool:
        entries = flight.triplane("log", "query", "-n", NAMESPACE, "--uid", uid, "--type", "run.revoked")
        return "run.revoked" in entries

    eventually(revoked)
    alice.merge(obj, {"metadata": {"finalizers": None}}).raise_for_status()
    eventually(lambda: alice.get(obj).status_code == 404 and alice.get(task(NAMESPACE, task_name)).status_code == 404)
