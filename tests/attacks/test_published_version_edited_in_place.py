"""Somebody edits a published version of a Capability, so that Tasks which name it are told something else.

The API server itself refuses it, by rules of the definition: also from its administrator, and without any webhook.
"""

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.api import Api, resource

from triplane.api.capability import Capability
from triplane.api.crd import render

pytestmark = pytest.mark.attacks

PUBLISHED = {
    "version": 1,
    "instructions": "Count [[what]] twice.",
    "parameters": [{"name": "what", "type": "Select", "options": ["apples", "pears"], "default": "apples"}],
    "inputs": [{"name": "data", "mediaType": "application/json", "schema": {"type": "object"}}],
    "outputs": [{"name": "total", "path": "total.json", "mediaType": "application/json", "schema": {"type": "object"}}],
}
_OUTPUT = PUBLISHED["outputs"][0]  # type: ignore[index]
EDITS = {
    "other instructions": {"instructions": "Count once."},
    "no instructions": {"instructions": None},
    "another default": {"parameters": [{**PUBLISHED["parameters"][0], "default": "pears"}]},  # type: ignore[index, dict-item]
    "one more option": {
        "parameters": [{**PUBLISHED["parameters"][0], "options": ["apples", "pears", "all"]}]  # type: ignore[index, dict-item]
    },
    "no input contract": {"inputs": None},
    "a looser output contract": {"outputs": [{**_OUTPUT, "mediaType": "text/plain"}]},  # type: ignore[dict-item]
    "no output contract": {"outputs": []},
    "another input schema": {"inputs": [{**PUBLISHED["inputs"][0], "schema": {}}]},  # type: ignore[index, dict-item]
    "another output schema": {"outputs": [{**_OUTPUT, "schema": {"type": ["object", "null"]}}]},  # type: ignore[dict-item]
}
WEAK = "weak.triplane.dev"


def capability(namespace: str, name: str = "count") -> dict[str, Any]:
    return resource("Capability", namespace, name, {"versions": [copy.deepcopy(PUBLISHED)]})


def edited(change: dict[str, Any]) -> dict[str, Any]:
    version = {**copy.deepcopy(PUBLISHED), **change}
    return {key: value for key, value in version.items() if value is not None}


@pytest.fixture(scope="module")
def weak(admin: Api) -> Iterator[str]:
    """The same definition in another group, without a single rule; its path."""
    definition = json.loads(json.dumps(render(Capability)))
    definition["metadata"]["name"] = f"capabilities.{WEAK}"
    definition["spec"]["group"] = WEAK
    definition["spec"]["names"].update(categories=[], shortNames=[])
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del schema["x-kubernetes-validations"]
    del schema["properties"]["versions"]["items"]["x-kubernetes-validations"]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    admin.request("POST", path, json=definition).raise_for_status()
    served = f"/apis/{WEAK}/v1alpha1/namespaces/default/capabilities"
    deadline = time.monotonic() + 30
    while admin.request("GET", served).status_code != 200:
        assert time.monotonic() < deadline, "the definition is not served"
        time.sleep(0.05)
    yield served
    admin.request("DELETE", f"{path}/capabilities.{WEAK}")


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_without_the_rules_it_is_rewritten(change: dict[str, Any], admin: Api, weak: str) -> None:
    obj = {**capability("default"), "apiVersion": f"{WEAK}/v1alpha1"}
    admin.request("POST", weak, json=obj).raise_for_status()
    try:
        patch = json.dumps({"spec": {"versions": [edited(change)]}})
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = admin.request("PATCH", f"{weak}/count", content=patch, headers=headers)
        assert answer.status_code == 200, answer.text
        stored = answer.json()["spec"]["versions"][0]
        assert {key: stored.get(key) for key in change} == change
    finally:
        admin.request("DELETE", f"{weak}/count").raise_for_status()


@pytest.mark.parametrize("change", EDITS.values(), ids=EDITS)
def test_it_is_refused(change: dict[str, Any], namespace: str, alice: Api, admin: Api) -> None:
    obj = capability(namespace)
    alice.create(obj).raise_for_status()
    for who in (alice, admin):
        answer = who.merge(obj, {"spec": {"versions": [edited(change)]}})
        assert answer.status_code == 422, answer.text
        assert "published version" in answer.json()["message"]
    kept = alice.get(obj).json()["spec"]["versions"][0]
    assert {key: kept[key] for key in PUBLISHED} == PUBLISHED


def test_removing_renumbering_and_unarchiving_are_refused(namespace: str, alice: Api) -> None:
    obj = capability(namespace)
    alice.create(obj).raise_for_status()
    for versions in ([], None, [{**PUBLISHED, "version": 2}]):
        answer = alice.merge(obj, {"spec": {"versions": versions}})
        assert answer.status_code == 422, versions
        assert "a published version stays" in answer.json()["message"]
    alice.merge(obj, {"spec": {"versions": [{**PUBLISHED, "archived": True}]}}).raise_for_status()
    assert alice.merge(obj, {"spec": {"versions": [{**PUBLISHED, "archived": False}]}}).status_code == 422
    assert alice.merge(obj, {"spec": {"versions": [PUBLISHED]}}).status_code == 422, "left out, it is false"


def test_the_draft_is_edited_and_another_version_published(namespace: str, alice: Api) -> None:
    obj = capability(namespace)
    alice.create(obj).raise_for_status()
    alice.merge(obj, {"spec": {"instructions": "Count thrice."}}).raise_for_status()
    more = [PUBLISHED, {"version": 2, "instructions": "Count thrice."}]
    stored = alice.merge(obj, {"spec": {"versions": more}}).raise_for_status().json()
    assert [item["version"] for item in stored["spec"]["versions"]] == [1, 2]
