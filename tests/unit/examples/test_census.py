"""The census and its reviewer agree by two methods; the sums agree with the whole; the workflow is as generated."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.workbench import EXAMPLES, PROGRAMS, digest, program_modules, start

FOLDER = EXAMPLES / "05-fifty-steps"


def test_the_committed_workflow_is_what_the_generator_writes() -> None:
    done = subprocess.run([sys.executable, "-B", "generate.py"], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout == (FOLDER / "alice" / "workflow.yaml").read_text()


@pytest.mark.parametrize(
    ("low", "high"),
    [(1, 100), (1, 1), (2, 2), (24, 28), (90, 96), (9_000, 10_000), (99_000, 100_000)],
)
def test_sieve_and_miller_rabin_agree(low: int, high: int) -> None:
    with program_modules("prime_census", "main") as (census,):
        counted = census.census(low, high)
    with program_modules("prime_review", "main") as (review,):
        assert review.expected(low, high) == counted


def test_ranges_added_up_are_the_census_of_the_whole() -> None:
    with program_modules("prime_census", "main") as (census,):
        parts = [census.census(low, low + 24) for low in range(1, 1000, 25)]
        whole = census.together(list(reversed(parts)))
        assert whole == census.census(1, 1000)
        assert (whole["primes"], whole["gap"]) == (168, 20)
        with pytest.raises(SystemExit, match="do not follow each other: 25 and then 51"):
            census.together([parts[0], parts[2]])


def test_an_altered_count_is_rejected(tmp_path: Path) -> None:
    given = tmp_path / "range"
    given.write_text('{"from": 1, "to": 2500}')
    said = tmp_path / "census.json"
    order: dict[str, Any] = {
        "inputs": [{"name": "range", "path": str(given)}],
        "outputs": [{"name": "census", "path": str(said)}],
    }
    start(PROGRAMS / "prime_census" / "main.py", order, tmp_path, {})
    true = json.loads(said.read_text())
    assert true["primes"] == 367
    for content, expected in ((true, "Approve"), (true | {"twins": true["twins"] + 1}, "Reject")):
        said.write_text(json.dumps(content))
        review = {
            "inputs": order["inputs"],
            "outputs": [{"name": "verdict", "path": str(tmp_path / "verdict.json")}],
            "review": {"subjects": [{"name": "census", "path": str(said), "digest": digest(said)}]},
        }
        start(PROGRAMS / "prime_review" / "main.py", review, tmp_path, {})
        assert json.loads((tmp_path / "verdict.json").read_text())["verdict"] == expected
