"""Decisions that are final, kept in memory: of a Task that is over the log never says anything new."""

from collections import OrderedDict
from typing import Final

from triplane.domain.task_facts import Decisions

LIMIT: Final = 20_000
"""Tasks whose end is kept in mind; about a kilobyte each."""


class Decided:
    """By UID of the Task; the ones used longest ago are let go."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Decisions] = OrderedDict()

    def get(self, uid: str) -> Decisions | None:
        """What was decided, if it is final and kept."""
        found = self._kept.get(uid)
        if found is not None:
            self._kept.move_to_end(uid)
        return found

    def note(self, uid: str, decisions: Decisions) -> None:
        """Keep it if it is final."""
        if not decisions.over:
            return
        self._kept[uid] = decisions
        self._kept.move_to_end(uid)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)
