"""CEL in this process: the worker's own code without the worker, so that a history has no real time in it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from triplane.adapters.cel.policies import CelPolicies
from triplane.adapters.cel.policyworker import Worker
from triplane.adapters.cel.process import WorkerProcess
from triplane.adapters.cel.worker import answer
from triplane.errors import InvalidExpression


class InlineExpressions:
    """``triplane.ports.Expressions``."""

    async def check(self, expression: str) -> None:
        self._ask(expression, None)

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        return bool(self._ask(expression, variables))

    @staticmethod
    def _ask(expression: str, variables: Mapping[str, Any] | None) -> bool | None:
        said = answer(orjson.dumps({"expression": expression, "variables": variables}))
        if "error" in said:
            raise InvalidExpression(said["error"])
        value: bool | None = said["value"]
        return value


class InlineWorker(WorkerProcess):
    """The code of the worker for Policies, in this process."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.starts = 1
        self._worker = Worker(bytearray(4))

    async def ready(self) -> None: ...

    async def exchange(self, request: bytes) -> tuple[bytes, int | None]:
        return self._worker.answer(orjson.loads(request)) + b"\n", None

    async def close(self) -> None: ...


def inline_policies() -> CelPolicies:
    """``triplane.ports.PolicyEngine``: the real one, without the process."""
    return CelPolicies(InlineWorker())
