"""An entry altered in the database under a running installation: the operator that reads the log again and again says
so on the API server, goes on reporting, and takes it back once the entry is what it was."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import superuser
from tests.e2e.stack import Stack, agent, graph, has, task

pytestmark = pytest.mark.e2e

NAMESPACE = "broken"
SEQUENCE = 1
"""Signed in the first checkpoint. One that is altered before it was signed never is: then the operator halts."""


@pytest.fixture(scope="module")
def installed() -> Iterator[Stack]:
    """An installation that reads its log again every second."""
    home = Path(tempfile.mkdtemp(prefix="tri-br-"))
    stack = Stack.start(home, verify_rest_seconds=1)
    try:
        stack.people(NAMESPACE)
        stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
        stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
        stack.apply(task(NAMESPACE, "first"))
        stack.wait("Task", NAMESPACE, "first", has("Succeeded", "True"), seconds=120)
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def unguarded(stack: Stack) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Who can do anything in the database, triggers or not."""
    with superuser(stack.settings) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("ALTER TABLE log.entries DISABLE TRIGGER ALL")
        yield connection
        connection.execute("ALTER TABLE log.entries ENABLE ALWAYS TRIGGER append_only")


def condition(stack: Stack, verified: str) -> dict[str, str]:
    """The condition of the log, once it stands so."""
    deadline = time.monotonic() + 60
    found: dict[str, str] = {}
    while time.monotonic() < deadline:
        shown = stack.kubectl(
            "-n", "triplane-system", "get", "configmap", "triplane-log", "--ignore-not-found", "-o", "json"
        )
        found = json.loads(shown).get("data") or {} if shown.strip() else {}
        if found.get("verified") == verified:
            return found
        time.sleep(0.2)
    raise AssertionError(f"the log's condition is {found}")


def test_an_altered_entry_is_told_to_admins_and_taken_back_once_it_is_mended(installed: Stack) -> None:
    with unguarded(installed) as hand:
        row = hand.execute("SELECT octets FROM log.entries WHERE seq = %s", (SEQUENCE,)).fetchone()
        assert row is not None
        forged = row[0].replace(b'"v":1}', b'"v":2}')
        assert forged != row[0]
        hand.execute("UPDATE log.entries SET octets = %s WHERE seq = %s", (forged, SEQUENCE))

        told = condition(installed, "False")
        assert told["sequence"] == str(SEQUENCE)
        assert told["reason"] == "LeafHashMismatch"
        assert told["remedy"], "what to do"
        events = json.loads(installed.kubectl("-n", "triplane-system", "get", "events", "-o", "json"))["items"]
        [event] = [item for item in events if item["reason"] == "LogBroken"]
        assert event["type"] == "Warning"
        assert f"entry {SEQUENCE}: LeafHashMismatch" in (event.get("note") or event["message"])
        assert f"THE LOG IS BROKEN at entry {SEQUENCE}: LeafHashMismatch" in installed.triplane(
            "status", "-n", NAMESPACE, notes=True
        )
        assert f"entry {SEQUENCE}" in installed.triplane("log", "verify", code=1, notes=True)

        installed.apply(task(NAMESPACE, "second"))
        installed.wait("Task", NAMESPACE, "second", has("Succeeded", "True"), seconds=120)

        hand.execute("UPDATE log.entries SET octets = %s WHERE seq = %s", (row[0], SEQUENCE))
        assert condition(installed, "True")["reason"] == "Verified"
    installed.triplane("log", "verify")
