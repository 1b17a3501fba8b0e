"""The shipped webhook configuration, filled in."""

import base64
from pathlib import Path

import pytest

from triplane import endpoints
from triplane.api.kinds import KINDS
from triplane.api.policy import PolicyKind
from triplane.errors import Unavailable
from triplane.localcluster.install import load_manifests
from triplane.localcluster.webhook import NAME, address, configuration, is_replica, mark, process_name

AUTHORITY = b"-----BEGIN CERTIFICATE-----\n"


def test_each_entry_gets_its_path_and_the_authority() -> None:
    webhooks = configuration("https://127.0.0.1:7", AUTHORITY)["webhooks"]
    assert [each["clientConfig"]["url"] for each in webhooks] == [
        f"https://127.0.0.1:7/review/{mark('https://127.0.0.1:7', AUTHORITY)}",
        "https://127.0.0.1:7/clock",
    ]
    assert all(base64.b64decode(each["clientConfig"]["caBundle"]) == AUTHORITY for each in webhooks)


def test_it_keeps_the_promises_of_the_design() -> None:
    """Own group only, no deletes, five seconds, closed where it matters, nothing of the operator's."""
    graph, clock = configuration("https://127.0.0.1:7", AUTHORITY)["webhooks"]
    assert (graph["failurePolicy"], clock["failurePolicy"]) == ("Fail", "Ignore")
    for each in (graph, clock):
        assert each["sideEffects"] in {"None", "NoneOnDryRun"}
        assert each["timeoutSeconds"] <= 5
        for rule in each["rules"]:
            assert rule["apiGroups"] == ["triplane.dev"]
            assert set(rule["operations"]) <= {"CREATE", "UPDATE"}
            assert not any("/" in resource or "*" in resource for resource in rule["resources"])
    exempt = graph["matchConditions"][0]["expression"]
    for account in ("triplane-operator", "generic-garbage-collector", "namespace-controller"):
        assert account in exempt


def test_every_kind_a_policy_can_bind_is_asked_about() -> None:
    rule = configuration("https://127.0.0.1:7", AUTHORITY)["webhooks"][0]["rules"][0]
    assert set(rule["resources"]) == {KINDS[kind].info.plural for kind in (*PolicyKind, "Policy")}


def test_another_address_or_another_bundle_has_another_mark() -> None:
    assert len({mark("https://a:1", b"x"), mark("https://a:2", b"x"), mark("https://a:1", b"y")}) == 3


def test_replicas_are_told_from_other_processes() -> None:
    assert [process_name(number) for number in (1, 2)] == ["admission", "admission-2"]
    assert [is_replica(name) for name in ("admission", "admission-2", "gateway")] == [True, True, False]


def test_it_is_not_applied_before_it_can_be_reached() -> None:
    assert not [each for each in load_manifests() if each["kind"] == "ValidatingWebhookConfiguration"]


def test_its_address_is_the_announced_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="triplane up"):
        address(tmp_path)
    endpoints.announce(tmp_path, NAME, "https://127.0.0.1:7")
    assert address(tmp_path) == "https://127.0.0.1:7"
