"""In the workers: compiles CEL, refuses what could cost too much, and says what is wrong in one line.

A worker holds nothing: no credentials, no connection, an empty environment. It may be killed at any time, and the
kernel kills it over its CPU limit (``ITIMER_PROF``: CPU time, so that a machine under load fails nobody).
"""

import mmap
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cel_expr_python import cel

from triplane.adapters.cel.limits import MAX_NESTING, MEMORY
from triplane.adapters.cel.nesting import UnknownForm, nesting

_FRAME: Final = re.compile(r"^(?:[A-Z_]+: )*(?:<input>:)?| \[[A-Z_]+\]$")


class Refused(ValueError):
    """The expression cannot be used; says why."""


def confine() -> mmap.mmap:
    """Take on the limits of a worker; returns the memory shared with whoever asks (``WorkerProcess.place``)."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    return mmap.mmap(int(sys.argv[1]), 4)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """The kernel ends the process when the body uses more CPU time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def compiled(environment: cel.Env, expression: str, wanted: cel.Type | None) -> tuple[cel.Expression, bytes]:
    """The expression and its checked form. ``wanted`` is the type of its value, None for any that can be handed on.

    Raises ``Refused``, with line and column where the compiler tells them.
    """
    try:
        found = environment.compile(expression)
    except RuntimeError as error:
        raise Refused(plain(str(error))) from error
    kind = found.return_type()
    if wanted is not None and kind not in (wanted, cel.Type.DYN):
        raise Refused(f"its value is of type {kind.name()}, not {wanted.name().lower()}; {_REMEDY[wanted.name()]}")
    if wanted is None and "optional_type" in kind.name():
        raise Refused(f"its value is of type {kind.name()}; say what it is otherwise, with orValue")
    checked = found.serialize()
    try:
        depth = nesting(checked)
    except UnknownForm as error:
        raise Refused(f"its cost cannot be bounded: {error}; write it more simply") from error
    if depth > MAX_NESTING:
        raise Refused(
            f"{depth} comprehensions (all, exists, exists_one, filter, map) are nested, {MAX_NESTING} are allowed"
        )
    return found, checked


_REMEDY: Final = {"BOOL": "compare it with something", "STRING": "make it text with string()"}


def value_of(result: cel.Value) -> object:
    """The plain value. Raises ``Refused`` when the evaluation failed."""
    try:
        value: object = result.plain_value()
    except (TypeError, RuntimeError) as error:
        raise Refused(f"its value, of type {result.type().name()}, cannot be used here") from error
    if not isinstance(value, bool) and result.type() == cel.Type.ERROR:  # asking for the type is not for nothing
        raise Refused(plain(str(value)))
    return value


def plain(message: str) -> str:
    """The first complaint, without the frame around it."""
    line = message.split("\n", 1)[0]
    return _FRAME.sub("", line)[:400]
