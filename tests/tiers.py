"""Runs every tier and fails when one was skipped: a tier that could not run proves nothing.

``python -m tests.tiers [pytest arguments]``

The tiers that compute and those that wait for whole installations run beside each other, each lane in a process of its
own; every line of the output begins with its lane.

Tests of whole installations share two cores with the API server they ask, so one in thousands may meet an instant it
did not foresee. What fails in those tiers is run once more by itself, in a new process, and is named as flaky when it
then passes; more than ``MOST_FLAKY``, and anything in the other tiers, fails the run at once.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LANES = {
    "parts": ("unit", "simulation", "contract", "integration", "attacks"),
    "whole": ("e2e", "faults"),
}
TIERS = ("unit", "simulation", "contract", "integration", "e2e", "faults", "attacks")
SECOND_LOOK = frozenset({"integration", "e2e", "faults", "attacks"})
MOST_FLAKY = 3


@dataclass(eq=False)  # pytest keeps its plugins in sets
class TierCount:
    """Counts what ran per tier, and what did not."""

    passed: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self.passed[_tier(report.nodeid)] += 1
        if report.skipped or hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:  # a whole module, by importorskip say
            self.skipped.append(report.nodeid)


def main(arguments: list[str], root: Path = Path(__file__).parent) -> int:
    """Exit code: the first of pytest's that is not 0, or 1 when a tier ran no test or any test was skipped."""
    with tempfile.TemporaryDirectory(prefix="tri-tiers-") as folder:
        lanes = [Lane(name, root, arguments, Path(folder) / name) for name in LANES]
        done = [lane.result() for lane in lanes]
    count = TierCount(
        sum((Counter(one["passed"]) for one in done), Counter()),
        [nodeid for one in done for nodeid in one["skipped"]],
        [nodeid for one in done for nodeid in one["failed"]],
    )
    code = next((one["code"] for one in done if one["code"]), 0)
    print("tiers:", ", ".join(f"{tier} {count.passed[tier]}" for tier in TIERS), flush=True)
    only_failed = all(one["code"] in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) for one in done)
    if code and only_failed and may_be_flaky(count.failed):
        code = second_look(count.failed, root.parent)
    absent = [tier for tier in TIERS if not count.passed[tier]]
    if absent:
        print(f"no test ran in: {', '.join(absent)}", file=sys.stderr)
    for nodeid in count.skipped:
        print(f"skipped: {nodeid}", file=sys.stderr)
    return code or (1 if absent or count.skipped else 0)


class Lane:
    """A child that runs the tiers of one lane, and the thread that shows what it prints.

    A signal to the process group reaches the child by itself; its end is waited for whatever comes.
    """

    def __init__(self, name: str, root: Path, arguments: list[str], report: Path) -> None:
        self._name, self._report = name, report
        command = [sys.executable, "-u", "-m", "tests.tiers", "--lane", name, str(report), str(root), *arguments]
        self._child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()

    def result(self) -> dict[str, Any]:
        """What the lane counted, and its exit code under ``code``."""
        interrupted = False
        while self._thread.is_alive():
            try:
                self._thread.join()
            except KeyboardInterrupt:
                interrupted = True
        code = self._child.wait()
        found: dict[str, Any] = json.loads(self._report.read_text()) if self._report.exists() else {}
        ended = pytest.ExitCode.INTERRUPTED if interrupted else code or pytest.ExitCode.INTERNAL_ERROR
        return {"passed": {}, "skipped": [], "failed": [], "code": ended} | found

    def _show(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            print(f"{self._name} | {line}", end="", flush=True)


def run_lane(name: str, report: Path, root: Path, arguments: list[str]) -> int:
    """In the child: run the lane's tiers here, and write what was counted. Returns pytest's exit code."""
    count = TierCount()
    slowest = ["--durations=30", "--durations-min=10"]
    code = int(pytest.main([*(str(root / tier) for tier in LANES[name]), *slowest, *arguments], plugins=[count]))
    report.write_text(json.dumps({**vars(count), "code": code}))
    return code


def may_be_flaky(failed: list[str]) -> bool:
    """Whether these failures are few, and all of whole installations."""
    return 0 < len(failed) <= MOST_FLAKY and all(_tier(nodeid) in SECOND_LOOK for nodeid in failed)


def second_look(failed: list[str], folder: Path) -> int:
    """Run them once more; 0 when all pass. Names the flaky ones: each is a defect to be mended, here or in its test."""
    print(f"second look at {len(failed)}:", *failed, sep="\n  ", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *failed], cwd=folder, check=False).returncode
    if code == 0:
        for nodeid in failed:
            print(f"flaky: {nodeid} failed above and passed alone", file=sys.stderr)
    return code


def _tier(nodeid: str) -> str:
    return nodeid.split("/")[1] if nodeid.startswith("tests/") else "other"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--lane", name, report, root, *arguments]:
            sys.exit(run_lane(name, Path(report), Path(root), arguments))
        case arguments:
            sys.exit(main(arguments))
