"""The API server, and the mirror of it that the operator keeps."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class KubeEvent:
    """A core/v1 Event to be made."""

    regarding: Mapping[str, Any]
    type: str
    reason: str
    message: str
    key: str
    """Makes the Event's name deterministic: the same thing is told once."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a LIST."""

    items: Sequence[dict[str, Any]]
    version: str
    """The LIST's resourceVersion."""
    first: bool
    """A LIST begins, the first or one in place of what was shown so far."""


class Cluster(Protocol):
    """The API server as the reconcilers see it. Objects are plain JSON mappings."""

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An uncached read."""
        ...

    async def list(self, kind: str, namespace: str | None = None) -> tuple[Sequence[dict[str, Any]], str]:
        """An uncached, chunked LIST: items and the list's resourceVersion."""
        ...

    def pages(self, kind: str, namespace: str | None = None) -> AsyncIterator[Page]:
        """As ``list``, with no more than a page of it in memory. A LIST that cannot be ended begins anew."""
        ...

    async def create(self, obj: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """``(object, made)``; made is False on 409, and the object is the one that stands there (the caller
        checks its owner UID before adopting it)."""
        ...

    async def write_status(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of ``/status`` as the operator, with the object's UID and resourceVersion as
        preconditions. Raises ``Conflict`` when it has moved on, ``NotFound`` when it is gone."""
        ...

    async def delete(self, obj: Mapping[str, Any]) -> bool:
        """Delete this incarnation (its UID is the precondition), dependents in the background; False when it is
        gone, or is another by now."""
        ...

    async def emit(self, event: KubeEvent) -> None:
        """Make the Event; raises for nothing but ``Fenced``: a lost Event is no loss (they are not audit)."""
        ...

    async def close(self) -> None: ...


class ConfigMaps(Protocol):
    """ConfigMaps by name, where a checkpoint is kept beside the objects."""

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Its data (text values); None when there is no such ConfigMap. Raises ``Unavailable``, ``Forbidden``."""
        ...

    async def write_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Server-side apply of these keys; the ConfigMap is made where the caller may. Raises ``Fenced``, ``Forbidden``
        and ``Unavailable``."""
        ...


class ObjectIndex(Protocol):
    """The operator's in-memory mirror of our kinds: what reconcilers gather from. Synchronous, no I/O.

    Objects are plain JSON mappings and shared: never change one in place. The mirror may lag behind the API
    server, but never behind our own writes: pass what ``create`` and ``write_status`` return to ``put``.

    ``children`` answers these fields (``<ns>/<name>`` where a value is a reference, else a UID):

    ============== ============== ======================================================================
    kind           field          value
    ============== ============== ======================================================================
    any            ``owner``      UID in ``metadata.ownerReferences``
    Node           ``graph``      ``<ns>/<spec.graphRef.name>``
    Task           ``graph``      ``<ns>/<spec.graphRef.name>``
    Task           ``node``       ``<ns>/<name>`` of the owning Node (``spec.nodeRef``, else the owner)
    Task           ``agent``      ``<ns>/<name>`` of ``spec.agentRef`` or ``spec.review.agentRef``
    Task           ``capability`` ``<ns>/<name>`` of each required one and the review's (default ``review``)
    Task           ``tool``       ``<ns>/<name>`` of each in ``spec.tools``
    Task           ``dependency`` ``<ns>/<name>`` of each Task it waits for (``dependsOn`` and edges)
    Node           ``workflow``   ``<ns>/<spec.workflowRef.name>``
    Node           ``queue``      ``<ns>/<spec.graphRef.name>/<spec.queue.name>``
    Node           ``agent``, ``capability``: as Task, of any of its own steps
    Node           ``step``       ``<ns>/<name>`` of the Task of each step
    Node, Workflow ``dependency`` ``<ns>/<name>`` of each Task outside that its own steps take something from
    Agent          ``capability`` ``<ns>/<capability>``
    Agent          ``harness``    ``<ns>/<spec.harnessRef.name>``
    AgentSession   ``task``       UID of ``spec.taskRef``
    AgentSession   ``agent``      UID of ``spec.agentRef``
    Artifact       ``task``       UID of ``spec.taskRef``
    Artifact       ``session``    UID of ``spec.sessionRef``
    Review         ``task``       UID of ``spec.taskRef``
    ============== ============== ======================================================================
    """

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None: ...

    def by_uid(self, uid: str) -> dict[str, Any] | None: ...

    def list(self, kind: str, namespace: str | None = None) -> Sequence[dict[str, Any]]:
        """All of that kind (and namespace), by (namespace, name)."""
        ...

    def children(self, kind: str, field: str, value: str) -> Sequence[dict[str, Any]]:
        """Objects whose secondary key ``field`` holds ``value``, by (namespace, name). An unknown pair of
        kind and field is a ``KeyError``: a misspelt one must not look like an empty answer."""
        ...

    def put(self, obj: Mapping[str, Any]) -> bool:
        """Record an object as just read or written; False when the mirror knows a newer one (or its end)."""
        ...
