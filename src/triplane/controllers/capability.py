"""Capability reconciler: whether its lens can be used, and which version Tasks get."""

from typing import Any

from triplane.api.capability import Capability
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer
from triplane.controllers.ready import USABLE
from triplane.controllers.status import StatusWriter
from triplane.domain.conditions import Finding
from triplane.domain.lens import ChosenLens, choose, lens_problems, newest_version


class CapabilityReconciler:
    """Sets ``Ready`` and ``version``; Tasks that wait for it are woken by the watch."""

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
        capability = Capability.model_validate(obj)
        newest = newest_version(capability.spec)
        status: dict[str, Any] = {} if newest is None else {"version": newest.version}
        return await self._status.write(obj, status, [_ready(capability)])


def _ready(capability: Capability) -> Finding:
    """Of what Tasks get that name no version. Admission refuses most of what can be wrong; this came another way."""
    chosen = choose(capability, None)
    if not isinstance(chosen, ChosenLens):
        return Finding("Ready", "False", *chosen)
    problems = lens_problems(chosen.lens)
    if not problems:
        return USABLE
    return Finding("Ready", "False", problems[0][0], "; ".join(message for _, message in problems)[:1024])
