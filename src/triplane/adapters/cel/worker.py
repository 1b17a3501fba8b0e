"""The process that compiles and evaluates conditions.

One JSON document a line on standard input, one answer a line on standard output, until the input ends.
"""

import json
import sys
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from triplane.adapters.cel.compiling import Refused, compiled, confine, limited, plain
from triplane.adapters.cel.limits import CPU_SECONDS

_INT64: Final = range(-(1 << 63), 1 << 63)


def main() -> int:
    """Answer until standard input ends."""
    confine()
    for line in sys.stdin.buffer:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()
    return 0


def answer(line: bytes) -> dict[str, Any]:
    """``{"value": bool}`` (None for a check), or ``{"error": why}``."""
    request = json.loads(line, parse_int=_integer)
    try:
        with limited(CPU_SECONDS):
            expression = _compiled(request["expression"])
            variables = request.get("variables")
            return {"value": None if variables is None else _value(expression, variables)}
    except Refused as refusal:
        return {"error": str(refusal)}
    except MemoryError:
        return {"error": "it needs too much memory"}


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
    return compiled(_environment(), expression, cel.Type.BOOL)[0]


def _value(expression: cel.Expression, variables: dict[str, Any]) -> bool:
    try:
        result = expression.eval(data=variables)
    except RuntimeError as error:
        raise Refused(plain(str(error))) from error
    value = result.value()
    if result.type() == cel.Type.ERROR:
        raise Refused(plain(str(value)))
    if not isinstance(value, bool):
        raise Refused(f"its value is of type {result.type().name()}, not bool; compare it with something")
    return value


if __name__ == "__main__":
    sys.exit(main())
