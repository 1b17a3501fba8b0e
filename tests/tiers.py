"""Runs every tier and fails when one was skipped: a tier that could not run proves nothing.

``python -m tests.tiers [pytest arguments]``
"""

import sys
from collections import Counter
from pathlib import Path

import pytest

TIERS = ("unit", "simulation", "contract", "integration", "e2e", "faults", "attacks")


class TierCount:
    """Counts what ran per tier, and what did not."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = report.nodeid.split("/")[1] if report.nodeid.startswith("tests/") else "other"
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self.passed[tier] += 1
        if report.skipped or hasattr(report, "wasxfail"):
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:  # a whole module, by importorskip say
            self.skipped.append(report.nodeid)


def main(arguments: list[str], root: Path = Path(__file__).parent) -> int:
    """Exit code: pytest's, or 1 when a tier ran no test or any test was skipped."""
    count = TierCount()
    code = pytest.main([*(str(root / tier) for tier in TIERS), *arguments], plugins=[count])
    sys.stdout.flush()
    print("tiers:", ", ".join(f"{tier} {count.passed[tier]}" for tier in TIERS))
    absent = [tier for tier in TIERS if not count.passed[tier]]
    if absent:
        print(f"no test ran in: {', '.join(absent)}", file=sys.stderr)
    for nodeid in count.skipped:
        print(f"skipped: {nodeid}", file=sys.stderr)
    return int(code) or (1 if absent or count.skipped else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
