"""What the shell asks of the controllers (``triplane.controllers.registry.Reconcilers``)."""

from collections.abc import Mapping
from typing import Any, Protocol

from triplane.controllers.key import Key


class Reconciler(Protocol):
    """What the controllers offer (``triplane.controllers.registry.Reconcilers``)."""

    async def reconcile(self, key: Key) -> float | None:
        """Bring the world nearer to the object's spec; seconds until it wants to be called again, or None."""
        ...

    async def gone(self, kind: str, obj: Mapping[str, Any]) -> None:
        """That incarnation was deleted: end what it started, keep the evidence. Called at least once."""
        ...

    async def catch_up(self) -> None:
        """The mirror is complete: find what was deleted while no operator ran."""
        ...

    async def project(self) -> None:
        """Bring the resource graph up to the log; called after every sweep."""
        ...

    def has_seen(self, obj: Mapping[str, Any]) -> bool:
        """Whether this generation of the object is logged and kept already. Known after ``catch_up``; no I/O."""
        ...
