"""A Task as its decision sees it, and a stand-in that applies each step to those facts."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from triplane.api.meta import Gate, Output, Subject, Verdict
from triplane.api.task import Task
from triplane.domain.eligibility import Candidate
from triplane.domain.session import Offer, Outcome, RunOutput, RunResult, RunState, RunView, SessionView
from triplane.domain.task import decide, still_as_placed
from triplane.domain.task_facts import (
    AcceptRound,
    Action,
    AnswerCalls,
    AnswerLaunch,
    Approval,
    Asked,
    AskLeave,
    ComposeInputs,
    DecideByPerson,
    Decisions,
    FailTask,
    Launch,
    LineUp,
    OpenSession,
    Place,
    Plan,
    RecordAgentReview,
    RecordArtifacts,
    SessionFacts,
    SkipTask,
    TaskFacts,
)
from triplane.domain.task_gates import launch_subjects
from triplane.domain.task_needs import Dependency, InputFound
from triplane.domain.verdict import Moment, VerdictFile, VerdictVoid

DIGEST = "sha256:" + "a" * 64
WITHOUT_WAIT = {"retry": {"backoffSeconds": 0}}


def agent(name: str, *capabilities: str, principal: str | None = "p-alice", **changes: Any) -> Candidate:
    """An active Agent with a Harness of the same user."""
    values: dict[str, Any] = {
        "uid": f"uid-{name}",
        "name": name,
        "generation": 1,
        "capabilities": frozenset(capabilities),
        "principal": principal,
        "active": True,
        "harness": "h",
        "harness_found": True,
        "harness_principal": principal,
        "users": frozenset({(principal or "").removeprefix("p-")}),
    }
    return Candidate(**{**values, **changes})


def task(**spec: Any) -> Task:
    """A Task that needs capability ``write``; unless told otherwise its runs follow one another at once."""
    return Task.model_validate(
        {
            "apiVersion": "triplane.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": "t", "namespace": "ns", "uid": "uid-task", "generation": 1},
            "spec": {
                "graphRef": {"name": "g"},
                "objective": "do",
                "requiredCapabilities": ["write"],
                **WITHOUT_WAIT,
                **spec,
            },
        }
    )


class NothingLiveError(Exception):
    """There is no run of that role to end."""


@dataclass
class World:
    """Holds the facts; ``advance`` lets the decision act on them until it waits."""

    task: Task = field(default_factory=task)
    agents: tuple[Candidate, ...] = (agent("writer", "write"), agent("judge", "review", principal="p-bob"))
    missing: tuple[tuple[str, str], ...] = ()
    withdrawn: tuple[str, str] | None = None
    decisions: Decisions = field(default_factory=Decisions)
    sessions: dict[str, SessionFacts] = field(default_factory=dict)
    artifacts: frozenset[tuple[str, int, str]] = frozenset()
    people: tuple[Any, ...] = ()
    instructions_principal: str | None = None
    produced_since: dict[int, Moment] = field(default_factory=dict)
    snapshot: str = "s1"
    dependencies: tuple[Dependency, ...] = ()
    cycle: tuple[str, ...] = ()
    condition: bool | str | None = None
    found: tuple[InputFound, ...] = ()
    suspended: tuple[str, ...] = ()
    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)
    launchable: bool = True
    history: list[Action] = field(default_factory=list)

    def facts(self) -> TaskFacts:
        expected = {
            item.key: self.session_name(item.role, item.round, item.agent_uid)
            for item in self.decisions.placements
            if still_as_placed(item, self.agents)
        }
        return TaskFacts(
            task=self.task,
            missing=self.missing,
            withdrawn=self.withdrawn,
            inputs=(),
            outputs=(Output(name="report", path="report.md", media_type="text/markdown"),),
            agents=self.agents,
            decisions=self.decisions,
            sessions=tuple(self.sessions.values()),
            expected_session=expected,
            artifacts=self.artifacts,
            people_reviews=self.people,
            produced_since=self.produced_since,
            instructions_principal=self.instructions_principal,
            dependencies=self.dependencies,
            cycle=self.cycle,
            condition=self.condition,
            found=self.found,
            suspended=self.suspended,
            now=self.now,
        )

    @property
    def snapshot_digest(self) -> str:
        return DIGEST if self.snapshot == "s1" else "sha256:" + "c" * 64

    def session_name(self, role: str, round_: int, agent_uid: str) -> str:
        return f"{role}-{agent_uid}-{self.snapshot}" + (f"-{round_}" if role == "reviewer" else "")

    def advance(self, limit: int = 20) -> Plan:
        for _ in range(limit):
            plan = decide(self.facts())
            if plan.action is None:
                return plan
            self.history.append(plan.action)
            self._apply(plan.action)
        raise AssertionError(f"did not come to rest: {self.history[-4:]}")

    def pass_(self, seconds: float) -> None:
        """Time goes by."""
        self.now += timedelta(seconds=seconds)

    def end_run(
        self, role: str, outcome: Outcome = Outcome.SUCCEEDED, *, verdict: Verdict | None = None, of: str | None = None,
        findings: tuple[str, ...] = (), void: str | None = None, digest: str = DIGEST, reason: str = "HarnessFailed",
    ) -> None:  # fmt: skip
        """The live (or permitted) run of that role ends."""
        for name, session in self.sessions.items():
            view = session.view
            assert view is not None
            run = view.last_run
            if of is not None and session.agent_uid != f"uid-{of}":
                continue
            if session.role != role or run is None or run.state not in (RunState.PERMITTED, RunState.STARTED):
                continue
            outputs = (RunOutput("report", "report.md", digest, "text/markdown", 1),) if role == "producer" else ()
            result = RunResult(outcome, reason, "it failed", outputs if outcome is Outcome.SUCCEEDED else ())
            ended = replace(run, state=RunState.FINISHED, result=result, ended_at=self.now.isoformat())
            said: VerdictFile | VerdictVoid | None = None
            if void is not None:
                said = VerdictVoid("SubjectsDiffer", void)
            elif verdict is not None:
                said = VerdictFile(verdict, findings, (Subject(name="report", digest=digest),))
            self.sessions[name] = replace(session, view=replace(view, runs=(*view.runs[:-1], ended)), verdict=said)
            return
        raise NothingLiveError(role)

    def lose_run(self, role: str) -> None:
        for name, session in self.sessions.items():
            view = session.view
            assert view is not None
            if session.role == role and view.last_run and view.last_run.state is RunState.PERMITTED:
                lost = replace(view.last_run, state=RunState.LOST, end_reason="gone", ended_at=self.now.isoformat())
                self.sessions[name] = replace(session, view=replace(view, runs=(*view.runs[:-1], lost)))

    def _apply(self, action: Action) -> None:
        match action:
            case Place(placement=placement):
                self.decisions = replace(self.decisions, placements=(*self.decisions.placements, placement))
            case OpenSession(placement=placement):
                name = self.session_name(placement.role, placement.round, placement.agent_uid)
                offer = Offer(
                    f"uid-{name}", "ns", name, "uid-task", "uid-g", placement.agent_uid,
                    placement.agent_name, placement.role, self.snapshot_digest, {},
                )  # fmt: skip
                self.sessions[name] = SessionFacts(
                    name, f"uid-{name}", placement.role, placement.round, placement.agent_uid,
                    SessionView(offer, ()), launchable=self.launchable,
                )  # fmt: skip
            case Launch(session=session, run=number, round=round_, findings=findings):
                view = session.view
                assert view is not None
                inputs = {"round": round_, "findings": list(findings)}
                run = RunView(number, RunState.PERMITTED, 1, False, run_inputs=inputs)
                runs = tuple(item for item in view.runs if item.run != number)
                self.sessions[session.name] = replace(session, view=replace(view, runs=(*runs, run)), wanted=False)
            case LineUp(session=session):
                view = session.view
                assert view is not None
                self.sessions[session.name] = replace(session, view=replace(view, passed_over=False))
            case RecordArtifacts(session=session, run=run):
                assert run.result is not None
                self.artifacts |= {(session.uid, run.run, output.name) for output in run.result.outputs}
            case RecordAgentReview(session=session, verdict=verdict, round=round_, decides=decides):
                if decides:
                    self._decide(round_, verdict.verdict, verdict.findings, "agent-review")
                else:
                    name = f"by-{session.agent_uid}"
                    self._approve(Approval(
                        Gate.OUTPUTS, round_, name, verdict.subjects, name, name, None, session.uid, session.agent_uid
                    ))  # fmt: skip
            case DecideByPerson(review=review, round=round_, decides=decides):
                self._count(review.uid)
                if decides:
                    self._decide(round_, review.verdict, review.findings, review.name)
                else:
                    self._approve(Approval(
                        Gate.OUTPUTS, round_, review.uid, review.subjects, review.name, review.uid, review.principal
                    ))  # fmt: skip
            case AcceptRound(round=round_):
                self._decide(round_, Verdict.APPROVE, (), "the last")
            case AskLeave(session=session):
                asked = Asked(len(self.history), self.now.isoformat())
                self.decisions = replace(self.decisions, asked={**self.decisions.asked, session.uid: asked})
            case AnswerLaunch(session=session, round=round_, review=person):
                if person is not None:
                    self._count(person.uid)
                if person is not None and person.verdict is Verdict.REJECT:
                    self.decisions = replace(self.decisions, failed=("ApprovalDenied", "; ".join(person.findings)))
                else:
                    self._approve(Approval(
                        Gate.LAUNCH, round_, session.uid, launch_subjects(session), session_uid=session.uid
                    ))  # fmt: skip
            case AnswerCalls(session=session, questions=questions, review=person):
                self._count(person.uid)
                answered = tuple(
                    replace(item, answer=person.verdict is Verdict.APPROVE, review=person.uid)
                    if item in questions else item
                    for item in session.questions
                )  # fmt: skip
                self.sessions[session.name] = replace(session, questions=answered)
            case ComposeInputs(compositions=compositions):
                self.decisions = replace(self.decisions, composed={item.input: item.digest for item in compositions})
                self.found = tuple(
                    replace(item, digest=self.decisions.composed.get(item.name, item.digest), composition=None)
                    for item in self.found
                )
            case SkipTask(reason=reason, message=message):
                self.decisions = replace(self.decisions, skipped=(reason, message))
            case FailTask(reason=reason, message=message):
                self.decisions = replace(self.decisions, failed=(reason, message))

    def _count(self, uid: str) -> None:
        self.decisions = replace(self.decisions, counted=self.decisions.counted | {uid})

    def _approve(self, approval: Approval) -> None:
        self.decisions = replace(self.decisions, approvals=(*self.decisions.approvals, approval))

    def _decide(self, round_: int, verdict: Verdict, findings: tuple[str, ...], name: str) -> None:
        if verdict is Verdict.APPROVE:
            self.decisions = replace(self.decisions, accepted_round=round_, accepted_review=name)
        else:
            self.decisions = replace(self.decisions, rejected={**self.decisions.rejected, round_: findings})
