"""Kinds that are only judged: are they usable as they stand? Harness and Guideline always are; the others say how."""

from collections.abc import Mapping, Sequence
from typing import Any

from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding
from triplane.domain.naming import public_id

USABLE = Finding("Ready", "True", "Ready", "It can be used")

Judgement = tuple[Mapping[str, Any], Sequence[Finding]]
"""Status fields beside the conditions, and what the conditions say."""


class ReadyReconciler:
    """Sets ``Ready``; Tasks and Nodes that wait for one of these are woken by the watch, not from here."""

    def __init__(self, context: Context, observer: Observer, status: StatusWriter) -> None:
        self._context = context
        self._observer = observer
        self._status = status

    async def reconcile(self, key: Key) -> float | None:
        """Returns None: it waits for events."""
        obj = self._context.index.get(key.kind, key.namespace, key.name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return None
        await self._observer.observe(obj)
        status, findings = await self._judge(obj)
        return await self._status.write(obj, status, findings)

    async def _judge(self, obj: Mapping[str, Any]) -> Judgement:
        return {}, [USABLE]


class AgentReconciler(ReadyReconciler):
    """Sets ``publicId`` too, and tells the session store of ``maxConcurrentSessions``."""

    async def _judge(self, obj: Mapping[str, Any]) -> Judgement:
        spec, metadata = obj["spec"], obj["metadata"]
        # Permits say it too; here it takes effect for what already waits.
        await self._context.sessions.limit(metadata["uid"], spec.get("maxConcurrentSessions"))
        return {"publicId": public_id(metadata["name"], metadata["uid"])}, [self._ready(obj)]

    def _ready(self, obj: Mapping[str, Any]) -> Finding:
        spec, metadata = obj["spec"], obj["metadata"]
        harness = spec["harnessRef"]["name"]
        if spec.get("lifecycle") == "Suspended":
            return Finding(
                "Ready",
                "False",
                "Suspended",
                "The Agent is suspended; set spec.lifecycle to Active to give it work",
            )
        if self._context.index.get("Harness", metadata["namespace"], harness) is None:
            return Finding("Ready", "False", "HarnessNotFound", f"Harness {harness} does not exist; apply it")
        return USABLE
