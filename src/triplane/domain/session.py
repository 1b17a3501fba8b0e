"""The values of execution: offers, launch permits, claims, runs and their results.

A *run* is one claim-to-finish of a session. Its states::

    permitted ─claim─► claimed ─start─► started ─finish─► finished
        │                 │                │
        └─ (expires)      └──── lose ──────┴──► lost        revoke ─► revoked (from any live state)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

EMPTY_OBJECT_DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""SHA-256 of ``{}``: authority and policy digest while those kinds do not exist."""
PERMIT_SECONDS = 10
"""Longest life of a launch permit."""


class RunState(StrEnum):
    """Where a run is."""

    PERMITTED = "permitted"
    CLAIMED = "claimed"
    STARTED = "started"
    FINISHED = "finished"
    LOST = "lost"
    REVOKED = "revoked"


LIVE_RUN_STATES = frozenset({RunState.CLAIMED, RunState.STARTED})


class Outcome(StrEnum):
    """How a finished run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    """The host refused to run it (program missing or altered, inputs unusable, no sandbox)."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A session made claimable. ``work_order`` is the part that is the same in every run."""

    session_uid: str
    namespace: str
    name: str
    task_uid: str
    graph_uid: str
    agent_uid: str
    agent_name: str
    role: str
    snapshot_digest: str
    work_order: Mapping[str, Any]
    node_uid: str | None = None
    """The Node whose step the Task is; what its runs spend counts there too."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to launch one run, decided on policies and ancestors read a moment ago."""

    session_uid: str
    run: int
    counter: int
    snapshot_digest: str
    revocation_revision: int
    """The store's, read before anything the decision rests on."""
    authority_digest: str = EMPTY_OBJECT_DIGEST
    policy_digest: str = EMPTY_OBJECT_DIGEST
    run_inputs: Mapping[str, Any] = field(default_factory=dict)
    """What differs from run to run: findings, resume state."""
    seconds: float = PERMIT_SECONDS
    decided_at: datetime | None = None
    """When the reads began that it rests on, by the store's clock; its life counts from then, so a decision that
    was held up on its way is no fresher for it. None: now."""
    agent_limit: int | None = None
    """Runs of this Agent that may be live at once, as its spec said then; holds for all of its sessions."""


class HeldBy(StrEnum):
    """The limit that keeps a session from being claimed, though it may have a permit."""

    AGENT_LIMIT = "agent_limit"
    GLOBAL_LIMIT = "global_limit"


@dataclass(frozen=True, slots=True)
class Outstanding:
    """How much leave to run lies ready: what a further permit would come on top of."""

    permits: int
    """Valid permits nobody has claimed."""
    of_graph: int
    """Those of one Graph, and its live runs."""


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A claimed or started run, without what it works on."""

    session_uid: str
    namespace: str
    name: str
    task_uid: str
    graph_uid: str
    agent_uid: str
    run: int
    counter: int
    """Renewal counter of the lease."""
    runner: str
    instance: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session neither revoked nor closed, without what it works on; of its last run, if it has one."""

    session_uid: str
    namespace: str
    name: str
    task_uid: str
    run: int = 0
    state: RunState | None = None
    runner: str | None = None
    instance: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A run handed to a runner."""

    session_uid: str
    namespace: str
    name: str
    task_uid: str
    graph_uid: str
    agent_uid: str
    agent_name: str
    role: str
    run: int
    permit_counter: int
    runner: str
    instance: str
    work_order: Mapping[str, Any]
    run_inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunOutput:
    """An output as uploaded and accepted by the gateway."""

    name: str
    path: str
    digest: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run consumed, as its harness reports."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_minor_units: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Spent:
    """What has been spent beneath a Task, Node or Graph: by runs that are over, and by live ones as last reported."""

    tokens: int = 0
    cost_minor_units: int = 0
    seconds: int = 0
    """Time of all runs together, started to ended (or to now, by the store's clock), whole seconds rounded up."""
    sessions: int = 0
    """Sessions of which a run was claimed."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call of a tool that waits for a person, and the answer."""

    session_uid: str
    run: int
    invocation: str
    """Unique in the session."""
    digest: str
    """Of the JCS form of ``{"tool": key, "arguments": {…}}``: what leave is given for."""
    tool: str
    """``<Tool>/<operation>``."""
    approvers: tuple[str, ...]
    """Authenticated user names, as the Tool's spec said when the session was frozen."""
    asked_at: datetime
    until: datetime
    answer: bool | None = None
    """None: open (or, past ``until``, refused)."""
    review: str | None = None
    """UID of the Review that answered."""
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended. ``reflection`` is a digest; a run without one never succeeds."""

    outcome: Outcome
    reason: str
    """CamelCase, from docs/reference/reasons.md."""
    message: str
    outputs: tuple[RunOutput, ...] = ()
    reflection: str | None = None
    usage: Usage = Usage()
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """A journal segment is noted; ``first`` is False on a repeat."""

    sequence: int
    digest: str
    first: bool


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as the store knows it."""

    run: int
    state: RunState
    permit_counter: int
    permit_expired: bool
    runner: str | None = None
    instance: str | None = None
    counter: int = 0
    """Renewal counter of the lease."""
    records: int = 0
    """Journal segments noted."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the host reported at start: isolation, measured digests."""
    result: RunResult | None = None
    end_reason: str | None = None
    """Why it was lost or revoked."""
    run_inputs: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage = Usage()
    """What it has used: as its host last reported, and at least what its result says."""
    blob_octets: int = 0
    """Of the blobs it has stored that its namespace did not have."""
    claimed_at: str | None = None
    started_at: str | None = None
    first_record_at: str | None = None
    """When its host heard the first thing the harness said, as far as the host tells."""
    ended_at: str | None = None


@dataclass(frozen=True, slots=True)
class SessionView:
    """One session with its runs, oldest first."""

    offer: Offer
    runs: tuple[RunView, ...]
    revoked: str | None = None
    closed: bool = False
    record_digests: tuple[tuple[int, int, str], ...] = ()
    """(run, sequence, digest) of every journal segment; empty unless they were asked for."""
    wanted: bool = False
    """A runner waits for it and only a permit is missing."""
    held_by: HeldBy | None = None
    """The limit that is reached while it waits to be claimed; None when it does not wait, or for a runner only."""
    passed_over: bool = False
    """It could not go on when a runner wanted or might have claimed it: none gets it before it is put back in line."""

    @property
    def in_line(self) -> bool:
        """A runner will ask for it when its turn comes, and has not yet."""
        last = self.last_run
        waits = self.revoked is None and not self.closed and (last is None or last.state is RunState.PERMITTED)
        return waits and not self.wanted and not self.passed_over

    @property
    def last_run(self) -> RunView | None:
        return self.runs[-1] if self.runs else None
