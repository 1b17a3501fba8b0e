"""The admission webhook on a real API server (docs/reference/admission.md): what it refuses, what it lets pass, and
what goes on without it. Bad input of its kind is in ``test_bad_input.py``."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.e2e.api import Api
from tests.e2e.fixtures import AdmissionWebhook
from tests.e2e.objects import operator_task, valid

from triplane.api.text import REQUESTED_AT
from triplane.api.work import MAX_STEPS
from triplane.domain.admission import MAX_SHOWN

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("webhook")]


def refused(answer: httpx.Response, *words: str) -> dict[str, str]:
    """Field to message, of a refusal by the webhook; each word stands in one of the messages."""
    body = answer.json()
    assert (answer.status_code, body["reason"]) == (422, "Invalid"), answer.text
    assert 'admission webhook "governance.admission.triplane.dev" denied the request: ' in body["message"]
    for word in words:
        assert word in body["message"]
    return {cause["field"]: cause["message"] for cause in body["details"]["causes"]}


def step(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    made = {"name": name, "objective": f"Do {name}", "agentRef": {"name": "worker"}, **fields}
    return {**made, "dependsOn": list(depends_on)} if depends_on else made


# -- what passes -----------------------------------------------------------------------------------------


PEOPLES = (
    "Graph", "Node", "Workflow", "Task", "Agent", "Harness", "Capability", "Guideline", "Tool", "Policy", "Review",
)  # fmt: skip


@pytest.mark.parametrize("kind", PEOPLES)
def test_ordinary_objects_pass(kind: str, rules_namespace: str, alice: Api) -> None:
    assert alice.create(valid(kind, rules_namespace)).status_code == 201


def test_a_dangling_reference_is_accepted_for_objects_may_come_in_any_order(namespace: str, alice: Api) -> None:
    assert alice.create(valid("Task", namespace, dependsOn=["later"])).status_code == 201
    node = {"graphRef": {"name": "later"}, "workflowRef": {"name": "later"}}
    node |= {"overrides": [{"name": "any"}], "parameters": {"any": "1"}}
    manifest = valid("Node", namespace)
    manifest["spec"] = node
    assert alice.create(manifest).status_code == 201


def test_steps_may_stand_in_any_order(namespace: str, alice: Api) -> None:
    steps = [step("c", "b", "a"), step("b", "a"), step("a")]
    assert alice.create(valid("Workflow", namespace, steps=steps)).status_code == 201


def crowded(n: int) -> dict[str, Any]:
    """A step that waits for earlier ones, with as many inputs and outputs as 256 KiB leave room for."""
    layer = n - n % 16
    before = [f"s{layer - 16 + (n + back) % 16}" for back in range(4)] if layer else []
    outputs = [{"name": f"o{m}", "path": f"o{m}.json", "mediaType": "application/json"} for m in range(4)]
    inputs = [{"name": f"i{m}", "from": {"step": name, "output": "o0"}} for m, name in enumerate(before)]
    when = f"parameters['p'] != '{n}'"
    return step(f"s{n}", when=when, inputs=inputs, outputs=outputs, definitionOfDone="x" * 200)


def test_the_largest_workflow_is_accepted_in_time_and_within_the_cost_of_its_rules(namespace: str, alice: Api) -> None:
    steps = [crowded(n) for n in range(MAX_STEPS)]
    size = len(json.dumps(steps))
    assert 200_000 < size < 262_144, size
    began = time.monotonic()
    answer = alice.create(valid("Workflow", namespace, steps=steps))
    assert answer.status_code == 201, answer.text
    assert time.monotonic() - began < 5
    node = valid("Node", namespace, steps=steps)
    assert alice.create(node).status_code == 201
    assert alice.merge(node, {"spec": {"suspend": True}}).status_code == 200
    using = valid("Node", namespace, "using")
    using["spec"] = {"graphRef": {"name": "g"}, "workflowRef": {"name": "sample"}}
    using["spec"]["overrides"] = [{"name": f"s{n}", "objective": "Otherwise"} for n in range(MAX_STEPS)]
    assert alice.create(using).status_code == 201


def test_the_operator_does_not_wait_for_the_webhook(namespace: str, operator: Api) -> None:
    task = operator_task(namespace)
    task["spec"]["dependsOn"] = ["made"]
    assert operator.create(task).status_code == 201  # it shows such a Task as Stalled


# -- what it refuses -------------------------------------------------------------------------------------


def test_every_problem_is_listed_with_its_field(namespace: str, alice: Api) -> None:
    edges = [{"task": "other", "output": "report"}] * 2
    task = valid("Task", namespace, dependsOn=["sample"], when="steps +", inputs=[{"name": "i", "sources": edges}])
    found = refused(alice.create(task), "sample → sample", "the same edge from other")
    assert set(found) == {"spec.dependsOn[0]", "spec.inputs[i].sources", "spec.when"}


def test_a_long_list_of_problems_is_cut(namespace: str, alice: Api) -> None:
    steps = [step(f"s{n}", when=f"nonsense{n}") for n in range(MAX_SHOWN + 5)]
    found = refused(alice.create(valid("Workflow", namespace, steps=steps)), "and 5 more")
    assert len(found) == MAX_SHOWN + 1
    assert "nonsense0" in found["spec.steps[s0].when"]


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        pytest.param({"overrides": [{"name": "cuont"}]}, "spec.overrides[cuont]", "it has count", id="an unknown step"),
        pytest.param({}, "spec.parameters", "parameter depth has no default", id="a missing parameter"),
        pytest.param(
            {"parameters": {"depth": "3", "width": "4"}}, "spec.parameters", "no parameter width",
            id="an unknown parameter",
        ),
        pytest.param(
            {"parameters": {"depth": "three"}}, "spec.parameters", "not a whole number",
            id="a parameter of a wrong type",
        ),
        pytest.param(
            {"parameters": {"depth": "3"}, "overrides": [{"name": "count", "when": "1 + 1"}]},
            "spec.overrides[count].when", "not bool", id="an override with a condition that is none",
        ),
    ],
)  # fmt: skip
def test_a_node_that_does_not_fit_its_workflow(
    spec: dict[str, Any], field: str, words: str, namespace: str, alice: Api
) -> None:
    depth = {"name": "depth", "type": "Integer"}
    alice.create(valid("Workflow", namespace, "flow", parameters=[depth])).raise_for_status()
    node = valid("Node", namespace)
    node["spec"] = {"graphRef": {"name": "g"}, "workflowRef": {"name": "flow"}, **spec}
    assert words in refused(alice.create(node))[field]
    node["spec"] = {"graphRef": {"name": "g"}, "workflowRef": {"name": "flow"}, "parameters": {"depth": "3"}}
    assert alice.create(node).status_code == 201


def test_a_workflow_is_checked_when_its_steps_are_edited(namespace: str, alice: Api) -> None:
    workflow = valid("Workflow", namespace, steps=[step("a"), step("b", "a")])
    alice.create(workflow).raise_for_status()
    looped = {"spec": {"steps": [step("a", "b"), step("b", "a")]}}
    refused(alice.merge(workflow, looped), "a → b → a")
    refused(alice.apply({**workflow, **looped}), "a → b → a")
    assert alice.merge(workflow, {"metadata": {"labels": {"team": "red"}}}).status_code == 200
    assert alice.get(workflow).json()["metadata"]["generation"] == 1


def test_a_dry_run_is_refused_like_the_write_and_leaves_nothing(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace, dependsOn=["sample"])
    refused(alice.create(task, dryRun="All"), "sample → sample")
    assert alice.create(valid("Task", namespace, dependsOn=["other"]), dryRun="All").status_code == 201
    assert alice.get(task).status_code == 404


def test_a_name_made_by_the_server_is_the_name_that_is_checked(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace, dependsOn=["other"])
    task["metadata"] = {"namespace": namespace, "generateName": "made-"}
    assert alice.create(task).json()["metadata"]["name"].startswith("made-")


def test_kubectl_shows_where_and_why(namespace: str, kubectl: Callable[..., str], tmp_path: Path) -> None:
    manifest = tmp_path / "task.yaml"
    manifest.write_text(yaml.safe_dump(valid("Task", namespace, dependsOn=["sample"])))
    said = kubectl("apply", "-f", str(manifest), fails=True)
    assert 'The Task "sample" is invalid: spec.dependsOn[0]: sample depends on itself' in said


# -- warnings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["2099-01-01T00:00:00Z", "1999-01-01T00:00:00+02:00", "2026-01-01T00:00:00"])
def test_a_time_that_is_not_now_is_warned_of_and_means_nothing(said: str, namespace: str, alice: Api) -> None:
    graph = valid("Graph", namespace)
    alice.create(graph).raise_for_status()
    answer = alice.merge(graph, {"metadata": {"annotations": {REQUESTED_AT: said}}})
    assert answer.status_code == 200
    assert re.search(rf"{re.escape(said)}.*the server's time is 20\d\d-", answer.headers["warning"])
    assert answer.json()["metadata"]["generation"] == 1


def test_a_time_that_is_now_or_a_word_is_not_warned_of(namespace: str, alice: Api) -> None:
    graph = valid("Graph", namespace)
    for said in (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "again-7"):
        graph["metadata"]["annotations"] = {REQUESTED_AT: said}
        assert "warning" not in alice.apply(graph).raise_for_status().headers


# -- the process -----------------------------------------------------------------------------------------


def test_its_answers_are_measured(webhook: AdmissionWebhook, namespace: str, alice: Api) -> None:
    alice.create(valid("Task", namespace, dependsOn=["sample"]))
    metrics = webhook.get("/metrics").raise_for_status().text
    found = re.search(r'seconds_count\{answer="refused",operation="CREATE",resource="tasks"\} (\d+)', metrics)
    assert found
    assert int(found[1]) >= 1


def test_a_renewed_certificate_is_taken_up_without_a_restart(
    webhook: AdmissionWebhook, namespace: str, alice: Api
) -> None:
    before = webhook.certificate()
    webhook.certificates.serving.unlink()
    webhook.certificates.ensure()
    deadline = time.monotonic() + 30
    while webhook.certificate() == before:
        assert time.monotonic() < deadline, "it still serves the old certificate"
        time.sleep(0.2)
    refused(alice.create(valid("Task", namespace, dependsOn=["sample"])), "sample → sample")


def test_what_is_no_review_is_refused_and_it_goes_on(webhook: AdmissionWebhook) -> None:
    assert webhook.get("/review/x").status_code == 405
    assert webhook.post("/review/x", token=None).status_code == 401
    assert webhook.post("/review/x", token="forged").status_code == 401
    assert webhook.post("/review/x", token=webhook.caller).status_code == 400
    assert webhook.get("/healthz").status_code == 200


def test_without_it_creates_fail_closed_and_every_stop_works(
    webhook: AdmissionWebhook, rules_namespace: str, alice: Api
) -> None:
    made = {kind: valid(kind, rules_namespace, "before") for kind in PEOPLES}
    for obj in made.values():
        alice.create(obj).raise_for_status()
    webhook.stop()
    try:
        for kind in PEOPLES:
            answer = alice.create(obj := valid(kind, rules_namespace))
            assert answer.status_code == 500
            assert 'failed calling webhook "governance.admission.triplane.dev"' in answer.json()["message"]
            assert alice.get(obj).status_code == 404
        assert alice.merge(made["Agent"], {"spec": {"capabilities": []}}).status_code == 500
        assert alice.merge(made["Policy"], {"spec": {"enforcement": "Audit"}}).status_code == 500
        for kind in ("Graph", "Node", "Task"):
            assert alice.merge(made[kind], {"spec": {"suspend": True}}).status_code == 200
        for kind in ("Node", "Task"):
            assert alice.merge(made[kind], {"spec": {"cancel": True}}).status_code == 200
        assert alice.merge(made["Agent"], {"spec": {"lifecycle": "Suspended"}}).status_code == 200
        assert alice.merge(made["Agent"], {"spec": {"lifecycle": "Active"}}).status_code == 500
        now = {"metadata": {"annotations": {REQUESTED_AT: "2099-01-01T00:00:00Z"}, "finalizers": []}}
        for obj in made.values():
            assert alice.merge(obj, now).status_code == 200
            assert alice.delete(obj).status_code == 200
    finally:
        webhook.start()
    refused(alice.create(valid("Task", rules_namespace, dependsOn=["sample"])), "sample → sample")


def test_an_expired_certificate_is_a_clear_denial_and_deletes_work(
    webhook: AdmissionWebhook, namespace: str, alice: Api
) -> None:
    graph = valid("Graph", namespace)
    alice.create(graph).raise_for_status()
    with webhook.expired_certificate():
        answer = alice.create(valid("Task", namespace))
        assert answer.status_code == 500
        assert "certificate has expired" in answer.json()["message"]
        assert alice.delete(graph).status_code == 200
    assert alice.create(valid("Task", namespace)).status_code == 201


def test_a_webhook_that_does_not_answer_in_time_is_a_refusal(
    webhook: AdmissionWebhook, namespace: str, alice: Api
) -> None:
    began = time.monotonic()
    with webhook.frozen():
        answer = alice.create(valid("Workflow", namespace))
    assert answer.status_code == 500
    assert "governance.admission.triplane.dev" in answer.json()["message"]
    assert time.monotonic() - began < 15
    assert alice.create(valid("Workflow", namespace)).status_code == 201
