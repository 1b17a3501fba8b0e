"""The work during which a process is killed: two users' agents, a Node with its Task, and a Task that is rejected once.

Small on purpose: six runs in a few seconds, through every step that a Task has.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e.api import Api, resource
from tests.e2e.stack import agent, condition, graph, task
from tests.faults.installation import Installation
from triplane.api.kinds import KINDS
from triplane.localcluster.install import grant

SLEEP_SECONDS = "0.3"
TASKS = ("n-only", "mended")
"""The Node's, accepted in its first round; and one that a strict reviewer sends back once."""
ROUNDS: Mapping[str, int] = {"n-only": 1, "mended": 2}


def open_namespace(installation: Installation, namespace: str) -> None:
    """Make a namespace in which alice and bob may work."""

    async def opened() -> None:
        async with installation.cluster.api_server() as server:
            await grant(server, namespace)

    asyncio.run(opened())


def apply_people(installation: Installation, namespace: str) -> None:
    """The Graph and the agents: a worker of alice's; a judge and a strict judge of bob's."""
    create(installation, "alice", [graph(namespace), *agent(namespace, "worker", ["write"], SLEEP=SLEEP_SECONDS)])
    judges = agent(namespace, "judge", ["review"])
    strict = agent(namespace, "picky", ["picky-review"], STRICT="1", SLEEP=SLEEP_SECONDS)
    create(installation, "bob", [*judges, *strict])


def apply_work(installation: Installation, namespace: str) -> None:
    """The Node and the Task."""
    step = {key: value for key, value in task(namespace, "x")["spec"].items() if key != "graphRef"}
    node = {"graphRef": {"name": "g"}, "steps": [{"name": "only", **step}]}
    strict = task(namespace, "mended", review={"capability": "picky-review"})
    create(installation, "alice", [resource("Node", namespace, "n", node), strict])


def objects(api: Api, namespace: str) -> list[dict[str, Any]]:
    """Everything of ours in the namespace."""
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        items = api.list(kind, namespace).raise_for_status().json()["items"]
        found += [{**item, "kind": kind} for item in items]
    return found


def wait_succeeded(api: Api, namespace: str, seconds: float) -> float:
    """Seconds until Tasks and Node had succeeded; fails with what they say after ``seconds``."""
    began = time.monotonic()
    while True:
        waiting = unfinished(api, namespace)
        took = time.monotonic() - began
        if not waiting:
            return took
        assert took < seconds, f"not converged within {seconds:.0f} s: " + "; ".join(waiting)
        time.sleep(0.2)


def unfinished(api: Api, namespace: str) -> Sequence[str]:
    """What has not succeeded yet, each with its own words; a Task that failed is told by ``AssertionError``."""
    waiting = []
    tasks = {item["metadata"]["name"]: item for item in _items(api, "Task", namespace)}
    for name in TASKS:
        found = condition(tasks.get(name, {}), "Succeeded")
        assert found["status"] != "False", f"Task {name} failed: {found['reason']}: {found['message']}"
        if found["status"] != "True":
            waiting.append(f"Task {name}: {found['reason']}: {found['message']}")
    for item in _items(api, "Node", namespace):
        found = condition(item, "Succeeded")
        if found["status"] != "True":
            waiting.append(f"Node {item['metadata']['name']}: {found['reason']}: {found['message']}")
    return waiting


def _items(api: Api, kind: str, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.list(kind, namespace).raise_for_status().json()["items"]
    return items


def create(installation: Installation, person: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """Create these as ``alice`` or ``bob``."""
    with installation.api(person) as api:
        for document in documents:
            answer = api.create(document)
            assert answer.status_code == 201, answer.text
