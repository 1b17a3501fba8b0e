"""Reviews over a small store in memory: what is answered, and how it fails."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from triplane.admission import review
from triplane.admission.ancestors import MAX_ANCESTORS
from triplane.admission.asked import Asked, Check, Outcome, Reads
from triplane.admission.checks import GraphCheck
from triplane.domain.admission import FORBIDDEN, Violation
from triplane.errors import InvalidExpression, InvalidInput, Unavailable

WORK = {"graphRef": {"name": "g"}, "objective": "x", "agentRef": {"name": "a"}}


class Store:
    """Tasks by name, with what they wait for; counts what is read."""

    def __init__(self, **waits: list[str]) -> None:
        self.waits = waits
        self.read: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        self.read.append(name)
        await asyncio.sleep(0)
        found = self.waits.get(name)
        return None if found is None else {"spec": {"dependsOn": found}}


class Away(Store):
    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        raise Unavailable("cannot reach the API server")


class Cel:
    """Takes everything but what says `wrong`."""

    async def check(self, expression: str) -> None:
        if "slow" in expression:
            await asyncio.sleep(60)
        if "wrong" in expression:
            raise InvalidExpression(f"the condition `{expression}` cannot be used: it is wrong")

    async def evaluate(self, expression: str, variables: Mapping[str, Any]) -> bool:
        raise AssertionError("nothing is evaluated")


def request(name: str = "new", kind: str = "Task", **spec: Any) -> dict[str, Any]:
    obj = {"metadata": {"name": name, "namespace": "demo"}, "spec": {**WORK, **spec}}
    asked = {"uid": "u-1", "kind": {"kind": kind}, "namespace": "demo", "name": name, "object": obj}
    return {**asked, "operation": "CREATE", "userInfo": {"username": "alice"}}


def update(old: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    new = {**old["object"], "spec": {**old["object"]["spec"], **spec}}
    return {**old, "operation": "UPDATE", "object": new, "oldObject": old["object"]}


async def answer(store: Store, asked: Mapping[str, Any], *more: Check) -> dict[str, Any]:
    checks = (GraphCheck(Cel()), *more)
    response: dict[str, Any] = (await review.answer_to(review.asked_of(asked), checks, store))["response"]
    assert response["uid"] == "u-1"
    return response


async def test_a_task_without_dependencies_reads_nothing() -> None:
    store = Store()
    assert (await answer(store, request()))["allowed"] is True
    assert store.read == []


async def test_each_ancestor_is_read_once() -> None:
    store = Store(a=["c"], b=["c"], c=["later"])
    assert (await answer(store, request(dependsOn=["a", "b"])))["allowed"] is True
    assert sorted(store.read) == ["a", "b", "c", "later"]


async def test_a_cycle_is_spelled_out() -> None:
    status = (await answer(Store(a=["b"], b=["new"]), request(dependsOn=["a"])))["status"]
    assert "new → a → b → new" in status["message"]


async def test_a_cycle_among_others_is_theirs() -> None:
    assert (await answer(Store(a=["b"], b=["a"]), request(dependsOn=["a"])))["allowed"] is True


async def test_more_ancestors_than_are_read_are_refused_by_name() -> None:
    wide = {f"t{n}": [f"t{n}-{m}" for m in range(60)] for n in range(10)}
    status = (await answer(Store(**wide), request(dependsOn=list(wide))))["status"]
    assert f"more than {MAX_ANCESTORS} Tasks" in status["message"]


async def test_without_the_api_server_nothing_is_told_and_it_says_so() -> None:
    status = (await answer(Away(), request(dependsOn=["a"])))["status"]
    assert (status["code"], status["reason"]) == (503, "ServiceUnavailable")
    assert "cannot be checked now" in status["message"]


async def test_a_check_that_takes_too_long_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "PATIENCE_SECONDS", 0.05)
    status = (await answer(Store(), request(when="slow")))["status"]
    assert status["code"] == 503
    assert "not checked within" in status["message"]


async def test_a_name_made_by_the_server_is_in_the_object() -> None:
    asked = {**request(dependsOn=["a"]), "name": ""}
    assert "new → a → new" in (await answer(Store(a=["new"]), asked))["status"]["message"]


async def test_what_this_release_does_not_know_is_refused_with_its_place() -> None:
    status = (await answer(Store(), request(colour="red")))["status"]
    assert status["details"]["causes"][0]["field"] == "spec.colour"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param([], id="a list"),
        pytest.param({"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u"}}, id="another version"),
        pytest.param({"apiVersion": "admission.k8s.io/v1", "request": {}}, id="a request without uid"),
        pytest.param({"apiVersion": "admission.k8s.io/v1"}, id="no request"),
    ],
)
def test_what_is_no_review_is_refused(body: Any) -> None:
    with pytest.raises(InvalidInput, match=r"not an AdmissionReview of admission\.k8s\.io/v1"):
        review.request_of(body)


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 6, 1, 12, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        pytest.param("2026-06-01T12:00:30Z", False, id="now"),
        pytest.param("2026-06-01T14:00:00+02:00", False, id="now, in another zone"),
        pytest.param("2026-06-01T12:02:00Z", True, id="two minutes ahead"),
        pytest.param("1970-01-01T00:00:00Z", True, id="long ago"),
        pytest.param("2026-06-01T12:00:00", True, id="without a zone"),
        pytest.param("again", False, id="a word"),
    ],
)
def test_a_time_that_is_not_now_is_warned_of(said: str, warned: bool) -> None:
    obj = {"metadata": {"annotations": {"triplane.dev/requestedAt": said}}}
    response = review.clock_response(Noon(), {"uid": "u-1", "object": obj})["response"]
    assert response["allowed"] is True
    assert ("warnings" in response) is warned


# -- several layers ----------------------------------------------------------------------------------


def saying(outcome: Outcome) -> Check:
    async def check(asked: Asked, reads: Reads) -> Outcome:
        return outcome

    return check


def objecting(reason: str = "PolicyDenied", ask: str | None = "carol") -> Check:
    return saying(Outcome((Violation("Policy team/nights validations[0]", "not at night", reason, ask),)))


async def failing(asked: Asked, reads: Reads) -> Outcome:
    raise Unavailable("the Policies are not known yet")


async def test_one_answer_has_what_every_layer_says() -> None:
    heard = saying(Outcome(warnings=("mind the gap",), audit={"policy": "team/gap"}))
    response = await answer(Store(), request(dependsOn=["new"]), objecting(), heard)
    assert [cause["reason"] for cause in response["status"]["details"]["causes"]] == [
        "FieldValueInvalid",
        "PolicyDenied",
    ]
    assert "not at night; ask carol" in response["status"]["message"]
    assert response["warnings"] == ["mind the gap"]
    assert response["auditAnnotations"] == {"policy": "team/gap"}


async def test_warnings_and_annotations_come_with_a_yes_too() -> None:
    response = await answer(Store(), request(), saying(Outcome(warnings=("mind the gap",), audit={"a": "b"})))
    assert response["allowed"] is True
    assert (response["warnings"], response["auditAnnotations"]) == (["mind the gap"], {"a": "b"})


async def test_many_warnings_are_cut() -> None:
    response = await answer(Store(), request(), saying(Outcome(warnings=tuple(f"w{n}" for n in range(50)))))
    assert response["warnings"][-2:] == ["w18", "and 31 more warnings"]


async def test_a_layer_that_cannot_tell_refuses() -> None:
    status = (await answer(Store(), request(), failing))["status"]
    assert status["code"] == 503
    assert "the Policies are not known yet" in status["message"]


async def test_what_one_layer_knows_to_be_wrong_is_said_though_another_cannot_tell() -> None:
    status = (await answer(Store(), request(dependsOn=["new"]), failing))["status"]
    assert status["code"] == 422


async def test_a_refusal_of_the_user_is_forbidden() -> None:
    status = (await answer(Store(), request(), objecting(FORBIDDEN)))["status"]
    assert (status["code"], status["reason"]) == (403, "Forbidden")


async def test_layers_that_read_the_same_object_read_it_once() -> None:
    async def reader(asked: Asked, reads: Reads) -> Outcome:
        await reads.get("Task", "demo", "a")
        return Outcome()

    store = Store(a=[])
    assert (await answer(store, request(dependsOn=["a"]), reader, reader))["allowed"] is True
    assert store.read == ["a"]


@pytest.mark.parametrize(
    ("kind", "change", "read"),
    [
        pytest.param("Task", {"maxRetries": 3}, [], id="an update that changes no edge"),
        pytest.param("Task", {"review": {"people": ["a", "b"]}}, ["a"], id="other reviewers"),
    ],
)
async def test_what_an_update_cannot_change_is_not_judged_again(
    kind: str, change: dict[str, Any], read: list[str]
) -> None:
    store = Store(a=["new"] if not read else [])
    assert (await answer(store, update(request(kind=kind, dependsOn=["a"]), **change)))["allowed"] is True
    assert store.read == read


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT", None])
def test_another_operation_is_not_judged(operation: str | None) -> None:
    with pytest.raises(InvalidInput, match="CREATE and UPDATE"):
        review.asked_of({**request(), "operation": operation})
