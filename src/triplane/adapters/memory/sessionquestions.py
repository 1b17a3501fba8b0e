"""Calls of tools that wait for a person, and the answers; twin of Postgres'."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from triplane.adapters.memory.sessionmemory import SessionMemory
from triplane.domain.question import check_question, decide_answer, decide_ask
from triplane.domain.session import Question
from triplane.errors import NotFound
from triplane.ports import Clock


class Questions(SessionMemory):
    """``SessionStore.ask``, ``answer`` and ``questions``."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._questions: dict[tuple[str, str], Question] = {}

    async def ask(self, question: Question) -> Question:
        """See ``SessionStore.ask``."""
        check_question(question)
        key = (question.session_uid, question.invocation)
        run, kept = self._known(question.session_uid, question.run), self._questions.get(key)
        made = decide_ask(run, kept, question, self._clock.now())
        if made is not None:
            self._questions[key] = made
            self._ring()
        return self._questions[key]

    async def answer(self, session_uid: str, invocation: str, *, approved: bool, review: str, principal: str) -> bool:
        """See ``SessionStore.answer``."""
        kept = self._questions.get((session_uid, invocation))
        if kept is None:
            raise NotFound(f"session {session_uid} has asked nothing about an invocation {invocation}")
        if not decide_answer(kept, self._clock.now()):
            return False
        answered = replace(kept, answer=approved, review=review, principal=principal)
        self._questions[session_uid, invocation] = answered
        self._ring()
        return True

    async def questions(self, session_uids: Collection[str]) -> Sequence[Question]:
        """See ``SessionStore.questions``."""
        found = [question for question in self._questions.values() if question.session_uid in session_uids]
        return sorted(found, key=lambda question: (question.session_uid, question.asked_at, question.invocation))
