"""The contracts. Each Protocol has one shared test suite in ``tests/contract`` that every backend passes.

All operations are coroutines, safe to call concurrently, and raise the errors of ``triplane.errors``;
``Unavailable`` means nothing is known to have happened and repeating the call is safe.
"""

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from triplane.audit.model import EventBody, EventFilter, JsonObject, Receipt, Recorded, Verification
from triplane.domain.session import Claim, Offer, Permit, RecordReceipt, RunResult, SessionView


class EventLog(Protocol):
    """Append-only, hash-chained, totally ordered per origin."""

    @property
    def origin(self) -> str:
        """``<host>/<install id>``; known once the log is opened."""
        ...

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        """Durably append, in order; one receipt per body. Already recorded with the same body: its first
        receipt. Same id, other body: ``IdReused`` and nothing of the call is appended.

        Raises ``InvalidEntry`` (format), ``Fenced`` (a newer epoch of this writer), ``Unavailable``.
        """
        ...

    async def get(self, event_id: str) -> Recorded | None:
        """The entry recorded under this id."""
        ...

    async def get_many(self, event_ids: Sequence[str]) -> Mapping[str, Recorded]:
        """Those of the ids that are recorded; one round trip."""
        ...

    async def query(
        self,
        where: EventFilter = EventFilter(),
        *,
        after: int = -1,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Recorded]:
        """Entries with ``seq > after`` (or, newest first, the last ones), at most ``limit`` (≤ 10,000)."""
        ...

    async def head(self) -> tuple[int, str]:
        """``(size, leaf hash of the last entry)``; ``(0, 64 zeros)`` when empty."""
        ...

    def stream(self, where: EventFilter = EventFilter(), *, after: int = -1) -> AsyncIterator[Recorded]:
        """Every matching entry with ``seq > after`` in order, for ever: waits for new ones."""
        ...

    async def verify_chain(self, *, first: int = 0, last: int | None = None) -> Verification:
        """Re-hash the stored octets and compare leaf hash, prev, seq, ids and projections."""
        ...

    async def begin_epoch(self) -> int:
        """Fence every earlier holder of this writer's name; returns the new epoch."""
        ...

    async def check_epoch(self) -> None:
        """Raise ``Fenced`` unless this writer's epoch is still the newest."""
        ...

    async def close(self) -> None: ...


class ContentStore(Protocol):
    """Immutable blobs by SHA-256."""

    async def store(
        self, content: bytes | AsyncIterable[bytes], *, expect: str | None = None, limit: int | None = None
    ) -> str:
        """Store durably; returns ``sha256:…``. Nothing is visible before it is whole and synced.

        Raises ``Corrupt`` when ``expect`` differs from the content's digest (both are named), ``TooLarge``
        over ``limit`` octets, ``Unavailable`` when the disk is full or failing (nothing partial is left).
        """
        ...

    def resolve(self, digest: str) -> AsyncIterator[bytes]:
        """The content in chunks, verified while it streams; ``Corrupt`` at the end if it is not what was
        stored (then it is quarantined), ``BlobMissing`` if there is none."""
        ...

    async def exists(self, digest: str) -> bool: ...

    async def size(self, digest: str) -> int:
        """Octets; ``BlobMissing`` if there is none."""
        ...

    async def delete(self, digest: str) -> bool:
        """True if there was one."""
        ...

    def list_digests(self) -> AsyncIterator[str]:
        """All digests, ascending."""
        ...


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """One generation of one resource, kept after the resource is gone."""

    uid: str
    kind: str
    namespace: str
    name: str
    generation: int
    labels: Mapping[str, str]
    spec: JsonObject
    requester: str | None
    """Principal id, never a username."""
    seq: int
    """Log sequence of the event that brought it."""
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """A directed relation between two resources (or a resource and a digest)."""

    source: str
    kind: str
    """owns, dependsOn, consumes, produces, derivedFrom, reviews or uses."""
    target: str
    seq: int
    data: JsonObject = field(default_factory=dict)


class GraphStore(Protocol):
    """Every resource generation seen and the edges between them."""

    async def create(self, record: ResourceRecord) -> bool:
        """Insert this generation; False if it is there already (the stored one stays)."""
        ...

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """That generation, or the newest."""
        ...

    async def find(self, kind: str, namespace: str, name: str) -> Sequence[ResourceRecord]:
        """The newest generation of every incarnation of that name, newest ``seq`` first."""
        ...

    async def update(self, record: ResourceRecord) -> bool:
        """Replace labels, spec, requester and ``gone`` of this generation; False, and no change, when the
        stored row carries a higher ``seq`` or does not exist: older never overwrites newer."""
        ...

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[ResourceRecord]:
        """The newest generation of every resource, by (kind, namespace, name, uid)."""
        ...

    async def query_by_labels(
        self, labels: Mapping[str, str], *, kind: str | None = None, namespace: str | None = None
    ) -> Sequence[ResourceRecord]:
        """Newest generations whose labels contain all of these."""
        ...

    async def link(self, edges: Sequence[Edge]) -> None:
        """Insert edges; an edge that is there already (source, kind, target) stays as it is."""
        ...

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """Edges from (or to) this uid or digest, by (seq, kind, other end)."""
        ...

    async def close(self) -> None: ...


class SessionStore(Protocol):
    """Offers, permits, claims, leases and run results: the durable truth of execution."""

    async def offer(self, offer: Offer) -> bool:
        """Make the session claimable once permitted; False if it was offered before."""
        ...

    async def permit(self, permit: Permit) -> bool:
        """Write the launch permit of one run; it expires ``permit.seconds`` after the store's clock. A new
        permit of the same run (higher counter) replaces an unclaimed one. False if that run was claimed or
        ended, or the counter is not higher. Raises ``PermitRefused`` when the session is revoked, or when
        the run is not the next (its predecessor must be finished or lost)."""
        ...

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """1 + the highest counter used for that run."""
        ...

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """Atomically take one run whose permit is valid now, oldest first; None if there is none. A session
        whose permit has expired is marked as wanted (see ``wanted``). Never hands out revoked sessions,
        expired permits, permits older than the revocation revision, or a run twice."""
        ...

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """As ``claim`` for one named run; raises ``PermitRefused`` naming why not."""
        ...

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """Record that the harness process runs, with what the host measured; False if it was recorded."""
        ...

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """Raise the renewal counter; returns the reason if the run has been revoked or lost, else None."""
        ...

    async def record(self, session_uid: str, run: int, sequence: int, digest: str) -> RecordReceipt:
        """Note journal segment ``sequence`` (from 1, no gaps). Same digest again: the first receipt. Other
        digest: ``Conflict``. Not the next: ``SequenceGap`` with the expected number."""
        ...

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """Record the result once; False if the same was recorded, ``Conflict`` if another was, or the run
        was lost or revoked before."""
        ...

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        """Declare a claimed run lost, if its renewal counter still is ``counter``."""
        ...

    async def lose_instances(self, runner: str, keep_instance: str) -> list[tuple[str, int]]:
        """A runner has restarted: lose every live run of its other instances; returns (session, run)s."""
        ...

    async def revoke(self, session_uid: str, reason: str) -> bool:
        """Bar every later claim of the session and end its live run; False if it was revoked or unknown."""
        ...

    async def revocation_revision(self) -> int:
        """Counts every ``revoke``; permits carry the revision they were decided at."""
        ...

    async def now(self) -> datetime:
        """The store's clock: what permits live by."""
        ...

    async def get(self, session_uid: str) -> SessionView | None: ...

    async def get_many(self, session_uids: Sequence[str]) -> Mapping[str, SessionView]: ...

    async def live(self) -> list[SessionView]:
        """Sessions with a claimed or started run."""
        ...

    async def wanted(self) -> list[str]:
        """Sessions a runner has asked for whose permit had expired; cleared by the next permit."""
        ...

    async def open_sessions(self) -> list[SessionView]:
        """Sessions neither revoked nor closed."""
        ...

    async def close_session(self, session_uid: str) -> None:
        """No further run will come: leave the queues, keep the record."""
        ...

    async def own_blob(self, namespace: str, digest: str) -> None:
        """Note that somebody of this namespace has put the blob, and so had its content. Again: no change.
        A blob may belong to many namespaces, or to none. Raises ``InvalidInput`` for an empty namespace."""
        ...

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """Whether the blob was put in this namespace; the content store says whether it is still there."""
        ...

    async def disown_blob(self, digest: str) -> None:
        """The blob is erased: it belongs to no namespace until it is put again."""
        ...

    async def cursor(self, name: str) -> int:
        """Durable position of a log consumer; -1 at first."""
        ...

    async def set_cursor(self, name: str, seq: int) -> None:
        """Move it forward; a lower value is ignored."""
        ...

    def changes(self) -> AbstractAsyncContextManager["Wakeups"]:
        """Subscribe to wake-ups (offer, permit, claim, start, finish, revoke, wanted). Only a hint."""
        ...

    async def close(self) -> None: ...


class Wakeups(Protocol):
    """A lossy bell: rings some time after something changed."""

    async def wait(self, timeout_seconds: float) -> bool:
        """True when it rang, False at the time-out; rings between two waits are kept as one."""
        ...


class AccountStore(Protocol):
    """Who is behind a principal id, and which service tokens are valid."""

    async def principal(self, username: str, uid: str) -> "PrincipalRow":
        """The row of this user, made at first sight (keyed by an HMAC of the username)."""
        ...

    async def principal_by_id(self, principal_id: str) -> "PrincipalRow | None": ...

    async def put_token(self, name: str, role: str, sha256: str) -> None:
        """Enrol a service token by its hash; one per name, the new one replaces the old."""
        ...

    async def token_role(self, sha256: str) -> tuple[str, str] | None:
        """``(name, role)`` of the token with this hash."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PrincipalRow:
    """A principal: the random id that stands for a user in the log."""

    id: str
    username: str
    uid: str
    salt: str
    created: bool
    """True when this call made it."""


@dataclass(frozen=True, slots=True)
class KubeEvent:
    """A core/v1 Event to be made."""

    regarding: Mapping[str, Any]
    type: str
    reason: str
    message: str
    key: str
    """Makes the Event's name deterministic: the same thing is told once."""


class Cluster(Protocol):
    """The API server as the reconcilers see it. Objects are plain JSON mappings."""

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An uncached read."""
        ...

    async def list(self, kind: str, namespace: str | None = None) -> tuple[Sequence[dict[str, Any]], str]:
        """An uncached, chunked LIST: items and the list's resourceVersion."""
        ...

    async def create(self, obj: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """``(object, made)``; made is False on 409, and the object is the one that stands there (the caller
        checks its owner UID before adopting it)."""
        ...

    async def write_status(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply of ``/status`` as the operator, with the object's UID and resourceVersion as
        preconditions. Raises ``Conflict`` when it has moved on, ``NotFound`` when it is gone."""
        ...

    async def emit(self, event: KubeEvent) -> None:
        """Make the Event; raises for nothing but ``Fenced``: a lost Event is no loss (they are not audit)."""
        ...

    async def close(self) -> None: ...


class ObjectIndex(Protocol):
    """The operator's in-memory mirror of the nine kinds: what reconcilers gather from. Synchronous, no I/O.

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
    Task           ``dependency`` ``<ns>/<name>`` of each Task whose outputs it takes
    Node           ``agent``, ``capability``: as Task, of any step
    Node           ``step``       ``<ns>/<name>`` of the Task of each step
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


class Clock(Protocol):
    """Time as the adapters see it; decisions get ``now`` passed in."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time."""
        ...

    def monotonic(self) -> float:
        """Seconds from some start; never goes back."""
        ...
