"""What keeps a Task's next run from being launched, and what ends one that is at work: authority, Policies, budgets.

None of it is the agent's doing, so none of it fails the Task: it goes on in another session under what is left, or it
is stalled until somebody changes what stands in the way.
"""

from dataclasses import replace
from typing import Final

from triplane.api.meta import State
from triplane.domain.session import LIVE_RUN_STATES
from triplane.domain.task_facts import (
    Launch,
    LineUp,
    OpenSession,
    Placement,
    Plan,
    SessionFacts,
    StopSession,
    TaskFacts,
)
from triplane.domain.task_outlook import blocked
from triplane.domain.task_runs import session_of

_IDLE: Final = frozenset({State.QUEUED, State.RETRYING})


def stop(facts: TaskFacts) -> StopSession | None:
    """The next session that is at work under more than it may have now. A Task that is withdrawn ends all of them."""
    return facts.stops[0] if facts.stops and facts.withdrawn is None else None


def limited(facts: TaskFacts, plan: Plan) -> Plan:
    """The plan, unless what it would launch may not be launched."""
    found = _barred(facts, plan)
    if found is not None:
        return Plan(None, blocked(*found), after=_soonest(plan.after, facts.limits_after))
    return replace(plan, after=_soonest(plan.after, facts.limits_after)) if plan.action is None else plan


def _barred(facts: TaskFacts, plan: Plan) -> tuple[str, str] | None:
    match plan.action:
        case OpenSession(placement):
            return facts.barred.get(placement.key)
        case Launch(session) | LineUp(session):
            return next((facts.barred[key] for key in facts.barred if _serves(facts, session, key)), None)
        case None if plan.outlook.state in _IDLE and plan.outlook.succeeded.reason != "Starting":
            return next((facts.barred[key] for key in facts.barred if not _at_work(facts, key)), None)
    return None


def _serves(facts: TaskFacts, session: SessionFacts, key: tuple[str, int, int]) -> bool:
    placement = _placed(facts, key)
    return placement is not None and (placement.role, placement.agent_uid) == (session.role, session.agent_uid)


def _at_work(facts: TaskFacts, key: tuple[str, int, int]) -> bool:
    placement = _placed(facts, key)
    session = session_of(facts, placement) if placement is not None else None
    run = session.view.last_run if session is not None and session.view is not None else None
    return run is not None and run.state in LIVE_RUN_STATES


def _placed(facts: TaskFacts, key: tuple[str, int, int]) -> Placement | None:
    return next((item for item in facts.decisions.placements if item.key == key), None)


def _soonest(one: float | None, other: float | None) -> float | None:
    return min((each for each in (one, other) if each is not None), default=None)
