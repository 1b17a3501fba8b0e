"""The rendered definitions on a real API server: accepted as they are, with defaults, columns and names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.api import Api
from tests.e2e.objects import BY_THE_OPERATOR, operator_task, valid

from triplane.api.crd import render, render_all
from triplane.api.kinds import KINDS
from triplane.api.meta import NEVER

pytestmark = pytest.mark.e2e

WITH_STATUS = [kind for kind, cls in KINDS.items() if cls.info.ready_condition is not None]


def author_of(kind: str, operator: Api, alice: Api, admin: Api) -> Api:
    return operator if kind in BY_THE_OPERATOR else admin if kind == "Policy" else alice


@pytest.mark.parametrize("kind", KINDS)
def test_the_definition_is_established_and_stored_as_rendered(kind: str, admin: Api) -> None:
    rendered = render(KINDS[kind])
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{rendered['metadata']['name']}"
    stored = admin.request("GET", path).raise_for_status().json()
    conditions = {each["type"]: each["status"] for each in stored["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert stored["spec"]["names"] == rendered["spec"]["names"]
    assert stored["spec"]["versions"] == rendered["spec"]["versions"]


@pytest.mark.parametrize("kind", WITH_STATUS)
def test_the_first_get_shows_the_summary_condition_unknown(
    kind: str, namespace: str, alice: Api, operator: Api, admin: Api
) -> None:
    obj = valid(kind, namespace)
    assert author_of(kind, operator, alice, admin).create(obj).status_code == 201
    status = alice.get(obj).json()["status"]
    assert status["observedGeneration"] == 0
    assert status.get("phase") == KINDS[kind].info.status_defaults.get("phase")
    assert status["conditions"] == [
        {
            "type": KINDS[kind].info.ready_condition,
            "status": "Unknown",
            "observedGeneration": 0,
            "lastTransitionTime": NEVER,
            "reason": "Pending",
            "message": "Not yet observed by the operator",
        }
    ]
    KINDS[kind].model_validate(alice.get(obj).json())


def test_a_review_has_no_status(namespace: str, alice: Api, admin: Api) -> None:
    review = valid("Review", namespace)
    assert alice.create({**review, "status": {"phase": "Succeeded"}}).status_code == 201
    assert "status" not in alice.get(review).json()
    assert admin.merge(review, {"status": {"phase": "Succeeded"}}, status=True).status_code == 404


def test_scalar_defaults_of_the_spec_are_filled_in(namespace: str, alice: Api) -> None:
    inputs = [{"name": "data", "digest": "sha256:" + "0" * 64}]
    stored = alice.create(valid("Task", namespace, inputs=inputs)).json()["spec"]
    assert (stored["maxRetries"], stored["maxReworks"], stored["timeoutSeconds"]) == (1, 1, 3600)
    assert stored["inputs"][0]["type"] == "File"
    assert alice.create(valid("Agent", namespace)).json()["spec"]["lifecycle"] == "Active"


@pytest.mark.parametrize("kind", ["Graph", "Node", "Workflow", "Agent", "Harness", "Capability", "Guideline", "Tool"])
def test_applying_the_same_manifest_again_changes_nothing(kind: str, namespace: str, alice: Api, operator: Api) -> None:
    manifest = valid(kind, namespace)
    alice.apply(manifest).raise_for_status()
    operator.merge(manifest, {"status": {"observedGeneration": 1}}, status=True).raise_for_status()
    first = alice.get(manifest).json()
    assert alice.apply(manifest).raise_for_status().json() == first
    assert first["metadata"]["generation"] == 1


@pytest.fixture
def one_of_each(namespace: str, alice: Api, operator: Api, admin: Api) -> str:
    for kind in KINDS:
        assert author_of(kind, operator, alice, admin).create(valid(kind, namespace)).status_code == 201
    return namespace


def test_kubectl_get_triplane_lists_every_kind(one_of_each: str, kubectl: Callable[..., str], tmp_path: Path) -> None:
    # A discovery cache filled while the definitions were being installed would know some of the kinds only.
    fresh = ("--cache-dir", str(tmp_path))
    listed = {
        line.split()[1]
        for line in kubectl("get", "triplane", "-A", "--no-headers", *fresh).splitlines()
        if line.startswith(f"{one_of_each} ")
    }
    assert listed == {f"{cls.kind_name().lower()}.triplane.dev/sample" for cls in KINDS.values()}


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_shows_every_column(kind: str, one_of_each: str, kubectl: Callable[..., str]) -> None:
    info = KINDS[kind].info
    short = info.short_names[0]
    narrow = kubectl("get", short, "-n", one_of_each).splitlines()
    wide = kubectl("get", short, "-n", one_of_each, "-o", "wide").splitlines()
    assert narrow[0].split() == ["NAME", *(c.name.upper() for c in info.columns if not c.priority), "AGE"]
    assert set(wide[0].split()) == {"NAME", "AGE", *(column.name.upper() for column in info.columns)}
    assert narrow[1].startswith("sample ")


def test_the_columns_show_who_asked(one_of_each: str, alice: Api, kubectl: Callable[..., str]) -> None:
    assert alice.username() in kubectl("get", "tag", "-n", one_of_each, "-o", "wide")


def test_kubectl_explain_prints_the_descriptions(kubectl: Callable[..., str]) -> None:
    assert "What must be achieved." in kubectl("explain", "tasks.triplane.dev.spec.objective")
    assert "Octets." in kubectl("explain", "artifacts.triplane.dev.spec.size")


def test_fields_can_be_selected_by_phase_and_graph(one_of_each: str, kubectl: Callable[..., str]) -> None:
    def names(selector: str) -> str:
        arguments = ("get", "tt", "-n", one_of_each, "-o", "name", "--field-selector", selector)
        return kubectl(*arguments).strip()

    assert names("status.phase=Pending,spec.graphRef.name=graph") == "task.triplane.dev/sample"
    assert names("status.phase=Succeeded") == ""


def test_kubectl_wait_returns_once_the_operator_says_succeeded(
    namespace: str, operator: Api, kubectl: Callable[..., str]
) -> None:
    task = operator_task(namespace)
    assert operator.create(task).status_code == 201
    wait = ("wait", "--for=condition=Succeeded", "task.triplane.dev/made", "-n", namespace)
    assert "timed out" in kubectl(*wait, "--timeout=1s", fails=True)
    condition = {
        "type": "Succeeded",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "Accepted",
        "message": "The review approved every output",
    }
    body = {"apiVersion": task["apiVersion"], "kind": "Task", "metadata": {"name": "made"}}
    body["metadata"] |= {"namespace": namespace}
    answer = operator.apply({**body, "status": {"phase": "Succeeded", "conditions": [condition]}}, status=True)
    assert answer.status_code == 200, answer.text
    assert "condition met" in kubectl(*wait, "--timeout=10s")


def test_rendering_is_deterministic_and_within_the_servers_request_limit() -> None:
    first, second = (json.dumps(render_all()) for _ in range(2))
    assert first == second
    assert all(len(json.dumps(each)) < 256 * 1024 for each in render_all())
