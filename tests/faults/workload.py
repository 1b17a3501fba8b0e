"""The work during which a process is killed.

``SMALL``: a Node with its Task, and a Task that is rejected once: six runs in a few seconds, through every step that a
Task has. ``FIFTY``: the example of fifty steps: a hundred runs, four levels deep, with merged inputs and a condition.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from tests.e2e.api import Api, resource
from tests.e2e.stack import agent, condition, graph, task
from tests.faults.installation import EXAMPLES, Installation
from triplane.api.kinds import KINDS
from triplane.errors import TriplaneError
from triplane.localcluster.install import grant

SLEEP_SECONDS = "0.3"
Documents = Sequence[Mapping[str, Any]]
_EXAMPLE = EXAMPLES / "05-fifty-steps"


@dataclass(frozen=True)
class Workload:
    """Documents for a namespace, by person, and what must come of them."""

    name: str
    people: Callable[[str], Mapping[str, Documents]]
    """What stands there beforehand: Graph, agents, Workflow."""
    work: Callable[[str], Mapping[str, Documents]]
    """What sets it going."""
    rounds: Mapping[str, int]
    """Every Task that is to be, and the round in which it is accepted."""
    scale: int
    """How many times as often as in ``SMALL`` a place is passed, about."""


def _small_people(namespace: str) -> Mapping[str, Documents]:
    judges = agent(namespace, "judge", ["review"])
    strict = agent(namespace, "picky", ["picky-review"], STRICT="1", SLEEP=SLEEP_SECONDS)
    return {
        "alice": [graph(namespace), *agent(namespace, "worker", ["write"], SLEEP=SLEEP_SECONDS)],
        "bob": [*judges, *strict],
    }


def _small_work(namespace: str) -> Mapping[str, Documents]:
    step = {key: value for key, value in task(namespace, "x")["spec"].items() if key != "graphRef"}
    node = {"graphRef": {"name": "g"}, "steps": [{"name": "only", **step}]}
    strict = task(namespace, "mended", review={"capability": "picky-review"})
    return {"alice": [resource("Node", namespace, "n", node), strict]}


def _example(namespace: str, *files: str) -> list[dict[str, Any]]:
    text = "\n---\n".join((_EXAMPLE / file).read_text().replace("${SUFFIX}", "") for file in files)
    found = [document for document in yaml.safe_load_all(text) if document]
    for document in found:
        document["metadata"]["namespace"] = namespace
    return found


def _fifty_people(namespace: str) -> Mapping[str, Documents]:
    standing = _example(namespace, "alice/agents.yaml", "alice/graph.yaml", "alice/workflow.yaml")
    return {
        "alice": [document for document in standing if document["kind"] != "Node"],
        "bob": _example(namespace, "bob/reviewer.yaml"),
    }


def _fifty_work(namespace: str) -> Mapping[str, Documents]:
    return {"alice": [item for item in _example(namespace, "alice/graph.yaml") if item["kind"] == "Node"]}


def _fifty_rounds() -> Mapping[str, int]:
    (workflow,) = _example("any", "alice/workflow.yaml")
    return {f"census-{step['name']}": 1 for step in workflow["spec"]["steps"]}


SMALL = Workload("small", _small_people, _small_work, {"n-only": 1, "mended": 2}, 1)
FIFTY = Workload("fifty steps", _fifty_people, _fifty_work, _fifty_rounds(), 12)


def open_namespace(installation: Installation, namespace: str) -> None:
    """Make a namespace in which alice and bob may work."""

    async def opened() -> None:
        async with installation.cluster.api_server() as server:
            await grant(server, namespace)

    asyncio.run(opened())


def prepare(installation: Installation, workload: Workload, namespace: str) -> None:
    """The namespace with everything that stands there beforehand."""
    open_namespace(installation, namespace)
    for person, documents in workload.people(namespace).items():
        create(installation, person, documents)


def apply_work(installation: Installation, workload: Workload, namespace: str) -> None:
    """Set it going."""
    for person, documents in workload.work(namespace).items():
        create(installation, person, documents)


def objects(api: Api, namespace: str) -> list[dict[str, Any]]:
    """Everything of ours in the namespace."""
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        items = api.list(kind, namespace).raise_for_status().json()["items"]
        found += [{**item, "kind": kind} for item in items]
    return found


def wait_succeeded(api: Api, workload: Workload, namespace: str, seconds: float) -> float:
    """Seconds until Tasks and Node had succeeded; fails with what they say after ``seconds``."""
    began = time.monotonic()
    while True:
        waiting = unfinished(api, workload, namespace)
        took = time.monotonic() - began
        if not waiting:
            return took
        assert took < seconds, f"not converged within {seconds:.0f} s: " + "; ".join(waiting[:5])
        time.sleep(0.2)


def unfinished(api: Api, workload: Workload, namespace: str) -> Sequence[str]:
    """What has not succeeded yet, each with its own words; a Task that failed is told by ``AssertionError``. An API
    server that does not answer has not said that anything is finished."""
    try:
        tasks = {item["metadata"]["name"]: item for item in _items(api, "Task", namespace)}
        nodes = _items(api, "Node", namespace)
    except (httpx.HTTPError, TriplaneError) as error:
        return [f"the API server does not answer: {error}"]
    waiting = []
    for name in workload.rounds:
        found = condition(tasks.get(name, {}), "Succeeded")
        assert found["status"] != "False", f"Task {name} failed: {found['reason']}: {found['message']}"
        if found["status"] != "True":
            waiting.append(f"Task {name}: {found['reason']}: {found['message']}")
    for item in nodes:
        found = condition(item, "Succeeded")
        if found["status"] != "True":
            waiting.append(f"Node {item['metadata']['name']}: {found['reason']}: {found['message']}")
    return waiting


def digests(api: Api, workload: Workload, namespace: str) -> dict[tuple[str, str], str]:
    """(Task, output) to the digest that was accepted."""
    rounds = {item["metadata"]["uid"]: item["metadata"]["name"] for item in _items(api, "Task", namespace)}
    found = {}
    for item in _items(api, "Artifact", namespace):
        spec = item["spec"]
        name = rounds.get(spec["taskRef"]["uid"], "")
        if workload.rounds.get(name) == spec["round"]:
            found[name, spec["name"]] = spec["digest"]
    return found


def _items(api: Api, kind: str, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = api.list(kind, namespace).raise_for_status().json()["items"]
    return items


def create(installation: Installation, person: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """Create these as ``alice`` or ``bob``."""
    with installation.api(person) as api:
        for document in documents:
            answer = api.create(document)
            assert answer.status_code == 201, answer.text
