"""CEL in this process: the worker's own code without the worker, so that a history has no real time in it."""

from collections.abc import Mapping
from typing import Any

import orjson

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
