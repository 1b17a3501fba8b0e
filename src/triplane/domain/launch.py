"""Whether a permit may be written and whether a run may be claimed: the rules behind ``SessionStore``.

Every backend gathers the same facts under its own locks and asks here, so that no two backends differ in a
rule.

A permit costs reads of the API server and an entry in the log, and lives ten seconds. So only a few are given
ahead of demand (``may_permit``); the other sessions wait until a claim asks for them, and claims ask for as many
ahead as they are fast (``lookahead``).
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from triplane.domain.session import (
    PERMIT_SECONDS,
    Claim,
    HeldBy,
    Offer,
    Outstanding,
    Permit,
    RunState,
    RunView,
    SessionView,
)
from triplane.errors import InvalidInput, PermitRefused

EAGER_PERMITS: Final = 8
"""Valid permits that may lie ready without a runner having asked."""
ASKED_SECONDS: Final = 1.0
"""How long a session that was asked for counts as on its way; after that another is asked for too."""
PACE_SECONDS: Final = 2.0
"""Time constant with which past claims fade from the pace."""
MOST_AHEAD: Final = 8


@dataclass(frozen=True, slots=True)
class StoredPermit:
    """A permit as the store keeps it, by the store's clock."""

    counter: int
    revocation_revision: int
    """At which it was decided; held against the ``Bar`` of its session."""
    since: datetime
    seconds: float

    def valid_at(self, now: datetime) -> bool:
        """A clock that was set back ends a permit rather than prolonging it."""
        return self.since <= now < self.since + timedelta(seconds=self.seconds)

    def usable(self, revision: int, now: datetime) -> bool:
        """Valid, and decided after the last revocation or voiding that concerns it, which was ``revision``."""
        return self.valid_at(now) and self.revocation_revision >= revision


@dataclass(frozen=True, slots=True)
class Bar:
    """What permits of a session are held against: the newest revocation among the sessions of its Task, or the newest
    ``void_permits`` that concerns its namespace, whichever is newer."""

    revision: int = 0
    reason: str | None = None
    """Why permits were voided; None after a revocation."""

    @classmethod
    def newest(cls, revoked: int, *voids: "Bar") -> "Bar":
        """Of the revocation with this revision and these."""
        return max((cls(revoked), *voids), key=lambda bar: bar.revision)


@dataclass(frozen=True, slots=True)
class ClaimRefusal:
    """Why a run may not be claimed now."""

    why: str
    wanted: bool = False
    """True when only a fresh permit is missing: the operator should decide anew."""


def may_permit(outstanding: Outstanding) -> bool:
    """Whether a first run may be permitted though no runner has asked for it.

    A Graph that has nothing yet is not kept waiting by what others have lying ready, within twice as much.
    """
    most = EAGER_PERMITS if outstanding.of_graph else 2 * EAGER_PERMITS
    return outstanding.permits < most


def may_launch(session: SessionView, outstanding: Outstanding | None) -> bool:
    """Whether the operator permits the session's next run by itself. A first run waits to be asked for, and so does
    what was passed over: thousands may be resumed at once. One that follows another comes no faster than runs end.
    ``outstanding`` may be left out where ``waits_to_be_asked`` is false."""
    if not waits_to_be_asked(session):
        return True
    return session.held_by is None and outstanding is not None and may_permit(outstanding)


def waits_to_be_asked(session: SessionView) -> bool:
    """Whether its next run is permitted ahead of demand only within the limit of ``may_permit``."""
    return not session.wanted and (session.passed_over or (session.in_line and not session.runs))


def pace_after(pace: float, elapsed_seconds: float, *, claims: int = 0) -> float:
    """The fading count of claims: what it was ``elapsed_seconds`` ago, faded, and ``claims`` more."""
    return pace * math.exp(-max(elapsed_seconds, 0.0) / PACE_SECONDS) + claims


def lookahead(pace: float, *, waiting: bool) -> int:
    """Permits to have ready or asked for after a claim: half a second's worth of claims; at least one if a runner
    went away with nothing (``waiting``)."""
    return max(int(waiting), min(MOST_AHEAD, int(pace / PACE_SECONDS / 2)))


def held_by(live_of_agent: int, agent_limit: int | None, live: int, global_limit: int | None) -> HeldBy | None:
    """The limit that is reached."""
    if agent_limit is not None and live_of_agent >= agent_limit:
        return HeldBy.AGENT_LIMIT
    if global_limit is not None and live >= global_limit:
        return HeldBy.GLOBAL_LIMIT
    return None


def check_limit(most: int | None) -> None:
    """Raise ``InvalidInput`` for a limit that would let nothing run for ever."""
    if most is not None and most < 1:
        raise InvalidInput(f"a limit of {most} live runs would hold everything for ever; suspend instead")


def check_void(namespace: str | None, reason: str) -> None:
    """Raise ``InvalidInput`` where it would stay untold whose permits are void, and why."""
    if namespace == "" or not reason:
        raise InvalidInput(f"permits are voided in a namespace or (None) everywhere, for a reason; not {namespace!r}")


def check_permit(permit: Permit) -> None:
    """Refuse a permit no session could use. Raises ``InvalidInput``."""
    check_limit(permit.agent_limit)
    if not 0 <= permit.seconds <= PERMIT_SECONDS:
        raise InvalidInput(
            f"a permit lives at most {PERMIT_SECONDS} seconds, not {permit.seconds}; decide again later instead"
        )
    if permit.run < 1 or permit.counter < 1:
        raise InvalidInput(
            f"run {permit.run} and permit counter {permit.counter} of session {permit.session_uid}: both count from 1"
        )


def decide_permit(session: SessionView | None, permit: Permit) -> bool:
    """True: write it. False: that run was claimed or ended, or a permit as new is there. Raises
    ``PermitRefused``."""
    uid = permit.session_uid
    if session is None:
        raise PermitRefused(f"session {uid} was never offered; offer it before permitting a run")
    if session.revoked is not None:
        raise PermitRefused(f"session {uid} is revoked ({session.revoked}); it gets no further run")
    if session.closed:
        raise PermitRefused(f"session {uid} is closed; it gets no further run")
    if permit.snapshot_digest != session.offer.snapshot_digest:
        raise PermitRefused(
            f"session {uid} froze snapshot {session.offer.snapshot_digest}, the permit was decided on "
            f"{permit.snapshot_digest}; a new snapshot needs a new session"
        )
    last = session.last_run
    newest = 0 if last is None else last.run
    if permit.run <= newest:
        run = session.runs[permit.run - 1]
        return run.state is RunState.PERMITTED and permit.counter > run.permit_counter
    if permit.run > newest + 1:
        raise PermitRefused(f"session {uid}: run {permit.run} is not the next one, which is run {newest + 1}")
    if last is not None and last.state not in (RunState.FINISHED, RunState.LOST):
        raise PermitRefused(
            f"session {uid}: run {last.run} is {last.state}; run {permit.run} may follow when it is finished or lost"
        )
    return True


def decide_claim(
    session: SessionView | None, run: int, permit: StoredPermit | None, *, bar: Bar, now: datetime
) -> ClaimRefusal | None:
    """None: hand it out. ``permit`` is that of the run, ``bar`` that of the session; all read under lock."""
    if session is None:
        return ClaimRefusal("it was never offered")
    uid = session.offer.session_uid
    if (why := _out_of_line(session)) is not None:
        return ClaimRefusal(f"session {uid} is {why}")
    view = next((view for view in session.runs if view.run == run), None)
    if view is None or permit is None:
        permitted = ", ".join(str(view.run) for view in session.runs) or "none"
        return ClaimRefusal(f"session {uid} has no permit for run {run} (permitted so far: {permitted})")
    if view.state is not RunState.PERMITTED:
        return ClaimRefusal(f"run {run} of session {uid} is {view.state}: a run is handed out once")
    if not permit.valid_at(now):
        return ClaimRefusal(
            f"permit {permit.counter} of run {run} of session {uid} has expired; a new one was asked for",
            wanted=True,
        )
    if permit.revocation_revision < bar.revision:
        why = f" ({bar.reason})" if bar.reason else ""
        return ClaimRefusal(
            f"permit {permit.counter} of run {run} of session {uid} was decided at revocation revision "
            f"{permit.revocation_revision}, now it is {bar.revision}{why}; a new one was asked for",
            wanted=True,
        )
    if session.held_by is HeldBy.AGENT_LIMIT:
        return ClaimRefusal(f"agent {session.offer.agent_name} has as many live runs as its maxConcurrentSessions")
    if session.held_by is HeldBy.GLOBAL_LIMIT:
        return ClaimRefusal("there are as many live runs as max_concurrent_sessions allows")
    return None


def _out_of_line(session: SessionView) -> str | None:
    if session.revoked is not None:
        return f"revoked: {session.revoked}"
    if session.closed:
        return "closed: it gets no further run"
    return "held back, such as by suspend: it gets a permit when it may go on" if session.passed_over else None


def claim_of(offer: Offer, view: RunView, runner: str, instance: str) -> Claim:
    """What the runner is handed for this run of the offered session."""
    return Claim(
        session_uid=offer.session_uid,
        namespace=offer.namespace,
        name=offer.name,
        task_uid=offer.task_uid,
        graph_uid=offer.graph_uid,
        agent_uid=offer.agent_uid,
        agent_name=offer.agent_name,
        role=offer.role,
        run=view.run,
        permit_counter=view.permit_counter,
        runner=runner,
        instance=instance,
        work_order=offer.work_order,
        run_inputs=view.run_inputs,
    )
