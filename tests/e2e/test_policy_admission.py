"""Policies at the admission webhook of a real API server: what is refused, warned of, and left alone."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.api import Api
from tests.e2e.objects import valid

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("webhook")]

SYSTEM = "triplane-system"
BINDING_SECONDS = 2.0


def policy(namespace: str, rule: str, name: str = "rule", **spec: Any) -> dict[str, Any]:
    made = valid("Policy", namespace, name=name)
    made["spec"] = {
        "match": {"kinds": ["Task", "Agent"]},
        "stages": ["Admission"],
        "contact": "ops@example.org",
        "validations": [{"expression": rule, "message": "not like this", "reason": "House"}],
        **spec,
    }
    return made


def until(said: Any) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not said():
        assert time.monotonic() - began < 10
        time.sleep(0.02)
    return time.monotonic() - began


def put(admin: Api, namespace: str, rule: str, probe: dict[str, Any], **spec: Any) -> float:
    """Make the Policy, and return how long it took until the probe was refused."""
    admin.create(policy(namespace, rule, **spec)).raise_for_status()
    return until(lambda: admin.create(probe, dryRun="All").status_code == 422)


def task(namespace: str, name: str = "probe", **spec: Any) -> dict[str, Any]:
    return valid("Task", namespace, name=name, **spec)


@pytest.fixture
def everywhere(admin: Api, namespace: str) -> Iterator[str]:
    """A Policy of the installation for this namespace alone; gone afterwards."""
    made = policy(SYSTEM, "object.kind != 'Task'", name=f"for-{namespace}"[:63])
    made["spec"]["match"]["namespaces"] = [namespace]
    admin.create(made).raise_for_status()
    until(lambda: admin.create(task(namespace), dryRun="All").status_code == 422)
    yield namespace
    admin.delete(made).raise_for_status()


def test_a_broken_policy_is_refused_with_field_and_position(namespace: str, admin: Api) -> None:
    answer = admin.create(policy(namespace, "object.kind == 'Task' &&\n  nothing"))
    assert answer.status_code == 422, answer.text
    (cause,) = answer.json()["details"]["causes"]
    assert cause["field"] == "spec.validations[0].expression"
    assert "2:3: undeclared reference to 'nothing'" in cause["message"]


def test_it_stays_refused_when_a_good_one_is_broken_later(namespace: str, admin: Api) -> None:
    stored = admin.create(policy(namespace, "true")).raise_for_status().json()
    stored["spec"]["validations"][0]["expression"] = "1 + 1"
    answer = admin.replace(stored)
    assert answer.status_code == 422
    assert "type INT, not bool" in answer.text


def test_a_denial_names_policy_rule_message_and_whom_to_ask(namespace: str, admin: Api, alice: Api) -> None:
    took = put(admin, namespace, "object.kind != 'Task'", task(namespace))
    assert took < BINDING_SECONDS
    answer = alice.create(task(namespace))
    assert answer.status_code == 422
    (cause,) = answer.json()["details"]["causes"]
    assert cause["field"] == f"Policy {namespace}/rule validations[0]"
    assert cause["reason"] == "House"
    assert cause["message"] == "not like this; ask ops@example.org"
    assert alice.create(valid("Graph", namespace)).status_code == 201, "another kind is none of its business"


def test_who_asks_and_what_is_named_is_seen(namespace: str, admin: Api, alice: Api) -> None:
    rule = "graph != null && request.userInfo.username.endsWith(':alice')"
    put(admin, namespace, rule, task(namespace))
    assert alice.create(task(namespace)).status_code == 422, "its Graph does not exist"
    graph = valid("Graph", namespace, name=task(namespace)["spec"]["graphRef"]["name"])
    alice.create(graph).raise_for_status()
    assert alice.create(task(namespace)).status_code == 201
    assert admin.create(task(namespace, "other")).status_code == 422, "he is not alice"


def test_a_warning_goes_through_with_its_words(namespace: str, admin: Api, alice: Api) -> None:
    admin.create(policy(namespace, "false", enforcement="Warn")).raise_for_status()
    answers: list[httpx.Response] = []

    def warned() -> bool:
        answers.append(alice.create(task(namespace), dryRun="All"))
        return "warning" in answers[-1].headers

    until(warned)
    assert answers[-1].status_code == 201
    assert (
        f"Policy {namespace}/rule validations[0]: not like this; ask ops@example.org" in answers[-1].headers["warning"]
    )


def test_one_of_the_installation_binds_and_one_of_a_neighbour_does_not(
    everywhere: str, make_namespace: Any, admin: Api, alice: Api
) -> None:
    neighbour = make_namespace()
    put(admin, neighbour, "false", task(neighbour))
    assert alice.create(valid("Agent", everywhere)).status_code == 201, "the neighbour's Policy denies every Agent"
    assert alice.create(task(everywhere)).status_code == 422


def test_taking_a_label_off_is_no_way_out(namespace: str, admin: Api, alice: Api) -> None:
    made = task(namespace, "marked", maxRetries=1)
    made["metadata"]["labels"] = {"risk": "high"}
    stored = alice.create(made).raise_for_status().json()
    probe = task(namespace)
    probe["metadata"]["labels"] = {"risk": "high"}
    match = {"kinds": ["Task"], "selector": {"matchLabels": {"risk": "high"}}}
    put(admin, namespace, "false", probe, match=match)
    stored["metadata"]["labels"] = {}
    assert alice.replace(stored).status_code == 422
    assert alice.create(task(namespace, "unmarked")).status_code == 201


def test_what_stands_can_be_stopped_and_deleted_whatever_policies_say(namespace: str, admin: Api, alice: Api) -> None:
    stored = alice.create(task(namespace, "work")).raise_for_status().json()
    put(admin, namespace, "false", task(namespace))
    stored["spec"]["cancel"] = True
    answer = alice.replace(stored)
    assert answer.status_code == 200, answer.text
    assert alice.delete(stored).status_code == 200


def test_it_binds_no_longer_once_it_is_deleted(namespace: str, admin: Api, alice: Api) -> None:
    put(admin, namespace, "false", task(namespace))
    admin.delete(policy(namespace, "false")).raise_for_status()
    assert until(lambda: alice.create(task(namespace), dryRun="All").status_code == 201) < BINDING_SECONDS


def test_only_those_of_the_installation_name_namespaces(namespace: str, admin: Api) -> None:
    match = {"kinds": ["Task"], "namespaces": ["prod"]}
    answer = admin.create(policy(namespace, "true", match=match))
    assert answer.status_code == 422
    assert "spec.match.namespaces" in answer.text
