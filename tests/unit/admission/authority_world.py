"""Requests to the authority layer of admission, over objects in memory."""

from collections.abc import Mapping
from typing import Any

from triplane.admission.asked import Asked
from triplane.admission.authority import AuthorityCheck
from triplane.api.policy import Operation
from triplane.api.text import REQUESTER
from triplane.domain.warrant import Ceiling

WORK = {"objective": "Do it", "agentRef": {"name": "a"}}
TASK = {**WORK, "graphRef": {"name": "g"}}


class Stored:
    """What the API server holds; counts what is read."""

    def __init__(self, *objects: Mapping[str, Any]) -> None:
        self.objects = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
        self.read: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.read.append(kind)
        return self.objects.get((kind, name))


def stored(kind: str, name: str, spec: Mapping[str, Any], requester: str = "alice") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": f"u-{name}", "annotations": {REQUESTER: requester}}
    return {"apiVersion": "triplane.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": dict(spec)}


def graph(may_use: Mapping[str, Any] | None = None, may_delegate: Mapping[str, Any] | None = None) -> dict[str, Any]:
    sets = {"mayUse": may_use, "mayDelegate": may_delegate}
    authority = {key: value for key, value in sets.items() if value is not None}
    return stored("Graph", "g", {"authority": authority})


async def refused(
    kind: str,
    spec: Mapping[str, Any],
    *objects: Mapping[str, Any],
    old: Mapping[str, Any] | None = None,
    check: AuthorityCheck | None = None,
    ceiling: Ceiling | None = None,
) -> list[str]:
    """What the layer says against it, as people read it."""
    asked = Asked(
        uid="r",
        operation=Operation.CREATE if old is None else Operation.UPDATE,
        kind=kind,
        namespace="team",
        name="x",
        object={"kind": kind, "metadata": {"name": "x", "namespace": "team"}, "spec": dict(spec)},
        old=None if old is None else {"kind": kind, "metadata": {"name": "x"}, "spec": dict(old)},
        user={"username": "mallory"},
        dry_run=False,
    )
    judge = check or AuthorityCheck(ceiling or Ceiling())
    found = await judge(asked, Stored(*objects))
    return [f"{each.field}: {each.text}" for each in found.violations]
