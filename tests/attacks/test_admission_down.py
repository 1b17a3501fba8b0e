"""Somebody who wants an object in that admission refuses brings the webhook down first, or waits until it is.

The weakened check is ``failurePolicy: Ignore``: what cannot be asked is let through.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.e2e.api import Api
from tests.e2e.fixtures import AdmissionWebhook
from tests.e2e.objects import valid

pytestmark = [pytest.mark.e2e, pytest.mark.attacks]

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/admission.triplane.dev"


@contextmanager
def failure_policy(admin: Api, word: str) -> Iterator[None]:
    """The webhook configuration with another ``failurePolicy``, once that is in force."""

    def write(value: str) -> None:
        patch = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": value}]
        headers = {"Content-Type": "application/json-patch+json"}
        admin.request("PATCH", CONFIGURATION, json=patch, headers=headers).raise_for_status()
        time.sleep(1)

    write(word)
    try:
        yield
    finally:
        write("Fail")


@pytest.fixture
def down(webhook: AdmissionWebhook) -> Iterator[None]:
    """The webhook is gone; its registration stays."""
    webhook.stop()
    try:
        yield
    finally:
        webhook.start()


def endless(namespace: str, name: str) -> dict[str, Any]:
    """A Task that waits for itself."""
    return valid("Task", namespace, name, dependsOn=[name])


def greedy(namespace: str, name: str) -> dict[str, Any]:
    """A Graph that takes more than the installation gives."""
    return valid("Graph", namespace, name, authority={"mayUse": {"egress": ["169.254.169.254"]}})


@pytest.mark.usefixtures("down")
def test_with_a_webhook_that_may_be_left_out_the_attack_succeeds(namespace: str, admin: Api, alice: Api) -> None:
    with failure_policy(admin, "Ignore"):
        assert alice.create(endless(namespace, "endless")).status_code == 201
        assert alice.create(greedy(namespace, "greedy")).status_code == 201


@pytest.mark.usefixtures("down")
def test_while_admission_is_down_nothing_gets_in_and_everything_gets_out(
    namespace: str, admin: Api, alice: Api
) -> None:
    for obj in (endless(namespace, "endless"), greedy(namespace, "greedy"), valid("Graph", namespace)):
        for caller in (alice, admin):
            answer = caller.create(obj)
            assert answer.status_code == 500
            assert "failed calling webhook" in answer.json()["message"]
        assert alice.get(obj).status_code == 404


def test_what_was_let_in_before_can_be_stopped_and_deleted(
    webhook: AdmissionWebhook, namespace: str, alice: Api
) -> None:
    task = valid("Task", namespace)
    alice.create(task).raise_for_status()
    webhook.stop()
    try:
        widened = {"spec": {"authority": {"mayUse": {"egress": ["*"]}}}}
        assert alice.merge(task, widened).status_code == 500
        assert alice.merge(task, {"spec": {"suspend": True, **widened["spec"]}}).status_code == 500
        assert alice.merge(task, {"spec": {"suspend": True}}).status_code == 200
        assert alice.delete(task).status_code == 200
    finally:
        webhook.start()
