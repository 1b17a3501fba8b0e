"""Writing status: only through ``/status``, only when it is news, and late when it will not last."""

from collections.abc import Mapping, Sequence
from typing import Any

from triplane.api.text import REQUESTED_AT
from triplane.controllers.context import Context
from triplane.domain.conditions import Finding, merge
from triplane.errors import NotFound

TRANSIENT_SECONDS = 5.0
"""How long a passing state must last before it is worth an API write: longer than an ordinary queue is."""


class StatusWriter:
    """Compares, waits out passing states, writes with preconditions, and feeds the answer to the index."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._since: dict[str, float] = {}

    async def write(
        self,
        obj: Mapping[str, Any],
        fields: Mapping[str, Any],
        findings: Sequence[Finding],
        *,
        transient: bool = False,
    ) -> float | None:
        """Write the fields and conditions of the generation looked at, unless nothing changes. Returns the seconds
        after which to come back for a passing state.

        Raises ``Conflict`` when the object has moved on: the caller's key is tried again on what is there.
        """
        uid = obj["metadata"]["uid"]
        before = obj.get("status") or {}
        generation = obj["metadata"].get("generation", 1)
        conditions = merge(
            before.get("conditions") or (), findings, generation=generation, now=self._context.clock.now()
        )
        wanted = _cleaned({"observedGeneration": generation, **fields, "conditions": conditions, **_echo(obj)})
        if _cleaned(before) == wanted:
            self._since.pop(uid, None)
            return None
        if transient:
            since = self._since.setdefault(uid, self._context.clock.monotonic())
            left = TRANSIENT_SECONDS - (self._context.clock.monotonic() - since)
            if left > 0:
                return left
        self._since.pop(uid, None)
        try:
            self._context.index.put(await self._context.cluster.write_status(obj, wanted))
        except NotFound:
            return None
        return None

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._since.pop(uid, None)


def _echo(obj: Mapping[str, Any]) -> dict[str, Any]:
    asked = (obj["metadata"].get("annotations") or {}).get(REQUESTED_AT)
    if not asked or obj["kind"] == "Artifact":
        return {}
    return {"requestedAt": str(asked)[:64]}


def _cleaned(status: Mapping[str, Any]) -> dict[str, Any]:
    """Without absent and empty fields, which the API server may add or drop."""
    return {key: value for key, value in status.items() if value not in (None, [], {}, "")}
