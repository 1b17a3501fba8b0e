"""Arguments against an operation's JSON Schema, without giving the runner away.

A schema comes from a tool's server, arguments from a model: together they may cost any amount of time (regular
expressions hold Python's lock). Small plain schemas are checked here, where the cost is bounded by their size; all
others in a process of their own that is killed when its time is over.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from triplane.errors import TriplaneError

_SECONDS: Final = 3.0
_START_SECONDS: Final = 20.0
_PLAIN: Final = frozenset(
    # what an instance is
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"}
    | {"minItems", "maxItems", "minProperties", "maxProperties", "anyOf", "allOf", "oneOf", "not"}
    # what is said of it
    | {"title", "description", "default", "examples", "$schema", "deprecated", "readOnly", "writeOnly"}
)
"""Keywords without regular expressions, references and comparisons of everything with everything."""
_WORK: Final = 2_000_000
"""Schema nodes times argument octets that are checked in place."""
_LIMIT: Final = 8 * 1024 * 1024


class CannotCheck(TriplaneError):
    """The schema is unusable, or costs too much."""


class ArgumentChecks:
    """The checks of one run. ``close`` it at its end."""

    def __init__(self) -> None:
        self._worker: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def problem(self, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
        """Why the arguments do not fit, with the place; None if they do. Raises ``CannotCheck``."""
        size = len(json.dumps(arguments, ensure_ascii=False))
        nodes = _plain_nodes(schema)
        if nodes is not None and nodes * size <= _WORK:
            return problem_here(schema, arguments)
        async with self._turn:
            try:
                return await self._asked(schema, arguments)
            except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError) as error:
                await self.close()
                raise CannotCheck(
                    f"its arguments cannot be checked against its schema within {_SECONDS:g} s; mend the schema"
                ) from error
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """End the worker. May be called again."""
        worker, self._worker = self._worker, None
        if worker is not None:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()

    async def _asked(self, schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
        if self._worker is None or self._worker.returncode is not None:
            async with asyncio.timeout(_START_SECONDS):
                self._worker = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "triplane.session.tools.checker",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env={"PATH": os.defpath},
                    limit=_LIMIT,
                )
                assert self._worker.stdout is not None
                await self._worker.stdout.readuntil(b"\n")  # it stands
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        line = json.dumps({"schema": schema, "arguments": arguments}, ensure_ascii=True).encode() + b"\n"
        async with asyncio.timeout(_SECONDS):
            self._worker.stdin.write(line)
            await self._worker.stdin.drain()
            answer = json.loads(await self._worker.stdout.readuntil(b"\n"))
        found = answer["problem"]
        return None if found is None else str(found)


def problem_here(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """The check itself, unbounded. What it says is cleaned: it quotes the arguments."""
    from triplane.domain.contract import arguments_problem  # noqa: PLC0415 - only runs with tools need it

    return arguments_problem(arguments, schema)


def _plain_nodes(schema: Any) -> int | None:
    """How many schemas it is made of; None where a keyword is not plain."""
    count, waiting = 0, [schema]
    while waiting:
        each = waiting.pop()
        count += 1
        if isinstance(each, bool):
            continue
        if not isinstance(each, dict) or not _PLAIN.issuperset(each) or count > 2000:
            return None
        count += len(each.get("enum") or ()) if isinstance(each.get("enum"), list) else 0
        properties = each.get("properties", {})
        waiting += properties.values() if isinstance(properties, dict) else [None]
        for key in ("additionalProperties", "items", "not"):
            waiting += [each[key]] if key in each else []
        for key in ("anyOf", "allOf", "oneOf"):
            branches = each.get(key, [])
            waiting += branches if isinstance(branches, list) else [None]
    return count
