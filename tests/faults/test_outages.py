"""Outages during a run: what is only away kills nothing; what is dead costs one run and is told."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.api import Api
from tests.e2e.stack import condition
from tests.faults import workload
from tests.faults.evidence import settle
from tests.faults.installation import LEASE_SECONDS, Installation, processes_in
from tests.faults.invariants import explained
from tests.faults.work import UNDISTURBED, Work
from triplane import endpoints

pytestmark = pytest.mark.faults

WORK_SECONDS = LEASE_SECONDS + 7.0
"""A run that outlasts an outage which outlasts a lease."""
OUTAGE_SECONDS = LEASE_SECONDS + 3.0


@pytest.fixture(autouse=True)
def _nobody_else_ends(installation: Installation) -> Iterator[None]:
    """Whoever is not killed by the test outlives it."""
    before = len(installation.restarted)
    yield
    assert installation.restarted[before:] == []


@pytest.mark.parametrize(
    "away",
    [
        pytest.param("postgres", id="the database is away for longer than a lease"),
        pytest.param("gateway", id="the gateway is away for longer than a lease"),
        pytest.param("operator", id="the operator is away for longer than a lease"),
    ],
)
def test_an_outage_costs_no_run(installation: Installation, api: Api, away: str) -> None:
    work = Work(installation, api, f"outage-{away}", WORK_SECONDS)
    uid = work.begin()
    with installation.held(away):
        installation.kill(away)
        time.sleep(OUTAGE_SECONDS)
        assert explained(workload.objects(api, work.namespace)) == []
        if away == "postgres":
            assert _health(installation, "gateway") == (200, 503)
            assert _health(installation, "operator") == (200, 503)
    work.succeed()
    assert work.types(uid) == UNDISTURBED


def test_a_graceful_restart_of_gateway_and_operator_disturbs_no_run(installation: Installation, api: Api) -> None:
    work = Work(installation, api, "restarts", 6)
    uid = work.begin()
    for name in ("gateway", "operator"):
        with installation.held(name) as process:
            assert asyncio.run(process.stop())
        installation.wait_ready(name)
    work.succeed()
    assert work.types(uid) == UNDISTURBED


def test_a_dead_runners_run_is_lost_reaped_and_retried_in_the_same_session(
    installation: Installation, api: Api
) -> None:
    work = Work(installation, api, "dead-runner", 4)
    uid = work.begin()
    folder = installation.settings.run / "sessions"
    assert processes_in(folder), "the probe must find a working harness, or it could not find one left over"
    with installation.held("runner"):
        installation.kill("runner")
        assert settle(lambda: [str(pid) for pid in processes_in(folder)], 5) == []
        work.wait(lambda found: found["status"] == "Unknown" and bool(found["message"]))
    work.succeed()
    first, second = UNDISTURBED[1:3], UNDISTURBED[1:]
    assert work.types(uid) == ["session.offered", *first, "run.lost", *second]
    runs = [row.entry["data"]["run"] for row in work.events(uid) if row.type == "run.claimed"]
    assert runs == [1, 2]


def test_without_a_runner_the_lease_runs_out_and_the_run_is_lost(installation: Installation, api: Api) -> None:
    work = Work(installation, api, "no-runner", 4)
    uid = work.begin()
    with installation.held("runner"):
        installation.kill("runner")
        deadline = time.monotonic() + LEASE_SECONDS + 15
        while "run.lost" not in work.types(uid):
            assert time.monotonic() < deadline, work.types(uid)
            time.sleep(0.2)
        lost = next(row for row in work.events(uid) if row.type == "run.lost")
        assert lost.entry["data"]["reason"] == "LeaseExpired"
        waiting = work.wait(lambda found: found["reason"] == "Queued")
        assert "waits for a free runner" in condition(waiting, "Succeeded")["message"]
    work.succeed()


def test_with_the_database_absent_at_the_start_nothing_is_ready_and_nothing_runs(
    installation: Installation, api: Api
) -> None:
    work = Work(installation, api, "absent", 0)
    with installation.held("postgres"):
        with installation.held("gateway"), installation.held("operator"):
            for name in ("operator", "gateway", "postgres"):
                installation.kill(name)
        work.apply()
        time.sleep(5)
        for name in ("gateway", "operator"):
            assert installation.services[name].process.running() is not None, f"{name} must wait, not die"
            assert _health(installation, name)[1] != 200
        (waiting,) = api.list("Task", work.namespace).raise_for_status().json()["items"]
        assert condition(waiting, "Succeeded")["reason"] == "Pending"
        assert api.list("AgentSession", work.namespace).raise_for_status().json()["items"] == []
    work.succeed()


def _health(installation: Installation, name: str) -> tuple[int, int]:
    """Status codes of /healthz and /readyz; 0 when nobody answers."""
    url = endpoints.read(installation.settings.run).get(name)
    codes = []
    for path in ("/healthz", "/readyz"):
        try:
            codes.append(httpx.get(f"{url}{path}", timeout=10, trust_env=False).status_code)
        except httpx.HTTPError:
            codes.append(0)
    return codes[0], codes[1]
