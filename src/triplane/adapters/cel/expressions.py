"""``triplane.ports.Expressions``: users' conditions, in a worker process (docs/adr/0007-conditions-in-a-worker.md)."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any, Final

import orjson

from triplane.adapters.cel.limits import ANSWER_SECONDS, CPU_SECONDS, MAX_VARIABLES
from triplane.api.work import MAX_CONDITION
from triplane.errors import InvalidExpression, Unavailable

_TIMED_OUT: Final = -signal.SIGPROF


class CelExpressions:
    """One worker process, started when it is first needed and again when it was killed. Requests queue.

    Use it in one event loop. It never blocks it: the worker compiles and evaluates.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: Process | None = None

    async def check(self, expression: str) -> None:
        """See ``Expressions.check``. Raises ``Unavailable`` when no worker can be run."""
        await self._ask(expression, None)

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        """See ``Expressions.evaluate``. Raises ``Unavailable`` when no worker can be run."""
        return bool(await self._ask(expression, variables))

    async def close(self) -> None:
        """End the worker."""
        async with self._turn:
            await self._kill()

    async def _ask(self, expression: str, variables: Mapping[str, Any] | None) -> bool | None:
        if len(expression) > MAX_CONDITION:
            raise _invalid(expression, f"it has {len(expression)} characters, {MAX_CONDITION} are allowed")
        try:
            request = orjson.dumps({"expression": expression, "variables": variables})
        except (TypeError, ValueError) as error:
            raise _invalid(expression, f"its text or its variables are no JSON ({error})") from error
        if len(request) > MAX_VARIABLES:
            raise _invalid(expression, f"the outputs it sees are over {MAX_VARIABLES >> 20} MiB; depend on fewer")
        async with self._turn:
            answer = await self._answer(expression, request)
        if "error" in answer:
            raise _invalid(expression, answer["error"])
        value: bool | None = answer["value"]
        return value

    async def _answer(self, expression: str, request: bytes) -> dict[str, Any]:
        """A worker that died of something else than this request is replaced once before the request is blamed."""
        for _ in range(2):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    line, code = await self._exchange(request)
            except TimeoutError as error:
                await self._kill()
                raise Unavailable(
                    f"the worker for conditions did not answer within {ANSWER_SECONDS:.0f} s; it is tried again"
                ) from error
            except OSError as error:
                await self._kill()
                raise Unavailable(f"no worker for conditions can be started: {error}") from error
            except BaseException:
                await self._kill()  # its answer would be taken for that of the next request
                raise
            if line:
                answer: dict[str, Any] = orjson.loads(line)
                return answer
            if code == _TIMED_OUT:
                raise _invalid(expression, f"it takes more than {CPU_SECONDS} s of CPU time; write it more simply")
        raise _invalid(expression, "its evaluation ends the process (too much memory?); write it more simply")

    async def _exchange(self, request: bytes) -> tuple[bytes, int | None]:
        """One line there and one back; no line and the exit code when the worker has died."""
        process = await self._worker()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(request + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if line.endswith(b"\n"):
            return line, None
        code = await process.wait()
        await self._kill()
        return b"", code

    async def _worker(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            await self._kill()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-m", "triplane.adapters.cel.worker",
                stdin=PIPE, stdout=PIPE, env={}, cwd="/", start_new_session=True,
            )  # fmt: skip
        return self._process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()


def _invalid(expression: str, why: str) -> InvalidExpression:
    shown = expression if len(expression) <= 200 else f"{expression[:200]}…"
    return InvalidExpression(f"the condition `{shown}` cannot be used: {why}")
