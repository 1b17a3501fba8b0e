"""Calls of tools that wait for a person, and the answers."""

from collections.abc import Collection, Sequence
from datetime import UTC
from typing import Any, Final

from triplane.adapters.postgres.sessiondatabase import RING, SessionDatabase, locked_run
from triplane.domain.question import check_question, decide_answer, decide_ask
from triplane.domain.session import Question
from triplane.errors import NotFound

_SELECT = """
SELECT q.session_uid, q.run, q.invocation, q.digest, q.tool, q.approvers, q.asked_at, q.until, q.answer, q.review,
    q.principal, clock_timestamp() FROM sessions.questions q
"""
QUESTION: Final = _SELECT + "WHERE q.session_uid = %s AND q.invocation = %s FOR UPDATE"
QUESTIONS: Final = _SELECT + "WHERE q.session_uid = ANY (%s) ORDER BY q.session_uid, q.asked_at, q.invocation"
NOW: Final = "SELECT clock_timestamp()"
ASK: Final = """
INSERT INTO sessions.questions (session_uid, run, invocation, digest, tool, approvers, asked_at, until)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
ANSWER: Final = """
UPDATE sessions.questions SET answer = %s, review = %s, principal = %s WHERE session_uid = %s AND invocation = %s
"""


class Questions(SessionDatabase):
    """``SessionStore.ask``, ``answer`` and ``questions``."""

    async def ask(self, question: Question) -> Question:
        """See ``SessionStore.ask``."""
        check_question(question)
        uid, invocation = question.session_uid, question.invocation
        async with self._transaction(f"ask about invocation {invocation} of session {uid}") as connection:
            run = await locked_run(connection, uid, question.run)
            row = await (await connection.execute(QUESTION, (uid, invocation))).fetchone()
            kept = None if row is None else _question(row)
            now = await (await connection.execute(NOW)).fetchone()
            assert now is not None  # it selects one row
            made = decide_ask(run, kept, question, now[0].astimezone(UTC))
            if made is None:
                assert kept is not None  # the rule keeps what there is
                return kept
            asked = (made.digest, made.tool, list(made.approvers), made.asked_at, made.until)
            await connection.execute(ASK, (uid, made.run, invocation, *asked))
            await connection.execute(RING)
            return made

    async def answer(self, session_uid: str, invocation: str, *, approved: bool, review: str, principal: str) -> bool:
        """See ``SessionStore.answer``."""
        async with self._transaction(f"answer invocation {invocation} of session {session_uid}") as connection:
            row = await (await connection.execute(QUESTION, (session_uid, invocation))).fetchone()
            if row is None:
                raise NotFound(f"session {session_uid} has asked nothing about an invocation {invocation}")
            if not decide_answer(_question(row), row[-1]):
                return False
            await connection.execute(ANSWER, (approved, review, principal, session_uid, invocation))
            await connection.execute(RING)
            return True

    async def questions(self, session_uids: Collection[str]) -> Sequence[Question]:
        """See ``SessionStore.questions``."""
        return [_question(row) for row in await self._rows(QUESTIONS, (list(session_uids),))] if session_uids else []


def _question(row: tuple[Any, ...]) -> Question:
    uid, run, invocation, digest, tool, approvers, asked_at, until, *answered, _now = row
    times = (asked_at.astimezone(UTC), until.astimezone(UTC))
    return Question(uid, run, invocation, digest, tool, tuple(approvers), *times, *answered)
