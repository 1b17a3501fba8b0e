"""The operator stands still (SIGSTOP) after a permit, and authority is narrowed meanwhile: the permit is worth nothing
once its ten seconds are over, though nobody was awake to take it back (design §3.1)."""

import time
from contextlib import ExitStack

import pytest

from tests.e2e.api import Api
from tests.e2e.stack import graph
from tests.faults.evidence import settle
from tests.faults.installation import Installation
from tests.faults.witness import read_log
from tests.faults.work import Work
from triplane.domain.session import PERMIT_SECONDS
from triplane.session.client import CLAIM_WAIT_SECONDS

pytestmark = pytest.mark.faults
NARROW = {"spec": {"authority": {"mayDelegate": {"tools": []}}}}


def logged(installation: Installation, namespace: str, kind: str) -> list[dict[str, object]]:
    """Entries of that type about the namespace."""
    rows = (row.entry for row in read_log(installation))
    return [dict(entry) for entry in rows if entry["type"] == kind and entry["subject"]["namespace"] == namespace]


def test_a_permit_dies_while_the_operator_sleeps(installation: Installation, api: Api) -> None:
    namespace = "paused-operator"
    work = Work(installation, api, namespace, 0.2)
    work.settled()
    with ExitStack() as paused:
        runner = paused.enter_context(ExitStack())
        runner.enter_context(installation.frozen("runner"))
        time.sleep(CLAIM_WAIT_SECONDS + 1)  # what it has asked already, the gateway would claim for it
        work.apply()
        assert settle(lambda: [] if logged(installation, namespace, "run.permitted") else ["no permit yet"], 30) == []
        paused.enter_context(installation.frozen("operator"))
        with installation.api("alice") as alice:
            alice.merge(graph(namespace), NARROW).raise_for_status()
        time.sleep(PERMIT_SECONDS + 1)
        runner.close()
        time.sleep(3)  # the runner asks about once a second
        assert logged(installation, namespace, "run.claimed") == [], "a permit outlived its ten seconds"
    work.wait(lambda found: found["status"] == "True", 90)
    sessions = api.list("AgentSession", namespace).raise_for_status().json()["items"]
    ran = {entry["subject"]["uid"] for entry in logged(installation, namespace, "run.claimed")}  # type: ignore[index]
    assert {tuple(item["spec"]["authority"]["tools"]) for item in sessions if item["metadata"]["uid"] in ran} == {()}
