"""Failpoints: nothing without the variable, SIGKILL at the named passage with it."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
from triplane.failpoint import failpoint
for n in range(1, 6):
    failpoint("other")
    failpoint("here")
    print(n, flush=True)
"""


def run(value: str | None) -> "subprocess.CompletedProcess[str]":
    environment = {key: text for key, text in os.environ.items() if key != "TRIPLANE_FAILPOINT"}
    if value is not None:
        environment["TRIPLANE_FAILPOINT"] = value
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)


def test_the_nth_passage_kills_the_process() -> None:
    ended = run("here:3")
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["1", "2"])


@pytest.mark.parametrize("value", [None, "", "elsewhere:1", "here:6"], ids=repr)
def test_other_passages_do_nothing(value: str | None) -> None:
    ended = run(value)
    assert (ended.returncode, ended.stdout.split()) == (0, ["1", "2", "3", "4", "5"])


def test_a_passage_may_block_instead() -> None:
    began = time.monotonic()
    ended = run("here:2:block:1")
    assert (ended.returncode, ended.stdout.split()) == (0, ["1", "2", "3", "4", "5"])
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("value", ["here", "here:", ":1", "here:0", "here:x", "here:1:block", "here:1:wait:3"])
def test_a_value_that_would_never_fire_is_refused(value: str) -> None:
    ended = run(value)
    assert ended.returncode == 1
    assert "name:n" in ended.stderr
