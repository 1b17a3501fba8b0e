"""Warrants of sessions, from the objects as they stand; made once per generation of what they rest on."""

from collections.abc import Mapping
from typing import Any, Final

from triplane.api.authority import Authority
from triplane.controllers.observe import requester_of
from triplane.domain.warrant import Ceiling, Holder, Warrant, warrant

KEPT: Final = 10_000

Object = Mapping[str, Any]


class Warrants:
    """What sessions may use under one ceiling."""

    def __init__(self, ceiling: Ceiling) -> None:
        self.ceiling = ceiling
        self._kept: dict[tuple[object, ...], Warrant] = {}

    def of(self, graph: Object, node: Object | None, task: Object, agent: Object | None) -> Warrant:
        """Of a session of this Task by this Agent."""
        work = [obj for obj in (graph, node, task) if obj is not None]
        key = tuple(_version(obj) for obj in (*work, agent) if obj is not None)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            holders = [holder_of(obj) for obj in work]
            kept = warrant(self.ceiling, holders, holder_of(agent) if agent is not None else None)
            self._kept[key] = kept
        return kept


def holder_of(obj: Object) -> Holder:
    """The object as a link of a chain. A step's Task is its Node's requester's: nobody else made it."""
    spec, metadata = obj["spec"], obj["metadata"]
    declared = spec.get("authority")
    return Holder(
        kind=obj["kind"],
        name=metadata["name"],
        authority=Authority.model_validate(declared) if declared is not None else None,
        uid=metadata.get("uid", ""),
        requester=spec.get("onBehalfOf") or requester_of(obj),
    )


def _version(obj: Object) -> tuple[str, str, int]:
    return obj["kind"], obj["metadata"]["uid"], obj["metadata"].get("generation", 1)
