"""Agent, Harness and Capability: are they usable as they stand?"""

from typing import Any

from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding
from triplane.domain.naming import public_id

USABLE = Finding("Ready", "True", "Ready", "It can be used")


class ReadyReconciler:
    """Sets ``Ready``; Tasks that wait for one of these are woken by the watch, not from here."""

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
        finding = self._agent(obj) if key.kind == "Agent" else USABLE
        status: dict[str, Any] = {}
        if key.kind == "Agent":
            # Permits say it too; here it takes effect for what already waits.
            await self._context.sessions.limit(obj["metadata"]["uid"], obj["spec"].get("maxConcurrentSessions"))
            status["publicId"] = public_id(key.name, obj["metadata"]["uid"])
        return await self._status.write(obj, status, [finding])

    def _agent(self, obj: dict[str, Any]) -> Finding:
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
