"""The fault proxy itself, between a plain client and the real API server: without rules it changes nothing, and
every rule does what it says."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.api import Api
from tests.e2e.stack import graph
from tests.faults import workload
from tests.faults.apiproxy import ApiProxy, Call, write
from tests.faults.installation import Installation
from tests.faults.rules import Delay, DropRequest, Hold, LoseReply, Refuse
from tests.faults.work import eventually
from triplane.api.text import API_VERSION

pytestmark = pytest.mark.faults

NAMESPACE = "proxy-itself"
GRAPHS = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/graphs"


@pytest.fixture(scope="module")
def between(installation: Installation) -> Iterator[ApiProxy]:
    """A proxy that only these tests' client uses."""
    settings = installation.settings
    workload.open_namespace(installation, NAMESPACE)
    made = ApiProxy(installation.cluster.server, settings.cluster / "pki" / "ca.crt", settings.run / "between").start()
    yield made
    made.stop()


@pytest.fixture
def alice(installation: Installation, between: ApiProxy) -> Iterator[Api]:
    """alice, through the proxy."""
    settings = installation.settings
    with Api(between.kubeconfig(settings.secrets / "kubeconfig-alice", settings.run / "kubeconfig-between")) as client:
        yield client


def test_without_rules_the_server_answers_as_itself(alice: Api, between: ApiProxy) -> None:
    assert alice.username() == "system:serviceaccount:people:alice", "the bearer token must go through"
    assert alice.create(graph(NAMESPACE, "plain")).status_code == 201
    assert alice.request("GET", f"{GRAPHS}/absent").status_code == 404
    call = next(call for call in between.calls if call.writes and call.resource == "graphs")
    assert (call.verb, call.namespace, call.name) == ("create", NAMESPACE, "plain")


def test_a_dropped_request_never_arrives(alice: Api, between: ApiProxy, api: Api) -> None:
    with between.rule(write("graphs"), DropRequest()) as rule, pytest.raises(httpx.TransportError):
        alice.create(graph(NAMESPACE, "dropped"))
    assert len(rule.struck) == 1
    assert api.get(graph(NAMESPACE, "dropped")).status_code == 404


def test_a_lost_reply_belongs_to_a_request_that_was_carried_out(alice: Api, between: ApiProxy, api: Api) -> None:
    with between.rule(write("graphs"), LoseReply()), pytest.raises(httpx.TransportError):
        alice.create(graph(NAMESPACE, "unheard"))
    assert api.get(graph(NAMESPACE, "unheard")).status_code == 200


def test_a_refusal_is_a_status_with_retry_after(alice: Api, between: ApiProxy, api: Api) -> None:
    with between.rule(write("graphs"), Refuse(429, "TooManyRequests", retry_after=7)):
        answer = alice.create(graph(NAMESPACE, "refused"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert answer.json()["reason"] == "TooManyRequests"
    assert api.get(graph(NAMESPACE, "refused")).status_code == 404


def test_a_rule_strikes_from_the_nth_call_as_often_as_it_says(alice: Api, between: ApiProxy) -> None:
    with between.rule(write("graphs"), Refuse(403, "Forbidden"), first=2, times=2) as rule:
        codes = [alice.create(graph(NAMESPACE, f"nth-{number}")).status_code for number in range(4)]
    assert codes == [201, 403, 403, 201]
    assert [call.name for call in rule.struck] == ["nth-1", "nth-2"]


def test_a_delayed_and_a_held_request_arrive_late(alice: Api, between: ApiProxy, api: Api) -> None:
    began = time.monotonic()
    with between.rule(write("graphs"), Delay(0.5)):
        alice.create(graph(NAMESPACE, "late")).raise_for_status()
    assert time.monotonic() - began >= 0.5
    hold = Hold()
    with between.rule(write("graphs"), hold):
        sending = threading.Thread(target=lambda: alice.create(graph(NAMESPACE, "held")))
        sending.start()
        time.sleep(0.5)
        assert api.get(graph(NAMESPACE, "held")).status_code == 404
        hold.release()
        sending.join(10)
    assert api.get(graph(NAMESPACE, "held")).status_code == 200


def test_lines_of_a_watch_are_passed_dropped_held_replayed_and_made_up(alice: Api, between: ApiProxy, api: Api) -> None:
    heard: list[tuple[str, str]] = []
    fates = {"lost": "drop", "waiting": "hold"}
    between.fate = lambda _resource, line: fates.get(line["object"]["metadata"]["name"], "pass")  # type: ignore[return-value]

    def listen() -> None:
        since = alice.request("GET", GRAPHS).json()["metadata"]["resourceVersion"]
        query = {"watch": "1", "resourceVersion": since}
        with contextlib.suppress(httpx.TransportError), alice._http.stream("GET", GRAPHS, params=query) as answer:
            for text in answer.iter_lines():
                line = json.loads(text)
                heard.append((line["type"], line["object"].get("metadata", {}).get("name", "")))

    listening = threading.Thread(target=listen)
    listening.start()
    try:
        eventually(lambda: bool(between.streams), 10, "no watch was opened")
        for name in ("lost", "waiting", "passed"):
            api.create(graph(NAMESPACE, name)).raise_for_status()
        eventually(lambda: ("ADDED", "passed") in heard, 10, "the line was not passed on")
        assert not {"lost", "waiting"} & {name for _, name in heard}
        between.fate = lambda _resource, _line: "pass"
        between.release()
        eventually(lambda: ("ADDED", "waiting") in heard, 10, "what was held was not released")
        assert ("ADDED", "lost") not in heard
        before = heard.count(("ADDED", "passed"))
        between.send("graphs", *list(between.seen["graphs"]))
        eventually(lambda: heard.count(("ADDED", "passed")) > before, 10, "nothing was replayed")
        error = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "metadata": {}}}
        assert between.send("graphs", error) == 1
        eventually(lambda: ("ERROR", "") in heard, 10, "the error was not heard")
    finally:
        between.fate = lambda _resource, _line: "pass"
        assert between.cut_watches("graphs") == 1
        listening.join(10)
    eventually(lambda: not between.streams, 10, "a watch outlives its client")


def test_what_a_call_is_called() -> None:
    from tests.faults.apiproxy import _call

    def named(request: str) -> tuple[str, str, str, str]:
        call: Call = _call(f"{request} HTTP/1.1", {}, b"")
        return call.verb, call.resource, call.namespace, call.name

    task = f"/apis/{API_VERSION}/namespaces/n/tasks"
    assert named(f"PATCH {task}/t/status?fieldManager=x") == ("patch", "tasks/status", "n", "t")
    assert named(f"GET {task}") == ("list", "tasks", "n", "")
    assert named(f"GET /apis/{API_VERSION}/tasks?watch=true") == ("watch", "tasks", "", "")
    assert named("GET /api/v1/namespaces/kube-system") == ("get", "namespaces", "", "kube-system")
    assert named("GET /version") == ("list", "", "", "")
