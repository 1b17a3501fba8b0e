"""Runs a contract's suites against one backend and tells, rule by rule, what held."""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from triplane.conformance.suites import contract_of, factory_of
from triplane.errors import InvalidInput

_INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
addopts = -p no:cacheprovider -p triplane.conformance.binding --import-mode=importlib
filterwarnings = error
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the contract, and whether the backend keeps it."""

    suite: str
    sentence: str
    held: bool
    why: str
    """The end of what pytest says of a failure; empty when it held."""
    seconds: float


class _Listener:
    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self._failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A rule fails once: in its test, or before or behind it."""
        if report.failed and report.nodeid not in self._failed:
            self._failed.add(report.nodeid)
            self.rules = [rule for rule in self.rules if (rule.suite, rule.sentence) != _named(report.nodeid)]
            self.rules.append(Rule(*_named(report.nodeid), False, _why(report), report.duration))
        elif report.when == "call" and report.passed:
            self.rules.append(Rule(*_named(report.nodeid), True, "", report.duration))


async def run(contract: str, backend: str, *, verbose: bool = False, only: str = "") -> Sequence[Rule]:
    """Every rule, in order. ``only``: those whose sentence has these words (pytest's ``-k``). ``verbose`` lets pytest
    print whole tracebacks. Raises ``InvalidInput`` when nothing could be run."""
    suites = contract_of(contract)
    await _try_out(backend, suites.needs)
    listener = _Listener()
    folder = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="triplane-conformance-") as scratch:
        ini = Path(scratch) / "pytest.ini"
        ini.write_text(_INI)
        arguments = [
            *("-c", str(ini), f"--rootdir={folder}", f"--basetemp={scratch}/tmp", "--backend", backend),
            *(["-q"] if verbose else ["-p", "no:terminal"]),
            *(["-k", only] if only else []),
            *(str(folder / f"{module}.py") for module in suites.modules),
        ]
        code = await asyncio.to_thread(pytest.main, arguments, [listener])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not listener.rules:
        raise InvalidInput(f"the suite of {contract} could not be run (pytest ended with {code!r}): run with --verbose")
    return listener.rules


async def _try_out(backend: str, needs: Sequence[str]) -> None:
    """Open it once, so that a factory that cannot work is one sentence and not a hundred failures."""
    opening = factory_of(backend)
    try:
        async with opening() as subject:
            lacking = [name for name in needs if not hasattr(subject, name)]
    except Exception as error:
        raise InvalidInput(f"the backend {backend} cannot be opened: {type(error).__name__}: {error}") from error
    if lacking:
        raise InvalidInput(f"the backend {backend} opened a {type(subject).__name__} without {', '.join(lacking)}")


def _named(nodeid: str) -> tuple[str, str]:
    path, _, test = nodeid.partition("::")
    name, _, case = test.removeprefix("test_").partition("[")
    sentence = name.replace("_", " ") + (f" ({case.removesuffix(']')})" if case else "")
    return Path(path).stem, sentence


def _why(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message if crash is not None else report.longrepr or "")
    told = next((line for line in text.splitlines() if line.strip()), "it failed")
    return told if report.when == "call" else f"{report.when}: {told}"
