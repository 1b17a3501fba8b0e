"""``triplane conformance`` on backends that are not ours: a correct one passes, a broken one is told which rule."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.plugins.packages import EXAMPLE, install

BROKEN = {
    "deletes what is not there": (
        "async def delete(self, digest):\n        await super().delete(digest)\n        return True",
        "what is not there is missing",
    ),
    "believes what it reads": (
        "async def resolve(self, digest):\n        yield self._get(digest)",
        "changed content is never read as whole and is quarantined",
    ),
    "collects what is held": (
        "def _held(self):\n        return frozenset()",
        "a held blob is not collected until the last hold ends",
    ),
}
_QUICK = "not model and not moment and not renews and not lease"
FACTORY = """
from contextlib import asynccontextmanager
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.conformance.contentsubject import Subject

class Store(MemoryContentStore):
    {change}

@asynccontextmanager
async def opened():
    reported = []
    async def report(digest, place):
        reported.append(digest)
    async def tamper(digest, octets):
        store._blobs[digest] = octets
    store = Store(on_quarantine=report)
    yield Subject(store, store, tamper, reported)
"""


def conformance(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "triplane.cli.main", "conformance", *arguments],
        env={**os.environ, "PYTHONPATH": str(site), "NO_COLOR": "1"},
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_the_example_of_the_documentation_keeps_every_rule(tmp_path: Path) -> None:
    install(tmp_path / "site", "sqlite_blobs", EXAMPLE.read_text(), {})
    # What waits for clocks of whole seconds is left to `CONFORMANCE_ALL=1`.
    some = [] if os.environ.get("CONFORMANCE_ALL") else ["-k", "not renews and not moment"]
    done = conformance(tmp_path / "site", "content", "--backend", "sqlite_blobs:under_test", "-o", "json", *some)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    rules = json.loads(done.stdout)["rules"]
    assert all(rule["held"] for rule in rules)
    assert {rule["suite"] for rule in rules} == {"content", "content_keeping", "content_model"}
    assert len(rules) > 50


@pytest.mark.parametrize("defect", BROKEN)
def test_a_broken_backend_is_told_which_rule_it_breaks(tmp_path: Path, defect: str) -> None:
    change, rule = BROKEN[defect]
    install(tmp_path / "site", "theirs", FACTORY.format(change=change), {})
    done = conformance(tmp_path / "site", "content", "--backend", "theirs:opened", "-k", _QUICK)
    assert done.returncode == 1, done.stderr + done.stdout[-3000:]
    broken = [line for line in done.stdout.splitlines() if "   NO " in line]
    assert any(rule in line for line in broken), done.stdout
    assert "rules held by theirs:opened" in done.stderr
    assert len(broken) < 20, "one defect breaks few rules"


@pytest.mark.parametrize(
    ("backend", "contract", "message"),
    [
        pytest.param("nowhere:opened", "content", "cannot be loaded: ModuleNotFoundError", id="no such module"),
        pytest.param("theirs", "content", "names no factory", id="no function named"),
        pytest.param("theirs:failing", "content", "cannot be opened: ZeroDivisionError", id="it cannot be opened"),
        pytest.param("theirs:empty", "content", "opened a object without store, other", id="it opens something else"),
        pytest.param("theirs:opened", "clocks", "there is no suite for 'clocks'", id="no such contract"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(tmp_path: Path, backend: str, contract: str, message: str) -> None:
    more = """
@asynccontextmanager
async def failing():
    yield 1 / 0

@asynccontextmanager
async def empty():
    yield object()
"""
    install(tmp_path / "site", "theirs", FACTORY.format(change="pass") + more, {})
    done = conformance(tmp_path / "site", contract, "--backend", backend)
    assert done.returncode == 2, done.stderr + done.stdout[-3000:]
    assert message in done.stderr
    assert "Traceback" not in done.stderr


OTHERS = """
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.conformance.logsubject import Backend, SteerableTime
from triplane.conformance.sessionsubject import Subject

@asynccontextmanager
async def graph():
    yield MemoryGraphStore()

@asynccontextmanager
async def log():
    time, shared = SteerableTime(), MemoryLog.create()
    async def opened(writer):
        return MemoryEventLog(shared, writer=writer, now=time)
    yield Backend(opened, time)

class Clock:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    def now(self):
        return self.time
    def monotonic(self):
        return self.time.timestamp()

@asynccontextmanager
async def sessions():
    clock = Clock()
    async def elapse(seconds):
        clock.time += timedelta(seconds=seconds)
    store = MemorySessionStore(clock)
    yield Subject(store, store, elapse)
"""


@pytest.mark.parametrize(
    ("contract", "words"),
    [("graph", "kept or gone or edges"), ("log", "append or epoch"), ("sessions", "permit or voided")],
)
def test_every_contract_can_be_tried_on_a_backend_of_ones_own(tmp_path: Path, contract: str, words: str) -> None:
    install(tmp_path / "site", "theirs", OTHERS, {})
    done = conformance(tmp_path / "site", contract, "-b", f"theirs:{contract}", "-k", words, "-o", "json")
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    assert len(json.loads(done.stdout)["rules"]) >= 5
