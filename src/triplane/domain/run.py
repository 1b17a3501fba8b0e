"""What may still happen to a run once it was claimed: the rules behind ``SessionStore``'s run operations.

As with ``launch``: backends gather under their own locks, decide here, then apply.
"""

from typing import Final

from triplane.domain.session import LIVE_RUN_STATES, RecordReceipt, RunResult, RunState, RunView
from triplane.errors import Conflict, SequenceGap

INSTANCE_REPLACED: Final = "RunnerRestarted"
"""End reason of runs whose runner process was replaced by a new one."""


def decide_start(session_uid: str, view: RunView) -> bool:
    """True: record the start. False: it is recorded. Raises ``Conflict`` when the run is not live."""
    if view.started_at is not None:
        return False
    if view.state is not RunState.CLAIMED:
        raise Conflict(f"{_name(session_uid, view)} cannot start: it is {_state(view)}")
    return True


def decide_renewal(session_uid: str, view: RunView) -> str | None:
    """Why the run has ended without its host's doing, None while it is live.

    Raises ``Conflict`` when nobody has claimed it, and when it is finished.
    """
    if view.state is RunState.PERMITTED:
        raise Conflict(f"{_name(session_uid, view)} has no lease to renew: nobody has claimed it")
    if view.state is RunState.FINISHED:
        raise Conflict(f"{_name(session_uid, view)} has no lease to renew: it is {_state(view)}")
    if view.state in (RunState.LOST, RunState.REVOKED):
        return view.end_reason or view.state.value
    return None


def decide_record(session_uid: str, view: RunView, sequence: int, digest: str, recorded: str | None) -> RecordReceipt:
    """The receipt; ``first`` says that the segment is to be noted. ``recorded`` is what is noted under its
    number.

    Raises ``Conflict`` (other digest, or a new segment of a run not live) and ``SequenceGap``.
    """
    if recorded is not None:
        if recorded != digest:
            raise Conflict(
                f"{_name(session_uid, view)}: segment {sequence} is {recorded}, not {digest}; what is noted stays"
            )
        return RecordReceipt(sequence, digest, first=False)
    if view.state not in LIVE_RUN_STATES:
        raise Conflict(f"{_name(session_uid, view)} takes no further segment: it is {_state(view)}")
    expected = view.records + 1
    if sequence != expected:
        raise SequenceGap(
            f"{_name(session_uid, view)}: segment {sequence} came, {expected} is next; send {expected} first",
            expected=expected,
        )
    return RecordReceipt(sequence, digest, first=True)


def decide_finish(session_uid: str, view: RunView, result: RunResult) -> bool:
    """True: record the result. False: the same is recorded. Raises ``Conflict`` when the run ended otherwise."""
    if view.state in LIVE_RUN_STATES:
        return True
    if view.state is RunState.FINISHED and view.result == result:
        return False
    raise Conflict(f"{_name(session_uid, view)} cannot finish with {result.outcome.value}: it is {_state(view)}")


def _name(session_uid: str, view: RunView) -> str:
    return f"run {view.run} of session {session_uid}"


def _state(view: RunView) -> str:
    if view.result is not None:
        return f"{view.state.value} with {view.result.outcome.value} ({view.result.reason})"
    return view.state.value + (f" ({view.end_reason})" if view.end_reason else "")
