"""Reads what limits a Task's sessions now: their warrants, what was spent, what Policies say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from triplane.api.authority import Axis, Grant
from triplane.controllers.beginning import begun
from triplane.controllers.context import Context
from triplane.controllers.launch_policies import LaunchPolicies, LaunchQuestion, refusal
from triplane.controllers.task_plan import Object, SessionPlan
from triplane.controllers.warrants import Warrants
from triplane.domain.authority import AMOUNTS, Excess, amount, expired, holds, moment
from triplane.domain.policy import PolicyDecision
from triplane.domain.session import LIVE_RUN_STATES, RunState, Spent
from triplane.domain.task_facts import Decisions, Placement, SessionFacts, StopSession
from triplane.domain.task_runs import serving
from triplane.domain.warrant import Level, Warrant, lacking

BUDGET_SECONDS: Final = 5.0
"""How often what sessions at work have spent is added up: together they may spend faster than each one's host sees."""
BUDGET_LOOKS: Final = 20
"""Most Tasks looked at in a second for that alone: adding up costs what is at work, so that many look less often."""
UNSURE_SECONDS: Final = 15.0
"""When Policies are asked again that could not be asked, or not to the end."""
SHOWN: Final = 3
SPENDING: Final[Mapping[Axis, str]] = {
    Axis.TOKENS: "tokens",
    Axis.COST: "cost_minor_units",
    Axis.SECONDS: "seconds",
    Axis.SESSIONS: "sessions",
}
"""Axes of the budget, and the fields of ``Spent``."""


@dataclass(frozen=True)
class Limits:
    """What was found."""

    barred: Mapping[tuple[str, int, int], tuple[str, str]] = field(default_factory=dict)
    stops: tuple[StopSession, ...] = ()
    after: float | None = None
    budgets: Mapping[tuple[str, int, int], Mapping[str, int]] = field(default_factory=dict)
    """What is left for the next run of a placement, as run inputs say it; absent amounts are unlimited."""
    most_sessions: Mapping[tuple[str, int, int], Mapping[str, int]] = field(default_factory=dict)
    """UID of each object that limits how many sessions begin, to how many; of placements whose session has not."""


@dataclass(frozen=True)
class Subject:
    """A session of the Task that matters now: of a placement in force, or at work whatever it was placed for."""

    placement: Placement
    session: SessionFacts | None
    plan: SessionPlan | None
    warrant: Warrant
    agent: Object

    @property
    def live(self) -> bool:
        run = self.session.view.last_run if self.session is not None and self.session.view is not None else None
        return run is not None and run.state in LIVE_RUN_STATES

    @property
    def claimable(self) -> bool:
        run = self.session.view.last_run if self.session is not None and self.session.view is not None else None
        return run is not None and run.state is RunState.PERMITTED and not run.permit_expired

    @property
    def begun(self) -> bool:
        """Whether it counts as one of the sessions that were spent already."""
        return begun(self.session.view if self.session is not None else None)


class LimitReader:
    """One reader serves all Tasks."""

    def __init__(self, context: Context, warrants: Warrants, policies: LaunchPolicies) -> None:
        self._context = context
        self._warrants = warrants
        self._policies = policies
        self._spending: dict[str, float] = {}
        """Task UID to when what it spends was added up last."""

    async def read(
        self,
        task: Object,
        graph: Object | None,
        node: Object | None,
        decisions: Decisions,
        sessions: Sequence[SessionFacts],
        plans: Mapping[tuple[str, int, int], SessionPlan],
    ) -> Limits:
        """What bars the next run of each placement in force, and which sessions must end."""
        if graph is None or not decisions.placements:
            return Limits()
        subjects = self._subjects(task, graph, node, decisions, sessions, plans)
        if not subjects:
            return Limits()
        spent = await self._spent(subjects)
        timed = any(item.warrant.effective.expires_at is not None for item in subjects)
        now = await self._context.sessions.now() if timed else None
        barred, stops, budgets, most, unsure = {}, [], {}, {}, False
        for item in subjects:
            found = None if item.live else _lacking(item)
            found = found or _over(item, now) or _overspent(item, spent)
            if found is None:
                said = await self._asked(item, (task, graph, node), decisions)
                unsure |= said.unsure
                why = None if item.live and said.unasked else refusal(said)
                found = ("PolicyDenied", why) if why is not None else None
            ended = _narrowed(item) or (found if item.live else None)
            if ended is not None and item.session is not None:
                stops.append(StopSession(item.session, *ended))
            elif found is not None:
                barred[item.placement.key] = found
            budgets[item.placement.key] = _left(item, spent)
            most[item.placement.key] = _most_sessions(item)
        pause = self._pause(task["metadata"]["uid"]) if spent and any(item.live for item in subjects) else None
        return Limits(
            barred, tuple(stops), _again(subjects, now, UNSURE_SECONDS if unsure else None, pause), budgets, most
        )

    def _pause(self, uid: str) -> float:
        """Seconds until what the Task spends is added up again."""
        now = self._context.clock.monotonic()
        self._spending.pop(uid, None)
        self._spending[uid] = now  # so the first is the one that is the longest ago
        pause = max(BUDGET_SECONDS, len(self._spending) / BUDGET_LOOKS)
        while (first := next(iter(self._spending))) != uid and self._spending[first] < now - 2 * pause:
            del self._spending[first]  # it has ended
        return pause

    def _subjects(
        self,
        task: Object,
        graph: Object,
        node: Object | None,
        decisions: Decisions,
        sessions: Sequence[SessionFacts],
        plans: Mapping[tuple[str, int, int], SessionPlan],
    ) -> list[Subject]:
        round_ = len(decisions.rejected) + 1
        producer = decisions.latest("producer", round_)
        found = []
        for placement in ([producer] if producer is not None else []) + list(decisions.panel(round_)):
            agent = self._context.index.by_uid(placement.agent_uid)
            plan = plans.get(placement.key)
            session = serving(sessions, placement, plan.name if plan is not None else None)
            if session is not None and _done(session, placement):
                continue
            if plan is None and session is None:
                continue
            held = plan.warrant if plan is not None else self._warrants.of(graph, node, task, agent)
            # An Agent may be deleted while it works: what is above it limits its session all the same.
            found.append(Subject(placement, session, plan, held, agent or gone_agent(placement, task)))
        return found

    async def _spent(self, subjects: Sequence[Subject]) -> Mapping[str, Spent]:
        """Of every object above that limits an amount; nothing is asked where none does."""
        uids = {level.holder.uid for item in subjects for level, grant in _purses(item) if _limited(grant)}
        return await self._context.sessions.spent(uids) if uids else {}

    async def _asked(
        self, item: Subject, above: tuple[Object, Object, Object | None], decisions: Decisions
    ) -> PolicyDecision:
        return await self._policies.foresee(question(item, above, decisions, self._context))


def question(
    item: Subject, above: tuple[Object, Object, Object | None], decisions: Decisions, context: Context
) -> LaunchQuestion:
    """What Policies are asked of the run that is at work, or would be next."""
    task, graph, node = above
    placement, view = item.placement, item.session.view if item.session is not None else None
    last = view.last_run if view is not None else None
    run = 1 if last is None else last.run + (last.state is not RunState.PERMITTED and not item.live)
    return ask_about(context, (task, graph, node), placement, item.agent, item.warrant, decisions, run)


def ask_about(
    context: Context,
    above: tuple[Object, Object, Object | None],
    placement: Placement,
    agent: Object,
    warrant: Warrant,
    decisions: Decisions,
    run: int,
) -> LaunchQuestion:
    """The question about one run of a placement."""
    producer = decisions.latest("producer", placement.round) if placement.role == "reviewer" else None
    return LaunchQuestion(
        task=above[0],
        graph=above[1],
        node=above[2],
        agent=agent,
        producer=_stored_or_gone(context, producer, above[0]) if producer is not None else None,
        authority=warrant.effective,
        authority_digest=warrant.digest,
        role=placement.role,
        round=placement.round,
        run=run,
    )


def gone_agent(placement: Placement, task: Object) -> Object:
    """Of an Agent that was deleted what is still known. Policies must not take it for one that never was, and what
    they ask of its spec fails."""
    names = {"name": placement.agent_name, "namespace": task["metadata"]["namespace"], "uid": placement.agent_uid}
    return {"kind": "Agent", "metadata": names}


def _stored_or_gone(context: Context, placement: Placement, task: Object) -> Object:
    return context.index.by_uid(placement.agent_uid) or gone_agent(placement, task)


def _lacking(item: Subject) -> tuple[str, str] | None:
    refused = lacking(item.warrant, item.plan.demands) if item.plan is not None else ()
    if not refused:
        return None
    said = "; ".join(map(str, refused[:SHOWN])) + _more(len(refused))
    return "AuthorityExceeded", f"What it needs is not granted: {said}"


def _more(count: int) -> str:
    return f"; and {count - SHOWN} more" if count > SHOWN else ""


def _done(session: SessionFacts, placement: Placement) -> bool:
    runs = [run for run in session.view.runs if run.run_inputs.get("round") == placement.round] if session.view else []
    return any(run.result is not None and run.result.outcome.value == "succeeded" for run in runs)


def _narrowed(item: Subject) -> tuple[str, str] | None:
    """Whether a session that is at work, or may be claimed, has by its frozen work order more than it would be given
    now."""
    if not item.live and not item.claimable:
        return None
    assert item.session is not None
    assert item.session.view is not None
    frozen = item.session.view.offer.work_order.get("authority")
    if frozen is None:
        return None
    found = [
        each for each in holds(item.warrant.effective, Grant.model_validate(frozen)) if each.axis is not Axis.DEPTH
    ]
    if not found:
        return None
    said = "; ".join(map(str, found[:SHOWN])) + _more(len(found))
    return "AuthorityNarrowed", f"Session {item.session.name} was given more than it may have now: {said}"


def _over(item: Subject, now: datetime | None) -> tuple[str, str] | None:
    if now is None or not expired(item.warrant.effective, now):
        return None
    until = item.warrant.effective.expires_at
    return "AuthorityExpired", f"{Axis.EXPIRY.value} {until} is past; {_who_set_the_end(item.warrant)} can change that"


def _who_set_the_end(warrant: Warrant) -> str:
    """Of the chain, the first that sets the time that holds."""
    ends = moment(warrant.effective.expires_at or "")
    for level in (*warrant.work[1:], *warrant.agent[1:]):
        holder, own = level.holder, level.holder.authority
        grants = (own.may_use, own.may_delegate) if own is not None else ()
        if any(grant and grant.expires_at and moment(grant.expires_at) == ends for grant in grants):
            return f"{holder.requester or 'whoever applied it'}, in spec.authority of {holder.kind} {holder.name},"
    return "whoever runs the installation, by TRIPLANE_AUTHORITY,"


def _limited(grant: Grant) -> bool:
    return any(amount(grant, axis) is not None for axis in AMOUNTS)


def _purses(item: Subject) -> list[tuple[Level, Grant]]:
    """Each object above with the amounts that everything beneath it may spend together; for the Task what its
    sessions by this Agent may."""
    *above, task = item.warrant.work[1:]
    return [*((level, level.resolved.may_use) for level in above), (task, item.warrant.effective)]


def _overspent(item: Subject, spent: Mapping[str, Spent]) -> tuple[str, str] | None:
    for level, grant in _purses(item):
        used = spent.get(level.holder.uid)
        for axis, name in SPENDING.items() if used is not None else ():
            limit = amount(grant, axis)
            if limit is None or (axis is Axis.SESSIONS and item.begun):
                continue
            if (so_far := getattr(used, name)) >= limit:
                holder = level.holder
                return "BudgetExceeded", (
                    f"{Excess(axis, f'{so_far} spent', str(limit))}: {holder.kind} {holder.name} has nothing left; "
                    f"{holder.requester or 'whoever applied it'} can raise spec.authority.mayUse.{axis.value} there, "
                    "as far as what is above allows"
                )
    return None


def _most_sessions(item: Subject) -> dict[str, int]:
    found = ((level.holder.uid, amount(grant, Axis.SESSIONS)) for level, grant in _purses(item))
    return {} if item.begun else {uid: limit for uid, limit in found if limit is not None}


def _left(item: Subject, spent: Mapping[str, Spent]) -> dict[str, int]:
    left: dict[str, int] = {}
    for level, grant in _purses(item):
        used = spent.get(level.holder.uid, Spent())
        for axis, name in SPENDING.items():
            limit = amount(grant, axis)
            if limit is not None and axis is not Axis.SESSIONS:
                key = axis.value.removeprefix("budget.")
                left[key] = min(left.get(key, limit), max(limit - getattr(used, name), 0))
    return left


def _again(subjects: Sequence[Subject], now: datetime | None, *others: float | None) -> float | None:
    waits = [each for each in others if each is not None]
    if now is not None:
        ends = (moment(item.warrant.effective.expires_at or "9999-12-31T00:00:00Z") for item in subjects)
        waits += [left for end in ends if 0 < (left := (end - now.astimezone(UTC)).total_seconds()) < 86400]
    return min(waits, default=None)
