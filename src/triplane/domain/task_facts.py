"""What a Task's decision is made of, and the steps it can name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from triplane.api.meta import Gate, Output, Subject
from triplane.api.task import Task
from triplane.domain.eligibility import Candidate
from triplane.domain.session import Question, RunView, SessionView
from triplane.domain.task_needs import Composition, Dependency, InputFound
from triplane.domain.task_outlook import Outlook
from triplane.domain.verdict import Moment, PersonReview, VerdictFile, VerdictVoid
from triplane.domain.workorder import ContractConflict, ResolvedInput


@dataclass(frozen=True, slots=True)
class Placement:
    """A recorded choice of an Agent for one role in one round. ``ordinal`` counts the
    choices made for that role in the round: a next one is made when an Agent is gone or has failed as reviewer."""

    role: str
    round: int
    ordinal: int
    agent_uid: str
    agent_name: str
    principal: str | None
    harness_principal: str | None
    model_family: str | None = None
    """As the Agent declared it then."""
    seat: int = 0
    """Which of the reviewers of the round it is, from 0; in each seat the choice with the highest ordinal counts."""

    @property
    def key(self) -> tuple[str, int, int]:
        return self.role, self.round, self.ordinal


@dataclass(frozen=True, slots=True)
class Approval:
    """A recorded leave or approval. Of a round one of several; the one that completed it is in ``task.accepted``."""

    gate: Gate
    round: int
    key: str
    """UID of the Review, for Launch of the session, for Tool of the session and the invocation."""
    subjects: tuple[Subject, ...]
    review_name: str | None = None
    review_uid: str | None = None
    """None: nobody answered, and the default gave leave."""
    principal: str | None = None
    session_uid: str | None = None
    agent_uid: str | None = None
    """Of an agent's approval."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Leave to launch a session was asked for."""

    seq: int
    at: str
    """By the log's clock (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the log holds of this Task."""

    placements: tuple[Placement, ...] = ()
    accepted_round: int | None = None
    accepted_review: str | None = None
    accepted_subjects: tuple[Subject, ...] = ()
    """Exactly what was accepted; nothing else of that round counts."""
    rejected: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Round to findings."""
    failed: tuple[str, str] | None = None
    """``(reason, message)`` once the Task has failed or was cancelled."""
    skipped: tuple[str, str] | None = None
    """``(reason, message)`` once it is certain that the Task is not to be done."""
    composed: Mapping[str, str] = field(default_factory=dict)
    """Input name to the digest of what was composed for it."""
    approvals: tuple[Approval, ...] = ()
    """In the order they were given."""
    asked: Mapping[str, Asked] = field(default_factory=dict)
    """Session UID to when leave to launch it was asked for."""
    answered: Mapping[str, str] = field(default_factory=dict)
    """Key of a leave that a person gave or refused (see ``Approval.key``) to the UID of their Review."""
    counted: frozenset[str] = frozenset()
    """UIDs of the Reviews that decided something, or helped to."""
    ended_at: str | None = None
    """When the Task was accepted, failed, was cancelled or skipped: the time of that entry."""

    @property
    def over(self) -> bool:
        """Nothing of it will ever change again."""
        return self.accepted_round is not None or self.failed is not None or self.skipped is not None

    def latest(self, role: str, round_: int) -> Placement | None:
        """The placement in force: the one with the highest ordinal."""
        placed = [item for item in self.placements if (item.role, item.round) == (role, round_)]
        return max(placed, key=lambda item: item.ordinal, default=None)

    def panel(self, round_: int) -> tuple[Placement, ...]:
        """The reviewing Agents in force, by seat."""
        seats: dict[int, Placement] = {}
        for item in sorted(self.placements, key=lambda item: item.ordinal):
            if (item.role, item.round) == ("reviewer", round_):
                seats[item.seat] = item
        return tuple(seats[seat] for seat in sorted(seats))

    def approvals_of(self, round_: int) -> tuple[Approval, ...]:
        """Who has approved the outputs of the round so far."""
        return tuple(item for item in self.approvals if (item.gate, item.round) == (Gate.OUTPUTS, round_))


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """An AgentSession of the Task: which placement it serves, and what the store knows of it."""

    name: str
    uid: str
    role: str
    round: int
    agent_uid: str
    view: SessionView | None
    verdict: VerdictFile | VerdictVoid | None = None
    """Of a review session whose last run succeeded."""
    wanted: bool = False
    """A runner has asked for it, and only a valid permit is missing."""
    launchable: bool = True
    """False: enough other permits lie ready, or a limit is reached. It waits until a runner asks for it."""
    made_at: str | None = None
    """``creationTimestamp`` of the object."""
    questions: tuple[Question, ...] = ()
    """Calls of tools that wait for a person, and those that were answered."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Everything the decision needs, gathered before it."""

    task: Task
    missing: tuple[tuple[str, str], ...]
    """``(reason, message)`` for every reference that does not resolve yet."""
    withdrawn: tuple[str, str] | None
    """``(reason, message)`` when an ancestor was deleted."""
    inputs: tuple[ResolvedInput, ...]
    outputs: tuple[Output, ...] | ContractConflict
    agents: tuple[Candidate, ...]
    decisions: Decisions
    sessions: tuple[SessionFacts, ...]
    expected_session: Mapping[tuple[str, int, int], str]
    """Name of the session each placement leads to, as its snapshot would be frozen now."""
    artifacts: frozenset[tuple[str, int, str]]
    """``(session uid, run, output name)`` of the outputs that are recorded as Artifacts in the log."""
    people_reviews: tuple[PersonReview, ...] = ()
    """In the order they were made."""
    produced_since: Mapping[int, Moment] = field(default_factory=dict)
    """Round to when its outputs were there to be judged."""
    instructions_principal: str | None = None
    """Principal id of the user whose Capability instructs the reviewer; None when there is no such Capability."""
    unmet: tuple[str, str] | None = None
    """``(reason, message)`` why a lens, its parameters, its input contract or the Guidelines let nobody begin."""
    review_unmet: tuple[str, str] | None = None
    """The same of the reviewer's."""
    dependencies: tuple[Dependency, ...] = ()
    """What it waits for, as that stands; empty once an Agent was placed: it waits no more."""
    cycle: tuple[str, ...] = ()
    """Names of Tasks that wait for one another, this one first and last."""
    condition: bool | str | None = None
    """Value of ``spec.when``, or why it has none; None: there is no condition, or it cannot be asked yet."""
    found: tuple[InputFound, ...] = ()
    """How each input stands that comes from other Tasks, once those are settled."""
    suspended: tuple[str, ...] = ()
    """What holds it back on purpose, each as ``Node n``; empty: nothing."""
    barred: Mapping[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)
    """Placements whose next run may not be launched now: ``(reason, message)``, who can change it included."""
    stops: "tuple[StopSession, ...]" = ()
    """Sessions at work under more than they may have now."""
    limits_after: float | None = None
    """Seconds until time alone may change the two above."""
    now: datetime | None = None
    """The session store's clock, by which waits are measured; None: nothing waits for a time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Record the choice of an Agent."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Make the AgentSession of a placement and offer it."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class Launch:
    """Permit the next run of a session."""

    session: SessionFacts
    run: int
    round: int
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LineUp:
    """Put a session that was passed over back in line: it can go on, once a runner asks."""

    session: SessionFacts


@dataclass(frozen=True, slots=True)
class RecordArtifacts:
    """Make the Artifacts of the outputs of a finished run."""

    session: SessionFacts
    run: RunView
    round: int


@dataclass(frozen=True, slots=True)
class RecordAgentReview:
    """Make the Review of a review session's verdict and decide the round by it."""

    session: SessionFacts
    verdict: VerdictFile
    round: int
    decides: bool = True
    """False: others must approve too."""


@dataclass(frozen=True, slots=True)
class DecideByPerson:
    """Decide the round by a person's Review."""

    review: PersonReview
    round: int
    decides: bool = True
    """False: others must approve too."""


@dataclass(frozen=True, slots=True)
class StopSession:
    """End a session that is at work under more than it may have now; the Task goes on without it."""

    session: SessionFacts
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class AcceptRound:
    """As many have approved as were asked for: accept the outputs."""

    round: int


@dataclass(frozen=True, slots=True)
class AskLeave:
    """Note that leave is asked to launch the session."""

    session: SessionFacts
    round: int


@dataclass(frozen=True, slots=True)
class AnswerLaunch:
    """A person's answer to that, or the default when nobody gave one in time (``review`` None: leave is given)."""

    session: SessionFacts
    round: int
    review: PersonReview | None


@dataclass(frozen=True, slots=True)
class AnswerCalls:
    """A person's answer to calls of tools."""

    session: SessionFacts
    questions: tuple[Question, ...]
    review: PersonReview


@dataclass(frozen=True, slots=True)
class ComposeInputs:
    """Store and log what other Tasks produced as inputs of this one."""

    compositions: tuple[Composition, ...]


@dataclass(frozen=True, slots=True)
class SkipTask:
    """The Task is not to be done. ``values`` are the states of the steps its condition saw."""

    reason: str
    message: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailTask:
    """Nothing further will be tried."""

    reason: str
    message: str
    round: int


Action = (
    Place
    | OpenSession
    | Launch
    | LineUp
    | RecordArtifacts
    | RecordAgentReview
    | DecideByPerson
    | StopSession
    | AcceptRound
    | AskLeave
    | AnswerLaunch
    | AnswerCalls
    | ComposeInputs
    | SkipTask
    | FailTask
)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next action, or None: nothing to do but wait, as ``outlook`` says."""

    action: Action | None
    outlook: Outlook
    after: float | None = None
    """Seconds after which to look again, when time alone brings it on."""
