"""`triplane why-denied` against a real API server: each layer is recognised in the words it really comes in."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.api import Api
from tests.e2e.fixtures import AdmissionWebhook, ControlPlane
from tests.e2e.objects import operator_task, valid

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("webhook")]

Ask = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def ask(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Ask:
    """The exit code, and what is said of each object; as ``alice`` unless told otherwise."""

    def run(*what: Any, as_: str = "alice") -> tuple[int, list[dict[str, Any]]]:
        if isinstance(what[0], str):
            arguments = list(what)
        else:
            path = tmp_path / "manifests.yaml"
            path.write_text(yaml.safe_dump_all(what))
            arguments = ["-f", str(path)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
        done = subprocess.run(
            [sys.executable, "-m", "triplane.cli.main", "why-denied", *arguments, "-n", namespace, "-o", "json"],
            env={**kept, "TRIPLANE_KUBECONFIG": str(control_plane.kubeconfig(as_))},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


def test_what_nothing_stands_against(ask: Ask, namespace: str, alice: Api) -> None:
    task = valid("Task", namespace)
    assert ask(task, valid("Graph", namespace)) == (
        0,
        [
            {"object": f"Task {namespace}/sample", "denied": False, "causes": []},
            {"object": f"Graph {namespace}/sample", "denied": False, "causes": []},
        ],
    )
    assert alice.get(task).status_code == 404
    alice.create(task).raise_for_status()
    assert ask("task/sample")[0] == 0
    assert ask({**task, "spec": {**task["spec"], "maxRetries": 3}})[0] == 0
    assert alice.get(task).json()["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("kind", "spec", "found"),
    [
        pytest.param("Task", {"maxRetries": -1}, {"layer": "schema", "field": "spec.maxRetries"}, id="schema"),
        pytest.param("Task", {"objektive": "x"}, {"layer": "schema", "field": "spec.objektive"}, id="unknown field"),
        pytest.param("Task", {"agentRef": None}, {"layer": "schema", "field": "spec"}, id="rule of the schema"),
        pytest.param(
            "Task", {"step": "x"}, {"layer": "static policy", "rule": "operator-tasks.triplane.dev"}, id="static policy"
        ),
        pytest.param("Task", {"dependsOn": ["sample"]}, {"layer": "graph", "field": "spec.dependsOn[0]"}, id="graph"),
        pytest.param(
            "Graph",
            {"authority": {"mayUse": {"egress": ["169.254.169.254"]}}},
            {"layer": "authority", "axis": "egress", "value": "169.254.169.254"},
            id="authority",
        ),
        pytest.param("Policy", {}, {"layer": "roles", "rule": "create"}, id="roles"),
    ],
)
def test_each_layer_is_recognised(
    kind: str, spec: dict[str, Any], found: dict[str, str], ask: Ask, namespace: str
) -> None:
    code, (said,) = ask(valid(kind, namespace, **spec))
    assert code == 1
    assert any(found.items() <= cause.items() for cause in said["causes"]), said
    assert all(cause.get("ask") for cause in said["causes"])


def test_a_policy_is_named_with_rule_and_contact(ask: Ask, namespace: str, admin: Api) -> None:
    rule = {"expression": "object.spec.objective.startsWith('Please')", "message": "say please"}
    policy = valid("Policy", namespace, "manners", contact="platform@example.com", validations=[rule])
    admin.create(policy).raise_for_status()
    code, (said,) = ask(valid("Task", namespace))
    assert code == 1
    (cause,) = said["causes"]
    assert (cause["layer"], cause["rule"]) == ("policy", f"{namespace}/manners validations[0]")
    assert (cause["message"], cause["ask"]) == ("say please", "platform@example.com")


def test_who_controls_an_object_is_whom_to_ask(ask: Ask, namespace: str, bob: Api) -> None:
    agent = valid("Agent", namespace)
    bob.create(agent).raise_for_status()
    code, (said,) = ask({**agent, "spec": {**agent["spec"], "capabilities": []}})
    assert code == 1
    assert (said["causes"][0]["rule"], said["causes"][0]["ask"]) == (
        "controlled-by-requester.triplane.dev",
        bob.username(),
    )


def test_a_stored_object_that_a_later_policy_is_against(ask: Ask, namespace: str, admin: Api, alice: Api) -> None:
    alice.create(valid("Task", namespace)).raise_for_status()
    never = valid("Policy", namespace, "never", validations=[{"expression": "false", "message": "no more"}])
    admin.create(never).raise_for_status()
    code, (said,) = ask("task/sample")
    assert (code, said["causes"][0]["message"]) == (1, "no more")


def test_what_the_operator_made_is_nobody_elses_to_make(namespace: str, operator: Api, ask: Ask) -> None:
    operator.create(operator_task(namespace)).raise_for_status()
    with pytest.raises(AssertionError, match="was made by the operator"):
        ask("task/made")


def test_a_webhook_that_is_down_is_no_verdict(webhook: AdmissionWebhook, ask: Ask, namespace: str) -> None:
    webhook.stop()
    try:
        code, (said,) = ask(valid("Task", namespace))
    finally:
        webhook.start()
    (cause,) = said["causes"]
    assert (code, cause["layer"], cause["rule"]) == (1, "webhook", "Unreachable")
