"""Some hundred seeds; ``python -m tests.simulation`` runs as many as one likes, and names those that fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 500
HUNTED = 300


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, whose hash seed is fixed: then a seed is one history."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_every_history_keeps_every_invariant() -> None:
    done = simulate("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds" in done.stdout


def test_a_seed_is_one_history() -> None:
    first, second = (simulate("--first", "7", "--seeds", "3", "--processes", "1", "--trace") for _ in range(2))
    traced = [line for line in first.stdout.splitlines() if line.startswith("history ")]
    assert len(traced) == 3
    assert traced == [line for line in second.stdout.splitlines() if line.startswith("history ")]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_guard_that_is_taken_out_is_missed(mutant: str) -> None:
    done = simulate("--first", str(MUTANTS[mutant].from_seed), "--seeds", str(HUNTED), "--without", mutant)
    assert done.returncode == 0, done.stdout + done.stderr
