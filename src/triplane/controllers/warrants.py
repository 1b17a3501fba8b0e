"""Warrants of sessions, from the objects as they stand; made once per generation of what they rest on.

What a thousand Tasks have under one Graph is worked out once and is one object in memory: most declare no authority
of their own.
"""

from collections.abc import Mapping
from typing import Any, Final

from triplane.api.authority import Authority, Grant
from triplane.controllers.observe import requester_of
from triplane.domain.authority import Resolved, resolve
from triplane.domain.warrant import Ceiling, Holder, Warrant, effective, warrant

KEPT: Final = 10_000

Object = Mapping[str, Any]


class Warrants:
    """What sessions may use under one ceiling."""

    def __init__(self, ceiling: Ceiling) -> None:
        self.ceiling = ceiling
        self._kept: dict[tuple[object, ...], Warrant] = {}
        # By the identity of what they were made from, which they hold: it is nobody else's as long as they are there.
        self._beneath: dict[tuple[int, str], tuple[Resolved, Resolved]] = {}
        self._both: dict[tuple[int, int], tuple[Resolved, Resolved | None, tuple[Grant, str]]] = {}

    def of(self, graph: Object, node: Object | None, task: Object, agent: Object | None) -> Warrant:
        """Of a session of this Task by this Agent."""
        work = [obj for obj in (graph, node, task) if obj is not None]
        key = tuple(_version(obj) for obj in (*work, agent) if obj is not None)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= KEPT:
                self._forget()
            holders = [holder_of(obj) for obj in work]
            side = holder_of(agent) if agent is not None else None
            kept = warrant(self.ceiling, holders, side, beneath=self._resolve, both=self._meet)
            self._kept[key] = kept
        return kept

    def _resolve(self, parent: Resolved, authority: Authority | None) -> Resolved:
        key = id(parent), "" if authority is None else authority.model_dump_json()
        if key not in self._beneath:
            self._beneath[key] = parent, resolve(parent, authority)
        return self._beneath[key][1]

    def _meet(self, work: Resolved, agent: Resolved | None) -> tuple[Grant, str]:
        key = id(work), id(agent)
        if key not in self._both:
            self._both[key] = work, agent, effective(work, agent)
        return self._both[key][2]

    def _forget(self) -> None:
        self._kept.clear()
        self._beneath.clear()
        self._both.clear()


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
