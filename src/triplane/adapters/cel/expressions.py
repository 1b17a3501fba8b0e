"""``triplane.ports.Expressions``: users' conditions, in a worker process (docs/adr/0007-conditions-in-a-worker.md)."""

from collections.abc import Mapping
from typing import Any

import orjson

from triplane.adapters.cel.limits import CPU_SECONDS, MAX_VARIABLES
from triplane.adapters.cel.process import TIMED_OUT, WorkerProcess
from triplane.api.work import MAX_CONDITION
from triplane.errors import InvalidExpression


class CelExpressions:
    """One worker process, started when it is first needed and again when it was killed. Requests queue.

    Use it in one event loop. It never blocks it: the worker compiles and evaluates.
    """

    def __init__(self) -> None:
        self._worker = WorkerProcess("triplane.adapters.cel.worker", "conditions")

    async def check(self, expression: str) -> None:
        """See ``Expressions.check``. Raises ``Unavailable`` when no worker can be run."""
        await self._ask(expression, None)

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        """See ``Expressions.evaluate``. Raises ``Unavailable`` when no worker can be run."""
        return bool(await self._ask(expression, variables))

    async def close(self) -> None:
        """End the worker."""
        await self._worker.close()

    async def _ask(self, expression: str, variables: Mapping[str, Any] | None) -> bool | None:
        if len(expression) > MAX_CONDITION:
            raise _invalid(expression, f"it has {len(expression)} characters, {MAX_CONDITION} are allowed")
        try:
            request = orjson.dumps({"expression": expression, "variables": variables})
        except (TypeError, ValueError) as error:
            raise _invalid(expression, f"its text or its variables are no JSON ({error})") from error
        if len(request) > MAX_VARIABLES:
            raise _invalid(expression, f"the outputs it sees are over {MAX_VARIABLES >> 20} MiB; depend on fewer")
        async with self._worker.turn:
            answer = await self._answer(expression, request)
        if "error" in answer:
            raise _invalid(expression, answer["error"])
        value: bool | None = answer["value"]
        return value

    async def _answer(self, expression: str, request: bytes) -> dict[str, Any]:
        """A worker that died of something else than this request is replaced once before the request is blamed."""
        for _ in range(2):
            line, code = await self._worker.exchange(request)
            if line:
                answer: dict[str, Any] = orjson.loads(line)
                return answer
            if code == TIMED_OUT:
                raise _invalid(expression, f"it takes more than {CPU_SECONDS} s of CPU time; write it more simply")
        raise _invalid(expression, "its evaluation ends the process (too much memory?); write it more simply")


def _invalid(expression: str, why: str) -> InvalidExpression:
    shown = expression if len(expression) <= 200 else f"{expression[:200]}…"
    return InvalidExpression(f"the condition `{shown}` cannot be used: {why}")
