"""The contracts. Each Protocol has one shared test suite in ``tests/contract`` that every backend passes.

All operations are coroutines, safe to call concurrently, and raise the errors of ``triplane.errors``;
``Unavailable`` means nothing is known to have happened and repeating the call is safe.
"""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from triplane.api.policy import PolicySpec
from triplane.audit.dsse import Signer
from triplane.audit.model import EventBody, EventFilter, JsonObject, Receipt, Recorded, Verification
from triplane.domain.collection import StoredBlob as StoredBlob
from triplane.domain.policy import PolicyDecision, PolicyProblem, PolicyRequest
from triplane.domain.resourcegraph import Direction as Direction
from triplane.domain.resourcegraph import Edge as Edge
from triplane.domain.resourcegraph import GraphChange as GraphChange
from triplane.domain.resourcegraph import Hop as Hop
from triplane.domain.resourcegraph import ResourceRecord as ResourceRecord
from triplane.domain.selector import LabelSelector
from triplane.domain.session import (
    Claim,
    LiveRun,
    Offer,
    OpenSession,
    Outstanding,
    Permit,
    Question,
    RecordReceipt,
    RunResult,
    SessionView,
    Spent,
    Usage,
)


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


class CollectorLease(Protocol):
    """The right to be the one collector of a store."""

    @property
    def began(self) -> datetime:
        """When it was granted, by the clock that ``StoredBlob.stored_at`` is told by."""
        ...

    async def renew(self) -> None:
        """Keep it. Raises ``Fenced`` when somebody else has it: stop; what was collected so far was right."""
        ...


class KeptContent(ContentStore, Protocol):
    """A content store as its keeper sees it, who collects what nobody needs. Clients of the gateway see less."""

    def stored(self) -> AsyncIterator[StoredBlob]:
        """Every blob, by digest ascending; those stored meanwhile may be left out. Storing content again renews
        ``stored_at``, to within the store's own tolerance (ten minutes, if it does not say otherwise)."""
        ...

    async def collect(self, digest: str, *, before: datetime) -> bool:
        """Remove the blob, unless it was stored (also again) at or after ``before``, is being stored or read by
        anybody the store can see, or is held. A store that is acknowledged is never undone by this, whatever the
        two do at once. True if it was removed."""
        ...

    async def hold(self, digest: str, holder: str, seconds: float) -> None:
        """Bar ``collect`` for so long, in the name of ``holder`` (``[a-z0-9-]``, at most 63); again: for so long from
        now. Holds do not bar ``delete``, which is erasure on purpose. Raises ``BlobMissing``, ``InvalidInput``."""
        ...

    async def release(self, digest: str, holder: str) -> bool:
        """End the hold; False if there was none."""
        ...

    async def held(self) -> frozenset[str]:
        """Digests somebody holds now."""
        ...

    def lease(self, seconds: float) -> AbstractAsyncContextManager[CollectorLease]:
        """Be the only collector inside the context. A holder that dies loses it, at the latest ``seconds`` after it
        last renewed. Raises ``Conflict`` when there is another."""
        ...

    async def tidy(self, *, before: datetime) -> int:
        """Remove what dead writers left before then, and what is kept twice; returns how many. For the lease's
        holder."""
        ...


class GraphStore(Protocol):
    """Every resource generation seen and the edges between them: a projection of the log
    (``triplane.domain.projection``), which can be thrown away and made anew."""

    async def apply(self, change: GraphChange) -> None:
        """Add all of it, or nothing. A generation that is there stays as it is; of an edge the one with the lowest
        ``seq`` stays; what is gone stays gone. So changes may be applied in any order, and again."""
        ...

    async def replace(self, change: GraphChange, *, upto: int, keep: Collection[str] = ()) -> None:
        """At once make everything of log sequences up to ``upto`` exactly what ``change`` says; what later entries
        brought stays, and so do the records and outgoing edges of the UIDs in ``keep``."""
        ...

    async def create(self, record: ResourceRecord) -> bool:
        """Insert this generation; False if it is there already (the stored one stays)."""
        ...

    async def get(self, uid: str, generation: int | None = None) -> ResourceRecord | None:
        """That generation, or the newest."""
        ...

    async def get_many(self, uids: Collection[str]) -> Mapping[str, ResourceRecord]:
        """The newest generation of those of the UIDs that are kept; one round trip."""
        ...

    async def present(self, generations: Collection[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Those (uid, generation) pairs that are kept; one round trip."""
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

    async def generations(self) -> Mapping[str, tuple[int, bool]]:
        """UID to newest generation kept and whether it is gone: what a starting operator must know of each."""
        ...

    async def query_by_labels(
        self,
        selector: LabelSelector,
        *,
        kind: str | None = None,
        namespace: str | None = None,
        after: tuple[str, str, str, str] | None = None,
        limit: int | None = None,
    ) -> Sequence[ResourceRecord]:
        """Newest generations whose labels the selector matches, by (kind, namespace, name, uid); at most ``limit``
        of those that come after ``after`` in this order."""
        ...

    async def traverse(
        self,
        start: str,
        *,
        direction: Direction = Direction.OUT,
        kinds: frozenset[str] = frozenset(),
        max_depth: int = 64,
        limit: int = 10_000,
    ) -> Sequence[Hop]:
        """Everything reached from this uid or digest over edges of these kinds (all, when empty): breadth first,
        each end once, so that cycles end; within a depth by (seq, kind, id). At most ``limit`` hops: exactly
        ``limit`` means that there may be more."""
        ...

    async def link(self, edges: Sequence[Edge]) -> None:
        """Insert edges, all or none; of an edge (source, kind, target, key) the one with the lowest ``seq`` stays."""
        ...

    async def edges(self, uid: str, *, outgoing: bool = True, kinds: frozenset[str] = frozenset()) -> Sequence[Edge]:
        """Edges from (or to) this uid or digest, by (seq, kind, other end, key)."""
        ...

    async def edges_of(
        self, ids: Collection[str], *, outgoing: bool = True, kinds: frozenset[str] = frozenset()
    ) -> Sequence[Edge]:
        """As ``edges``, of all of these in one round trip and one order."""
        ...

    async def page_records(self, after: tuple[str, int] | None = None, limit: int = 1000) -> Sequence[ResourceRecord]:
        """Every generation kept, by (uid, generation), in pages."""
        ...

    async def page_edges(self, after: tuple[str, str, str, str] | None = None, limit: int = 1000) -> Sequence[Edge]:
        """Every edge, by (source, kind, target, key), in pages."""
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
        the run is not the next (its predecessor must be finished or lost). ``permit.agent_limit`` is noted as
        by ``limit``, unless something newer is."""
        ...

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """1 + the highest counter used for that run."""
        ...

    async def outstanding(self, graph_uid: str) -> Outstanding:
        """How many valid permits nobody has claimed, and what this Graph has of them and of live runs."""
        ...

    async def limit(self, agent_uid: str | None, most: int | None) -> None:
        """From now on at most ``most`` runs of this Agent (None: of all together) may be live; ``most`` None: as
        many as there are. Runs that are live stay so. Raises ``InvalidInput`` below 1."""
        ...

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """Atomically take one run whose permit is valid now and that no limit holds: of the Graph with the fewest
        live runs, the oldest; None if there is none. Never hands out revoked sessions, expired permits, permits
        decided before a revocation among the sessions of their Task or before ``void_permits``, or a run twice.

        Sessions that only lack a valid permit are marked as wanted (see ``wanted``), in the same fair order:
        one when nothing could be taken, and more ahead of need while claims come quickly."""
        ...

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """As ``claim`` for one named run; raises ``PermitRefused`` naming why not."""
        ...

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """Record that the harness process runs, with what the host measured; False if it was recorded."""
        ...

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """Raise the renewal counter; returns the reason if the run has been revoked or lost, else None. ``Conflict``
        when nobody has claimed it, and when it is finished. A raised counter may be forgotten in a crash of the
        store; nothing else rests on it."""
        ...

    async def record(
        self, session_uid: str, run: int, sequence: int, digest: str, *, held_seconds: float = 0.0
    ) -> RecordReceipt:
        """Note journal segment ``sequence`` (from 1, no gaps). Same digest again: the first receipt. Other
        digest: ``Conflict``. Not the next: ``SequenceGap`` with the expected number. ``held_seconds`` ago its
        first record was heard: that gives the run's ``first_record_at``, never before its start."""
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
        """Bar every later claim of the session and end its live run; void every permit of the same Task's sessions
        that was decided before. False if it was revoked or unknown."""
        ...

    async def revocation_revision(self) -> int:
        """Counts every ``revoke`` and ``void_permits``; permits carry the revision they were decided at."""
        ...

    async def now(self) -> datetime:
        """The store's clock: what permits live by."""
        ...

    async def get(self, session_uid: str, *, records: bool = False) -> SessionView | None:
        """The session with its runs; ``record_digests`` only with ``records``."""
        ...

    async def get_many(self, session_uids: Sequence[str], *, records: bool = False) -> Mapping[str, SessionView]:
        """Those that there are; one round trip."""
        ...

    async def live(self) -> list[LiveRun]:
        """Every claimed or started run, oldest session first."""
        ...

    async def wanted(self) -> list[str]:
        """Sessions a runner has asked for that lack a valid permit; cleared by the next permit."""
        ...

    async def pass_over(self, session_uid: str) -> None:
        """It cannot go on now: the next are asked for instead. Takes out of the line what is wanted, and what was
        permitted and nobody claimed, which nobody can claim then. Its next permit puts it back, or ``line_up``. No
        change to any other."""
        ...

    async def line_up(self, session_uid: str) -> None:
        """It was passed over and can go on again: back to its place, where a runner may ask for it. No change unless
        it was passed over."""
        ...

    async def void_permits(self, namespace: str | None, reason: str) -> int:
        """Void every permit in this namespace (None: everywhere) that was decided before and nobody has claimed: a
        Policy or an authority above has changed. Returns the new revocation revision. Running sessions go on; those
        that lost a permit are marked as wanted if a runner had asked."""
        ...

    async def report(self, session_uid: str, run: int, usage: Usage) -> None:
        """What a live run has used so far, as its host counts; never lowers what was reported. Ignored when the run
        is over, or nobody has claimed it. Raises ``NotFound``, and ``InvalidInput`` for amounts below 0 or from 2^53.
        What was reported last may be forgotten in a crash of the store; the next report makes up for it."""
        ...

    async def spent(self, uids: Collection[str]) -> Mapping[str, Spent]:
        """Of these Tasks, Nodes and Graphs; one round trip. One that has spent nothing is there with zeros."""
        ...

    async def ask(self, question: Question) -> Question:
        """Note that a call waits for a person (``asked_at`` and ``until`` are set anew by the store's clock: ``until -
        asked_at`` is kept). Asked before by the same run with the same digest: what is kept, with its answer.
        ``Conflict`` with another digest or run, or when the run is not live. Raises ``NotFound`` (run),
        ``InvalidInput`` (nobody could answer)."""
        ...

    async def answer(self, session_uid: str, invocation: str, *, approved: bool, review: str, principal: str) -> bool:
        """Record the answer once; False when it was answered before, or is past its time. Raises ``NotFound``."""
        ...

    async def questions(self, session_uids: Collection[str]) -> Sequence[Question]:
        """All of these sessions, by (session, asked_at, invocation)."""
        ...

    async def open_sessions(self, task_uid: str | None = None) -> list[OpenSession]:
        """Sessions neither revoked nor closed, oldest first; of one Task, or all."""
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

    async def blob_references(self) -> frozenset[str]:
        """Every digest that anything kept here names, wherever it stands: owners, work orders, run inputs, facts,
        records, results, questions. More than is needed, never less: what is not in it may be collected."""
        ...

    async def cursor(self, name: str) -> int:
        """Durable position of a log consumer; -1 at first."""
        ...

    async def set_cursor(self, name: str, seq: int) -> None:
        """Move it forward; a lower value is ignored."""
        ...

    def changes(self) -> AbstractAsyncContextManager["Wakeups"]:
        """Subscribe to wake-ups (offer, permit, claim, start, finish, revoke, void, wanted, ask, answer). Only a
        hint."""
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

    async def delete(self, obj: Mapping[str, Any]) -> bool:
        """Delete this incarnation (its UID is the precondition), dependents in the background; False when it is
        gone, or is another by now."""
        ...

    async def emit(self, event: KubeEvent) -> None:
        """Make the Event; raises for nothing but ``Fenced``: a lost Event is no loss (they are not audit)."""
        ...

    async def close(self) -> None: ...


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


class Expressions(Protocol):
    """CEL conditions of users: bounded in size, nesting and time. ``steps`` and ``parameters`` are declared
    (docs/reference/conditions-in-cel.md)."""

    async def check(self, expression: str) -> None:
        """Raise ``InvalidExpression`` unless it compiles to a boolean and is cheap enough; says where and why."""
        ...

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        """Its value. Raises ``InvalidExpression``: it does not compile, fails on these values (a missing key, a
        wrong type), or takes too long."""
        ...


class Contracts(Protocol):
    """Whether stored contents meet a contract, judged where a hostile schema can do no harm."""

    async def problem(self, digest: str, media_type: str, schema: Mapping[str, Any] | None) -> str | None:
        """How the blob breaks its media type or the JSON Schema (2020-12); None if it meets them. A check that takes
        too long or too much memory is a problem. Raises ``BlobMissing``, ``Corrupt``, ``Unavailable``."""
        ...


class PolicyEngine(Protocol):
    """Policies in CEL, compiled and evaluated where they can do no harm: bounded in size, nesting, time."""

    async def problems(self, spec: PolicySpec) -> Sequence[PolicyProblem]:
        """What keeps this Policy from being used: each expression that does not compile, has the wrong type, or costs
        too much, with its field and position. Empty: it can be used."""
        ...

    async def decide(self, policies: Sequence[Mapping[str, Any]], request: PolicyRequest) -> PolicyDecision:
        """Ask every one of these Policy objects that binds and matches the request (``domain.policy.binds``). An
        expression that fails, or takes too long, is a violation of its Policy (fail closed, as ``failurePolicy:
        Fail``). Raises ``Unavailable`` when none can be asked."""
        ...


class SigningKeys(Protocol):
    """Where the operator's private keys lie. Local and quick: no coroutines."""

    def current(self) -> Signer:
        """The key that signs from now on; looks each time, so that a rotation is seen at once. Makes the first.
        Raises ``InvalidInput`` when it is no Ed25519 key, ``Unavailable`` when it cannot be read or made."""
        ...

    def rotate(self) -> Signer:
        """Make a new key and let it sign from now on. The old one stays until it is discarded."""
        ...

    def discard(self, key_id: str) -> bool:
        """Destroy a private key that signs no more; False when it is not there, or cannot be removed. The current one
        stays: ``InvalidInput``."""
        ...

    def list_ids(self) -> Sequence[str]:
        """Ids of the keys that lie here, ascending."""
        ...


class Clock(Protocol):
    """Time as the adapters see it; decisions get ``now`` passed in."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time."""
        ...

    def monotonic(self) -> float:
        """Seconds from some start; never goes back."""
        ...
