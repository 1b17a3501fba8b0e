"""The unsteady adder fails as often as its harness says, then adds; the reviewer adds by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.workbench import PROGRAMS, digest, program_modules, start


def order(folder: Path, run: int, text: str) -> Path:
    (folder / "numbers").write_text(text)
    path = folder / "order.json"
    document = {
        "run": run,
        "inputs": [{"name": "numbers", "path": str(folder / "numbers")}],
        "outputs": [{"name": "sum", "path": str(folder / "sum.txt")}],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(("run", "code"), [(1, 1), (2, 1), (3, 0)])
def test_it_fails_the_first_two_runs_and_reflects_each_time(run: int, code: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", str(PROGRAMS / "unsteady" / "main.py")],
        env={**os.environ, "TRIPLANE_WORK_ORDER": str(order(tmp_path, run, "3 1 4")), "FAIL_RUNS": "2"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert '"reflection"' in done.stdout
    assert (tmp_path / "sum.txt").exists() == (code == 0)


@pytest.mark.parametrize(("said", "verdict"), [("8\n", "Approve"), ("9\n", "Reject"), ("", "Reject")])
def test_the_reviewer_adds_up_for_itself(said: str, verdict: str, tmp_path: Path) -> None:
    order(tmp_path, 1, "3 1 4")
    (tmp_path / "sum.txt").write_text(said)
    subject = {"name": "sum", "path": str(tmp_path / "sum.txt"), "digest": digest(tmp_path / "sum.txt")}
    review = {
        "inputs": [
            {"name": "numbers", "path": str(tmp_path / "numbers")},
            {"name": "outputs/sum", "path": subject["path"]},
        ],
        "outputs": [{"name": "verdict", "path": str(tmp_path / "verdict.json")}],
        "review": {"subjects": [subject]},
    }
    start(PROGRAMS / "sum_review" / "main.py", review, tmp_path, {})
    assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == verdict


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_adding_on_paper_is_adding(one: int, other: int) -> None:
    with program_modules("sum_review", "main") as (review,):
        assert review.add(str(one), str(other)) == str(one + other)
