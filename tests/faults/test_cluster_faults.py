"""The cluster around the operator fails: a frozen controller manager, successors of the same name, a blocked event
loop, very many objects (rows 10, 32, 35, 36)."""

import asyncio
from typing import Any

import pytest

from tests.e2e.api import Api, resource
from tests.e2e.stack import agent, condition, graph, task
from tests.faults import workload
from tests.faults.evidence import leftovers, settle
from tests.faults.installation import Installation
from tests.faults.invariants import explained
from tests.faults.soak import soak
from tests.faults.witness import read_log
from tests.faults.work import Work, eventually

pytestmark = pytest.mark.faults

MANAGER = "kube-controller-manager"
OBJECTS, ROUNDS = 334, 3
BLOCKED_SECONDS = 10
DELETED_SECONDS = 60.0


def node(namespace: str, name: str = "n") -> dict[str, Any]:
    """A Node of one step."""
    step = {key: value for key, value in task(namespace, "x")["spec"].items() if key != "graphRef"}
    return resource("Node", namespace, name, {"graphRef": {"name": "g"}, "steps": [{"name": "only", **step}]})


def names(api: Api, kind: str, namespace: str) -> dict[str, str]:
    """Name to uid."""
    items = api.list(kind, namespace).raise_for_status().json()["items"]
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}


def test_with_the_controller_manager_frozen_deletion_completes_afterwards(installation: Installation, api: Api) -> None:
    """Owned objects outlive their owner until somebody collects them; what runs under them is stopped at once."""
    work = Work(installation, api, "frozen-manager", 60)
    uid = work.begin()
    with installation.frozen(MANAGER):
        with installation.api("alice") as alice:
            alice.delete(work.task()).raise_for_status()
        eventually(lambda: names(api, "Task", work.namespace) == {}, 20, "the Task itself must go")
        assert names(api, "AgentSession", work.namespace), "nobody collects while the manager is frozen"
        eventually(lambda: "run.revoked" in work.types(uid), 30, "its session was not stopped")
        assert settle(lambda: [str(pid) for pid in leftovers(installation).processes], 30) == []
    eventually(lambda: names(api, "AgentSession", work.namespace) == {}, DELETED_SECONDS, "its session was not deleted")
    eventually(lambda: work.types(uid).count("resource.gone") == 1, 30, "the deletion is not in the log")
    assert leftovers(installation).live == []


def test_a_child_of_an_earlier_node_of_the_same_name_is_not_adopted(installation: Installation, api: Api) -> None:
    namespace = "namesake"
    workload.open_namespace(installation, namespace)
    workload.create(installation, "alice", [graph(namespace), *agent(namespace, "worker", ["write"], SLEEP="60")])
    workload.create(installation, "alice", [node(namespace)])
    eventually(lambda: "n-only" in names(api, "Task", namespace), 30, "the Node has made no Task")
    child = names(api, "Task", namespace)["n-only"]
    with installation.frozen(MANAGER), installation.api("alice") as alice:
        alice.delete(node(namespace)).raise_for_status()
        eventually(lambda: names(api, "Node", namespace) == {}, 20, "the Node itself must go")
        alice.create(node(namespace)).raise_for_status()
        successor = names(api, "Node", namespace)["n"]

        def told() -> bool:
            found = api.get(node(namespace)).json()
            return condition(found, "Succeeded").get("observedGeneration") == 1

        settle(lambda: [] if told() else ["the Node says nothing"], 10)
        assert names(api, "Task", namespace) == {"n-only": child}, "the earlier Task still stands in the way"
        assert explained(workload.objects(api, namespace)) == []

    def owner() -> str | None:
        items = api.list("Task", namespace).raise_for_status().json()["items"]
        return next((item["metadata"]["ownerReferences"][0]["uid"] for item in items), None)

    eventually(lambda: owner() == successor, DELETED_SECONDS, "the successor has no Task of its own")
    assert names(api, "Task", namespace)["n-only"] != child
    api.request("DELETE", f"/api/v1/namespaces/{namespace}").raise_for_status()
    eventually(lambda: leftovers(installation).live == [], 30, "a session outlives its namespace")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        pytest.param("operator", "kube.write.before:5", id="the operator's"),
        pytest.param("gateway", "gateway.append.before:1", id="the gateway's"),
    ],
)
def test_a_blocked_event_loop_fails_its_probe(installation: Installation, api: Api, name: str, place: str) -> None:
    work = Work(installation, api, f"blocked-{name}", 0)
    work.settled()
    service = installation.services[name]
    assert service.alive is not None
    with installation.held(name):
        # The fifth write: an operator that has just begun may have some to make of its own.
        installation.arm(name, f"{place}:block:{BLOCKED_SECONDS}")
        assert asyncio.run(service.alive())
        work.apply()
        eventually(lambda: not asyncio.run(service.alive()), 20, "the probe still answers")  # type: ignore[arg-type,misc]
        eventually(lambda: asyncio.run(service.alive()), BLOCKED_SECONDS + 10, "it does not come back")  # type: ignore[arg-type,misc]
        assert service.process.running() is not None
    work.succeed()


def test_memory_stays_flat_while_a_thousand_objects_come_change_and_go(installation: Installation, api: Api) -> None:
    found = soak(installation, api, objects=OBJECTS, rounds=ROUNDS)
    assert found.problems() == [], found
    assert explained(workload.objects(api, found.namespace)) == []


def test_nothing_of_it_is_left_in_the_log_twice(installation: Installation) -> None:
    ids = [row.id for row in read_log(installation)]
    assert len(ids) == len(set(ids))
