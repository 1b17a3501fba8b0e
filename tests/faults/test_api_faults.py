"""The API server's answers fail: writes that were or were not applied, refusals, rights withdrawn (rows 1–3, 14–16)."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.stack import condition, graph, task
from tests.faults import workload
from tests.faults.apiproxy import ApiProxy, Call, write
from tests.faults.installation import Installation, read_json_lines
from tests.faults.rules import Hold, Refuse
from tests.faults.work import UNDISTURBED, Work, eventually
from tests.faults.writes import carry_out, learn, some_plans

pytestmark = pytest.mark.faults

SEED, PLANS = 4, 4
RETRY_AFTER = 3
RECOVER_SECONDS = 60.0
BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/triplane-operator"


@pytest.fixture(autouse=True)
def _no_rule_is_left(proxy: ApiProxy) -> Iterator[None]:
    yield
    assert proxy.rules == []


@pytest.fixture(scope="module")
def learned(installation: Installation, proxy: ApiProxy) -> list[Call]:
    """What the operator writes in one Task's life."""
    with installation.api("admin") as api:
        return learn(installation, api, proxy)


def test_a_tasks_life_is_sixteen_writes_at_most(learned: list[Call]) -> None:
    assert 0 < len(learned) <= 16, [str(call) for call in learned]
    made = sorted(call.resource for call in learned if call.verb == "create" and call.resource != "events")
    assert made == ["agentsessions", "agentsessions", "artifacts", "reviews"]


@pytest.mark.parametrize("number", [pytest.param(n, id=f"plan {n + 1} of seed {SEED}") for n in range(PLANS)])
def test_a_crash_or_a_lost_reply_at_any_write_does_not_show_in_the_end(
    installation: Installation, api: Api, proxy: ApiProxy, learned: list[Call], number: int
) -> None:
    plan = some_plans(len(learned), SEED, PLANS)[number]
    assert carry_out(plan, installation, api, proxy).namespace


def test_retry_after_is_obeyed(installation: Installation, api: Api, proxy: ApiProxy) -> None:
    work = Work(installation, api, "too-many", 0)
    work.settled()
    with proxy.rule(write("agentsessions"), Refuse(429, "TooManyRequests", retry_after=RETRY_AFTER)) as rule:
        work.apply()
        eventually(lambda: bool(rule.struck), 20, "no session was created")
        work.succeed()
    (refused,) = rule.struck
    after = [call for call in proxy.calls if call.agent == refused.agent and call.at > refused.at]
    # What was on its way at that very moment is not recalled.
    early = [str(call) for call in after if 0.5 < call.at - refused.at < RETRY_AFTER]
    assert early == []
    assert work.types(_session(work)) == UNDISTURBED


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(409, "Conflict", id="a conflict nobody can see the cause of"),
        pytest.param(422, "Invalid", id="a status that is called invalid"),
        pytest.param(500, "InternalError", id="an internal error"),
    ],
)
def test_a_refused_status_is_written_again(
    installation: Installation, api: Api, proxy: ApiProxy, code: int, reason: str
) -> None:
    work = Work(installation, api, f"refused-{code}", 0)
    with proxy.rule(write("tasks/status"), Refuse(code, reason), times=2) as rule:
        work.apply()
        work.succeed()
    assert len(rule.struck) == 2


def test_after_a_conflict_the_users_edit_stands_and_is_answered(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    namespace, hold = "edited", Hold()
    workload.open_namespace(installation, namespace)
    with proxy.rule(lambda call: write("graphs/status")(call) and call.namespace == namespace, hold) as rule:
        workload.create(installation, "alice", [graph(namespace)])
        eventually(lambda: bool(rule.struck), 20, "no status was written")
        with installation.api("alice") as alice:
            alice.merge(graph(namespace), {"spec": {"title": "edited"}}).raise_for_status()
        written = len(proxy.calls)
        hold.release()  # with the resourceVersion of before: the server itself says 409
        eventually(lambda: _answered(api, namespace), 20, "the edit was not answered")
    found = api.get(graph(namespace)).json()
    assert (found["spec"]["title"], found["metadata"]["generation"]) == ("edited", 2)
    again = [call for call in proxy.calls[written:] if call.namespace == namespace and call.resource == "graphs/status"]
    assert again, "the refused status must be written again"


def _answered(api: Api, namespace: str) -> bool:
    found = api.get(graph(namespace)).raise_for_status().json()
    return bool(condition(found, "Ready").get("observedGeneration") == found["metadata"]["generation"])


def test_rights_withdrawn_mid_run_degrade_and_their_return_mends(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    """The server's own RBAC refuses, as when an administrator errs."""
    work = Work(installation, api, "no-rights", 3)
    uid = work.begin()
    binding = api.request("GET", BINDING).raise_for_status().json()
    api.request("DELETE", BINDING).raise_for_status()
    try:
        log = installation.services["operator"].process.log
        refused_at = time.monotonic()
        told = eventually(
            lambda: any(
                "cannot" in str(line.get("error")) and "Forbidden" in str(line) for line in read_json_lines(log)
            ),
            20,
            "the operator does not say that it may not write",
        )
        assert told < 20
        eventually(lambda: time.monotonic() - refused_at > 8, 10, "")
        assert installation.services["operator"].process.running() is not None, "it must wait, not die"
        assert condition(work.task(), "Succeeded")["status"] == "Unknown", "nothing of the Task has failed"
    finally:
        fresh = {**binding, "metadata": {"name": "triplane-operator", "labels": binding["metadata"]["labels"]}}
        made = api.request("POST", BINDING.rpartition("/")[0], json=fresh)
        assert made.status_code == 201, made.text
    work.succeed(RECOVER_SECONDS)
    assert work.types(uid) == UNDISTURBED


def _session(work: Work) -> str:
    sessions = work.api.list("AgentSession", work.namespace).raise_for_status().json()["items"]
    return next(str(item["metadata"]["uid"]) for item in sessions if item["spec"]["role"] == "Producer")


def test_a_task_whose_status_is_refused_does_not_hinder_another(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    """One key's backoff is its own."""
    work = Work(installation, api, "one-of-two", 0)
    refused = Refuse(403, "Forbidden")
    with proxy.rule(lambda call: write("tasks/status")(call) and call.name == "work", refused, times=None):
        work.apply()
        workload.create(installation, "alice", [task(work.namespace, "other")])
        work.wait(lambda found: found["status"] == "True", name="other")
        assert condition(work.task(), "Succeeded")["status"] == "Unknown"
    with installation.api("alice") as alice:  # a new event does not wait for the backoff's end
        alice.merge(work.task(), {"metadata": {"labels": {"seen": "again"}}}).raise_for_status()
    work.wait(lambda found: found["status"] == "True")
