"""A call of a tool that waits for a person: when it may be asked, and when an answer counts.

The rules behind ``SessionStore.ask`` and ``answer``; as with ``launch``, backends gather under their own locks, decide
here, then apply.
"""

from dataclasses import replace
from datetime import datetime

from triplane.domain.session import LIVE_RUN_STATES, Question, RunView
from triplane.errors import Conflict, InvalidInput


def check_question(question: Question) -> None:
    """Raise ``InvalidInput`` for one that nobody could answer."""
    if not question.invocation:
        raise InvalidInput(f"a question of session {question.session_uid} names no invocation")
    if question.until <= question.asked_at:
        raise InvalidInput(f"{_name(question)} has no time to be answered in: until {question.until}")
    if not question.approvers:
        raise InvalidInput(f"{_name(question)} names nobody who may answer")


def decide_ask(run: RunView, kept: Question | None, question: Question, now: datetime) -> Question | None:
    """What to keep; None: ``kept`` stays, with its answer. Raises ``Conflict``: another call bears this name, or the
    run is not live.

    A later run of the session must ask under a name of its own: leave was given for one call, not for each that looks
    like it.
    """
    if kept is not None:
        if (kept.digest, kept.run) == (question.digest, question.run):
            return None
        raise Conflict(
            f"{_name(question)} was asked by run {kept.run} for {kept.digest}, now by run {question.run} for "
            f"{question.digest}; another call needs a name of its own"
        )
    if run.state not in LIVE_RUN_STATES:
        raise Conflict(f"{_name(question)} cannot be asked: run {question.run} is {run.state.value}")
    until = now + (question.until - question.asked_at)
    return replace(question, asked_at=now, until=until, answer=None, review=None, principal=None)


def decide_answer(kept: Question, now: datetime) -> bool:
    """Whether an answer given now counts: the first, in time."""
    return kept.answer is None and now < kept.until


def _name(question: Question) -> str:
    return f"invocation {question.invocation} of session {question.session_uid}"
