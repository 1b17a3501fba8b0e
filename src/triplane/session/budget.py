"""What a run may still spend, counted where the harness cannot reach: by its host.

Tokens and cost are what the harness reports of itself, never less than it said before, and what the host itself knows:
the cost of each call of a tool it made for it. Wall-clock time is the host's own clock. A harness that says nothing is
still bound by time, by the tools' cost and by the number of its sessions (docs/reference/enforcement.md).
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triplane.domain.session import Usage


@dataclass(frozen=True, slots=True)
class Spent:
    """An amount that is spent: more of it was used than was left, or its time is over."""

    axis: str
    limit: int
    used: int

    def __str__(self) -> str:
        return (
            f"{self.axis} is spent: {self.used} used, {self.limit} were left to this run; all of its processes were "
            "killed. Whoever sets the authority of the Task, its Node or Graph may raise it"
        )


class Meter:
    """Counts one run. ``budget`` is the run inputs' member of that name: what is left, absent amounts unlimited."""

    def __init__(self, budget: Mapping[str, Any] | None = None) -> None:
        given = budget or {}
        self._tokens = _amount(given, "tokens")
        self._cost = _amount(given, "costMinorUnits")
        self._seconds = _amount(given, "wallClockSeconds")
        self._reported = Usage()
        self._before = Usage()
        """What earlier programs of the same run reported."""
        self._tools = 0
        self._began: float | None = None
        self._changed = asyncio.Event()

    @property
    def usage(self) -> Usage:
        """What was used up to now."""
        before, said = self._before, self._reported
        return Usage(
            before.input_tokens + said.input_tokens,
            before.output_tokens + said.output_tokens,
            before.cost_minor_units + said.cost_minor_units + self._tools,
        )

    def reported(self, usage: Usage) -> None:
        """The harness says what it has used in this run so far. Saying less than before changes nothing."""
        kept = self._reported
        self._reported = Usage(
            max(kept.input_tokens, usage.input_tokens),
            max(kept.output_tokens, usage.output_tokens),
            max(kept.cost_minor_units, usage.cost_minor_units),
        )
        self._changed.set()

    def charge(self, cost_minor_units: int) -> None:
        """A call of a tool costs this."""
        self._tools += cost_minor_units
        self._changed.set()

    def start(self) -> None:
        """A program runs: the time of the run begins, or goes on. What this one reports comes on top of what the one
        before it did."""
        if self._began is None:
            self._began = _now()
        said, self._reported = self._reported, Usage()
        self._before = Usage(
            self._before.input_tokens + said.input_tokens,
            self._before.output_tokens + said.output_tokens,
            self._before.cost_minor_units + said.cost_minor_units,
        )

    def overspent(self) -> Spent | None:
        """The first of the amounts that were said or charged which is more than was left, if any is."""
        usage = self.usage
        for axis, limit, used in (
            ("budget.tokens", self._tokens, usage.tokens),
            ("budget.costMinorUnits", self._cost, usage.cost_minor_units),
        ):
            if limit is not None and used > limit:
                return Spent(axis, limit, used)
        return None

    def spent(self) -> Spent | None:
        """As ``overspent``, and time, which is over when it is reached."""
        if (spent := self.overspent()) is not None:
            return spent
        seconds = 0.0 if self._began is None else _now() - self._began
        if self._seconds is not None and seconds >= self._seconds:
            return Spent("budget.wallClockSeconds", self._seconds, math.ceil(seconds))
        return None

    def left_of_cost(self) -> int | None:
        """What further calls of tools may cost together, never less than 0; None: no limit."""
        return None if self._cost is None else max(0, self._cost - self.usage.cost_minor_units)

    async def until_spent(self) -> Spent:
        """Wait until an amount is spent; for ever where none is limited."""
        while (spent := self.spent()) is None:
            self._changed.clear()
            left = None
            if self._seconds is not None and self._began is not None:
                left = max(0.0, self._began + self._seconds - _now()) + 0.001
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return spent


def _amount(budget: Mapping[str, Any], name: str) -> int | None:
    value = budget.get(name)
    return None if value is None else int(value)


def _now() -> float:
    return asyncio.get_running_loop().time()
