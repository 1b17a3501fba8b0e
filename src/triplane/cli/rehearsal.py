"""What applying manifests, and launching their Tasks, would ask Policies: worked out from files alone.

The Tasks of a Node's steps are made as the operator makes them. What only a cluster knows is left out: an Agent that is
chosen by capability, objects that are not among the files, what was spent.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from triplane.api.agent import Agent
from triplane.api.graph import Graph
from triplane.api.kinds import KINDS
from triplane.api.node import Node
from triplane.api.policy import Operation, PolicyKind, Stage
from triplane.api.task import Task
from triplane.api.text import API_VERSION
from triplane.api.workflow import Workflow
from triplane.controllers.node import task_of
from triplane.domain.authority import BUILT_IN, chain, meet
from triplane.domain.node_plan import NodePlan, make_plan
from triplane.domain.policy import PolicyRequest
from triplane.errors import InvalidInput

Object = dict[str, Any]
_ENDINGS: Final = frozenset({".yaml", ".yml", ".json"})
_SESSION: Final = {"role": "Producer", "round": 1, "run": 1}


class Manifests:
    """Objects of our kinds, by kind, namespace and name; defaults are filled in as the API server does."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self._objects = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]): o for o in objects}

    def of(self, kind: str) -> list[Object]:
        """Those of the kind, in the order of the files."""
        return [obj for (each, _, _), obj in self._objects.items() if each == kind]

    def get(self, kind: str, namespace: str, name: str | None) -> Object | None:
        """That one; None where there is none."""
        return self._objects.get((kind, namespace, name or ""))

    def others(self) -> list[Object]:
        """All that a Policy can be about."""
        return [obj for (kind, _, _), obj in self._objects.items() if kind in tuple(PolicyKind)]


def read(files: Sequence[Path], namespace: str) -> Manifests:
    """The objects of these files, and of the folders among them; those of other groups are passed over. Raises
    ``InvalidInput`` naming file, object and field."""
    found = []
    for file in files:
        inside = sorted(each for each in file.rglob("*") if each.suffix in _ENDINGS) if file.is_dir() else [file]
        if not inside:
            raise InvalidInput(f"{file} holds no .yaml or .json file")
        for each in inside:
            found += [_object(document, each, namespace) for document in _documents(each)]
    return Manifests([obj for obj in found if obj is not None])


def requests(manifests: Manifests, stages: Sequence[Stage], user: str) -> Iterator[PolicyRequest]:
    """Everything that would be asked, in the order of the files. Raises ``InvalidInput`` for a Node that cannot be
    planned."""
    if Stage.ADMISSION in stages:
        for obj in manifests.others():
            yield _request(manifests, obj, Stage.ADMISSION, Operation.CREATE.value, user)
    if Stage.LAUNCH in stages:
        for task in [*manifests.of("Task"), *_tasks_of_nodes(manifests)]:
            yield _request(manifests, task, Stage.LAUNCH, "LAUNCH", user)


def _documents(file: Path) -> Iterator[Mapping[str, Any]]:
    import sys

    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{file} cannot be read as YAML: {error}") from error
    for document in documents:
        listed = isinstance(document, dict) and str(document.get("kind", "")).endswith("List") and "items" in document
        yield from (document["items"] or ()) if listed else [document]


def _object(document: Any, file: Path, namespace: str) -> Object | None:
    from pydantic import ValidationError

    if document is None or (isinstance(document, dict) and document.get("apiVersion") != API_VERSION):
        return None
    metadata = document.get("metadata") if isinstance(document, dict) else None
    name = isinstance(metadata, dict) and (metadata.get("name") or metadata.get("generateName"))
    if not isinstance(metadata, dict) or not name or document.get("kind") not in KINDS:
        raise InvalidInput(f"{file}: each manifest needs metadata.name, and one of Triplane's kinds")
    kind = document["kind"]
    filled = {"namespace": namespace, "uid": f"{kind}-{namespace}-{name}", "generation": 1, **metadata, "name": name}
    try:
        spec = KINDS[kind].model_validate({**document, "metadata": filled, "status": None}).wire()["spec"]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{file}: {kind} {name}: {field}: {first['msg']}") from error
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": filled, "spec": spec}


def _tasks_of_nodes(manifests: Manifests) -> Iterator[Object]:
    made = {(task["metadata"]["namespace"], task["metadata"]["name"]) for task in manifests.of("Task")}
    for obj in manifests.of("Node"):
        node = Node.model_validate(obj)
        namespace, ref = obj["metadata"]["namespace"], node.spec.workflow_ref
        workflow = manifests.get("Workflow", namespace, ref.name) if ref is not None else None
        if ref is not None and workflow is None:
            continue  # its steps are in a cluster, not in these files
        plan = make_plan(node, Workflow.model_validate(workflow) if workflow is not None else None)
        if not isinstance(plan, NodePlan):
            raise InvalidInput(f"Node {obj['metadata']['name']} cannot be run: {plan[0].message}")
        for step in plan.steps:
            if (namespace, step.task) not in made:
                yield _object(task_of(obj, step), Path("-"), namespace) or {}


def _request(manifests: Manifests, obj: Object, stage: Stage, operation: str, user: str) -> PolicyRequest:
    namespace, spec = obj["metadata"]["namespace"], obj["spec"]
    owners = obj["metadata"].get("ownerReferences") or ()
    owner = next((each["name"] for each in owners if each.get("kind") == "Node"), None)
    of_task = obj["kind"] == "Task"
    graph = manifests.get("Graph", namespace, (spec.get("graphRef") or {}).get("name"))
    node = manifests.get("Node", namespace, (spec.get("nodeRef") or {}).get("name") or owner) if of_task else None
    agent = manifests.get("Agent", namespace, (spec.get("agentRef") or {}).get("name")) if of_task else None
    launching = stage is Stage.LAUNCH
    return PolicyRequest(
        stage=stage,
        operation=operation,
        kind=obj["kind"],
        namespace=namespace,
        name=obj["metadata"]["name"],
        object=obj,
        user={"username": user} if launching else {"username": user, "groups": ["system:authenticated"]},
        graph=graph,
        node=node,
        parent=node if node is not None else graph,
        agent=agent,
        authority=_authority(obj, graph, node, agent) if launching else None,
        session=_SESSION if launching else None,
    )


def _authority(task: Object, graph: Object | None, node: Object | None, agent: Object | None) -> Mapping[str, Any]:
    """Under the built-in ceiling: that of an installation is in its settings, not in these files."""
    above = [
        Graph.model_validate(graph).spec.authority if graph is not None else None,
        Node.model_validate(node).spec.authority if node is not None else None,
        Task.model_validate(task).spec.authority,
    ]
    granted = chain(BUILT_IN, above)[-1].may_use
    if agent is not None:
        granted = meet(granted, chain(BUILT_IN, [Agent.model_validate(agent).spec.authority])[-1].may_use)
    return granted.wire()
