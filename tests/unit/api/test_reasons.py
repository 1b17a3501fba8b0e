"""The list of reasons is the whole list: every one the code can give is documented, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import triplane
from triplane.api.reasons import REASONS

SOURCE = Path(triplane.__file__).parent
# Calls that put a reason into a condition, a run result or an Event, and the place of the reason among the arguments.
GIVES_A_REASON = {
    "Finding": 2, "blocked": 0, "in_run": 0, "in_review": 0, "FailTask": 0, "VerdictVoid": 0, "waiting": 0,
    "Problem": 0, "cancelled": 0,
    "SkipTask": 0, "Unmergeable": 0, "refused": 0, "failed": 0, "RunEndsEarly": 1,
    "Result": 1, "RunResult": 1, "_emit": 2,
}  # fmt: skip
FOLDERS = ("domain", "controllers", "session", "gateway")
WORD = re.compile(r"[A-Z][a-z]+([A-Z][a-z]*)*")


def _given() -> Iterator[tuple[str, str]]:
    """``(reason, where)`` for every literal reason in the code, in both arms of a conditional too."""
    for folder in FOLDERS:
        for path in sorted((SOURCE / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield from ((reason, f"{path.name}:{node.lineno}") for reason in _of_call(node))
                elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and node.value.elts:
                    yield from ((reason, f"{path.name}:{node.lineno}") for reason in _literals(node.value.elts[0]))


def _of_call(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    place = GIVES_A_REASON.get(name)
    if place is not None and len(node.args) > place:
        yield from _literals(node.args[place])
    if name == "append" and node.args and isinstance(node.args[0], ast.Tuple) and node.args[0].elts:
        yield from _literals(node.args[0].elts[0])


def _literals(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _literals(node.body)
        yield from _literals(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and WORD.fullmatch(node.value):
        yield node.value


def test_every_reason_the_code_gives_is_documented() -> None:
    undocumented = sorted({f"{reason} ({where})" for reason, where in _given() if reason not in REASONS})
    assert undocumented == []


def test_every_documented_reason_is_in_the_code() -> None:
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "reasons.py")
    assert [reason for reason in REASONS if f'"{reason}"' not in text] == []


def test_reasons_say_what_and_who() -> None:
    assert all(reason.meaning.endswith(".") and reason.act for reason in REASONS.values())
