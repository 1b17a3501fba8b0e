"""The shipped webhook configuration, filled in."""

import base64
from pathlib import Path

import pytest

from triplane import endpoints
from triplane.errors import Unavailable
from triplane.localcluster.install import load_manifests
from triplane.localcluster.webhook import NAME, address, configuration

AUTHORITY = b"-----BEGIN CERTIFICATE-----\n"


def test_each_entry_gets_its_path_and_the_authority() -> None:
    webhooks = configuration("https://127.0.0.1:7", AUTHORITY)["webhooks"]
    assert [each["clientConfig"]["url"] for each in webhooks] == [
        "https://127.0.0.1:7/graph",
        "https://127.0.0.1:7/clock",
    ]
    assert all(base64.b64decode(each["clientConfig"]["caBundle"]) == AUTHORITY for each in webhooks)


def test_it_keeps_the_promises_of_the_design() -> None:
    """Own group only, no deletes, five seconds, closed where it matters, nothing of the operator's."""
    graph, clock = configuration("https://127.0.0.1:7", AUTHORITY)["webhooks"]
    assert (graph["failurePolicy"], clock["failurePolicy"]) == ("Fail", "Ignore")
    for each in (graph, clock):
        assert each["sideEffects"] == "None"
        assert each["timeoutSeconds"] <= 5
        for rule in each["rules"]:
            assert rule["apiGroups"] == ["triplane.dev"]
            assert set(rule["operations"]) <= {"CREATE", "UPDATE"}
            assert not any("/" in resource or "*" in resource for resource in rule["resources"])
    exempt = graph["matchConditions"][0]["expression"]
    for account in ("triplane-operator", "generic-garbage-collector", "namespace-controller"):
        assert account in exempt


def test_it_is_not_applied_before_it_can_be_reached() -> None:
    assert not [each for each in load_manifests() if each["kind"] == "ValidatingWebhookConfiguration"]


def test_its_address_is_the_announced_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="triplane up"):
        address(tmp_path)
    endpoints.announce(tmp_path, NAME, "https://127.0.0.1:7")
    assert address(tmp_path) == "https://127.0.0.1:7"
