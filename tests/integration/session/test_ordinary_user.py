"""What is promised to an ordinary user, tried as one: these tests step down where they are run as root.

Embedded Postgres and isolation with user namespaces; refusal, or a run that says so, without.
"""

import asyncio
import json
import os
import sys
from typing import Any

import pytest
from tests.attacks.demoted import ORDINARY, run_as_ordinary_user

from triplane.session.sandbox import NOBODY

pytestmark = pytest.mark.timeout(120)


async def found(*, user_namespaces: bool) -> dict[str, Any]:
    done = await asyncio.to_thread(
        run_as_ordinary_user,
        [sys.executable, "-m", "tests.integration.session.ordinary"],
        user_namespaces=user_namespaces,
        seconds=100,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # after the log lines
    assert said["user"] == (os.geteuid() or ORDINARY)
    assert said["postgres"].startswith("18.")
    return said


async def test_an_ordinary_user_gets_postgres_and_a_sandbox() -> None:
    said = await found(user_namespaces=True)
    assert said["problem"] == ""
    for run in (said["run"], said["consented"]):
        assert run == {
            "outcome": "succeeded", "reason": run["reason"], "message": run["message"],
            "isolated": True, "said": [str(NOBODY)],
        }  # fmt: skip


async def test_without_user_namespaces_runs_are_refused_or_say_that_they_are_not_isolated() -> None:
    said = await found(user_namespaces=False)
    assert "namespace" in said["problem"]
    refused, consented = said["run"], said["consented"]
    assert (refused["outcome"], refused["reason"], refused["isolated"]) == ("refused", "NoSandbox", None)
    assert "TRIPLANE_ALLOW_UNISOLATED=true" in refused["message"]
    assert refused["said"] == []
    assert (consented["outcome"], consented["isolated"]) == ("succeeded", False)
    assert consented["said"] == [str(said["user"])]
