"""Watches lie: they coalesce, lose deletions, travel back in time, fall silent, fail (rows 7–9, 11, 12)."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.api import Api
from tests.e2e.stack import condition, graph
from tests.faults import workload
from tests.faults.apiproxy import ApiProxy, Fate, Stream
from tests.faults.installation import Installation
from tests.faults.witness import read_log
from tests.faults.work import UNDISTURBED, Work, eventually

pytestmark = pytest.mark.faults

RESTART_SECONDS = 10.0
SILENT_SECONDS = 75.0
SWEEP_SECONDS = 45.0
"""A sweep comes every 30 s ± 20 %, and then takes its time on a busy machine."""


@pytest.fixture(autouse=True)
def _watches_tell_the_truth_again(proxy: ApiProxy) -> Iterator[None]:
    yield
    proxy.fate = lambda _resource, _line: "pass"
    proxy.release()


def in_namespace(namespace: str, fate: Fate, *types: str) -> Callable[[str, Mapping[str, Any]], Fate]:
    """The fate of lines about that namespace's objects, of these event types or all."""

    def choose(_resource: str, line: Mapping[str, Any]) -> Fate:
        meant = line["object"]["metadata"].get("namespace") == namespace and (not types or line["type"] in types)
        return fate if meant else "pass"

    return choose


def answered(api: Api, namespace: str, name: str = "g") -> bool:
    """Whether the Graph's status is of the generation it has."""
    found = api.get(graph(namespace, name)).raise_for_status().json()
    return bool(condition(found, "Ready").get("observedGeneration") == found["metadata"]["generation"])


def edit(api: Api, namespace: str, title: str) -> None:
    api.merge(graph(namespace), {"spec": {"title": title}}).raise_for_status()


def watching_graphs(proxy: ApiProxy) -> list[Stream]:
    """The watches of Graphs that are open."""
    return [stream for stream in proxy.streams if stream.resource == "graphs"]


def test_of_coalesced_updates_the_last_is_answered(installation: Installation, api: Api, proxy: ApiProxy) -> None:
    namespace = "coalesced"
    workload.open_namespace(installation, namespace)
    workload.create(installation, "alice", [graph(namespace)])
    eventually(lambda: answered(api, namespace), 20, "the Graph has no status")
    eventually(lambda: bool(watching_graphs(proxy)), 20, "nobody watches Graphs")  # a LIST may have told of it
    stream = watching_graphs(proxy)[0]
    proxy.fate = in_namespace(namespace, "hold")
    with installation.api("alice") as alice:
        for number in range(5):
            edit(alice, namespace, f"title {number}")
    eventually(lambda: len(stream.held) == 5, 10, "the edits were not seen")
    assert not answered(api, namespace)
    proxy.fate = lambda _resource, _line: "pass"
    proxy.release(lambda held: held[-1:])
    eventually(lambda: answered(api, namespace), 20, "the last of the edits was not answered")
    found = api.get(graph(namespace)).json()
    assert (found["spec"]["title"], found["metadata"]["generation"]) == ("title 4", 6)
    uid = found["metadata"]["uid"]
    entries = [row.entry for row in read_log(installation) if row.id.startswith(f"resource.observed/{uid}/")]
    assert [entry["subject"]["generation"] for entry in entries] == [1, 6]
    data = entries[-1]["data"]
    assert (data["skippedFrom"], data["skippedTo"]) == (2, 5), "generations that nobody saw must be named"


def test_a_deletion_lost_while_a_watch_expired_is_found_by_the_sweep(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    """410 Gone: the watch begins anew with a LIST, which does not tell of deletions."""
    namespace = "expired"
    workload.open_namespace(installation, namespace)
    workload.create(installation, "alice", [graph(namespace)])
    eventually(lambda: answered(api, namespace), 20, "the Graph has no status")
    uid = api.get(graph(namespace)).json()["metadata"]["uid"]
    proxy.fate = in_namespace(namespace, "drop", "DELETED")
    with installation.api("alice") as alice:
        alice.delete(graph(namespace)).raise_for_status()
    gone = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410}
    assert proxy.send("graphs", {"type": "ERROR", "object": {**gone, "message": "too old resource version"}}) == 1
    eventually(
        lambda: any(row.id.startswith(f"resource.gone/{uid}/") for row in read_log(installation)),
        SWEEP_SECONDS,
        "the sweep did not find the deletion",
    )


def test_a_watch_that_travels_back_in_time_changes_nothing(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    """Everything it ever said is said again, deletions of earlier incarnations included, while a Task runs."""
    work = Work(installation, api, "back-in-time", 3)
    work.settled()
    with installation.api("alice") as alice:
        before = work.api.get(graph(work.namespace)).json()["metadata"]["uid"]
        alice.delete(graph(work.namespace)).raise_for_status()
        workload.create(installation, "alice", [graph(work.namespace)])
    work.settled()
    uid = work.begin()
    lines = [json.loads(line) for line in proxy.seen["graphs"]]
    assert any(line["type"] == "DELETED" and line["object"]["metadata"]["uid"] == before for line in lines)
    for resource, seen in list(proxy.seen.items()):
        assert proxy.send(resource, *list(seen)) > 0
    time.sleep(1)
    assert condition(api.get(graph(work.namespace)).json(), "Ready")["status"] == "True"
    work.succeed()
    assert work.types(uid) == UNDISTURBED
    gone = [row.id for row in read_log(installation) if row.type == "resource.gone"]
    assert len(gone) == len(set(gone))
    assert not any(work.namespace == row.entry["subject"]["namespace"] and before not in row.id
                   for row in read_log(installation) if row.type == "resource.gone")  # fmt: skip


def test_a_watch_that_fails_with_500_is_begun_again_within_ten_seconds(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    work = Work(installation, api, "error-500", 1)
    work.settled()
    log = installation.services["operator"].process.log
    told = log.read_text().count("the watches failed")
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500}
    streams = len(proxy.streams)
    assert streams > 1
    began = time.monotonic()
    assert proxy.send("tasks", {"type": "ERROR", "object": {**status, "message": "etcd has no leader"}}) == 1
    eventually(lambda: log.read_text().count("the watches failed") > told, RESTART_SECONDS, "nothing was told")

    def watched_again() -> bool:
        again = {call.resource for call in proxy.calls if call.verb == "watch" and call.at > began}
        return "tasks" in again and len(proxy.streams) >= streams

    eventually(watched_again, RESTART_SECONDS, "the watches were not begun again")
    work.apply()
    work.succeed()


def test_a_silent_watch_is_noticed_and_opened_again_within_75_seconds(
    installation: Installation, api: Api, proxy: ApiProxy
) -> None:
    """No line comes, no bookmark, and the connection stands: only time can tell. Meanwhile the sweep helps."""
    work = Work(installation, api, "silent", 0)
    work.settled()
    deaf = {id(stream) for stream in proxy.streams}
    proxy.fate = lambda _resource, _line: "drop"
    began = time.monotonic()
    work.apply()
    work.wait(lambda found: found["reason"] != "Pending", SWEEP_SECONDS)
    eventually(
        lambda: not deaf & {id(stream) for stream in proxy.streams} and bool(proxy.streams),
        SILENT_SECONDS - (time.monotonic() - began),
        "the deaf watches still stand",
    )
    proxy.fate = lambda _resource, _line: "pass"
    work.succeed(SILENT_SECONDS)
