"""The process that compiles and evaluates; it may be killed at any time, and kills itself over its CPU limit.

One JSON document a line on standard input, one answer a line on standard output, until the input ends. The limit is
CPU time (``ITIMER_PROF``: the kernel ends the process when it is used up), so that a machine under load fails nobody's
condition. It holds nothing: no credentials, no connection, an empty environment.
"""

import json
import re
import resource
import signal
import sys
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from triplane.adapters.cel.limits import CPU_SECONDS, MAX_NESTING, MEMORY
from triplane.adapters.cel.nesting import UnknownForm, nesting

_FRAME: Final = re.compile(r"^(?:[A-Z_]+: )*(?:<input>:)?| \[[A-Z_]+\]$")
_INT64: Final = range(-(1 << 63), 1 << 63)


class Refused(ValueError):
    """The expression cannot be used; says why."""


def main() -> int:
    """Answer until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()
    return 0


def answer(line: bytes) -> dict[str, Any]:
    """``{"value": bool}`` (None for a check), or ``{"error": why}``."""
    request = json.loads(line, parse_int=_integer)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        expression = _compiled(request["expression"])
        variables = request.get("variables")
        return {"value": None if variables is None else _value(expression, variables)}
    except Refused as refusal:
        return {"error": str(refusal)}
    except MemoryError:
        return {"error": "it needs too much memory"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _integer(text: str) -> int | float:
    """CEL's integers have 64 bits; a larger one is as good as a double (RFC 8259, section 6)."""
    number = int(text) if len(text) <= 20 else float(text)
    return number if isinstance(number, float) or number in _INT64 else float(text)


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    text = cel.Type.STRING
    return cel.NewEnv(variables={"steps": cel.Type.Map(text, cel.Type.DYN), "parameters": cel.Type.Map(text, text)})


@lru_cache(maxsize=512)
def _compiled(expression: str) -> cel.Expression:
    try:
        compiled = _environment().compile(expression)
    except RuntimeError as error:
        raise Refused(_plain(str(error))) from error
    kind = compiled.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise Refused(f"its value is of type {kind.name()}, not bool; compare it with something")
    try:
        depth = nesting(compiled.serialize())
    except UnknownForm as error:
        raise Refused(f"its cost cannot be bounded: {error}; write it more simply") from error
    if depth > MAX_NESTING:
        raise Refused(
            f"{depth} comprehensions (all, exists, exists_one, filter, map) are nested, {MAX_NESTING} are allowed"
        )
    return compiled


def _value(expression: cel.Expression, variables: dict[str, Any]) -> bool:
    try:
        result = expression.eval(data=variables)
    except RuntimeError as error:
        raise Refused(_plain(str(error))) from error
    value = result.value()
    if result.type() == cel.Type.ERROR:
        raise Refused(_plain(str(value)))
    if not isinstance(value, bool):
        raise Refused(f"its value is of type {result.type().name()}, not bool; compare it with something")
    return value


def _plain(message: str) -> str:
    """The first complaint, without the frame around it."""
    line = message.split("\n", 1)[0]
    return _FRAME.sub("", line)[:400]


if __name__ == "__main__":
    sys.exit(main())
