"""What lenses ask of a Task's inputs."""

from typing import Any

import pytest

from triplane.api.capability import Capability
from triplane.api.task import Task
from triplane.domain.inputcontract import Unmet, content_checks, declared_gap
from triplane.domain.lens import ChosenLens, choose
from triplane.domain.workorder import ResolvedInput

DIGEST = "sha256:" + "a" * 64


def lens(*inputs: dict[str, Any]) -> ChosenLens:
    metadata = {"name": "write", "namespace": "team", "uid": "u", "generation": 1}
    found = choose(
        Capability.model_validate({"kind": "Capability", "metadata": metadata, "spec": {"inputs": list(inputs)}}), None
    )
    assert isinstance(found, ChosenLens)
    return found


def task(*inputs: dict[str, Any]) -> Task:
    metadata = {"name": "t", "namespace": "team", "uid": "u", "generation": 1}
    spec = {"graphRef": {"name": "g"}, "objective": "do", "agentRef": {"name": "a"}, "inputs": list(inputs)}
    return Task.model_validate({"kind": "Task", "metadata": metadata, "spec": spec})


@pytest.mark.parametrize(
    ("wanted", "brought", "said"),
    [
        pytest.param({"name": "data"}, {"name": "data", "digest": DIGEST}, None, id="it is there"),
        pytest.param({"name": "data"}, {"name": "other", "digest": DIGEST}, "the Task has other", id="it is missing"),
        pytest.param(
            {"name": "data"}, {"name": "data", "digest": DIGEST, "type": "Directory"}, None, id="any form will do"
        ),
        pytest.param(
            {"name": "data", "mediaType": "text/csv"},
            {"name": "data", "digest": DIGEST, "type": "Directory"},
            "it is a Directory",
            id="a folder has no media type",
        ),
    ],
)
def test_what_a_task_declares(wanted: dict[str, Any], brought: dict[str, Any], said: str | None) -> None:
    gap = declared_gap(task(brought), [lens(wanted)])
    if said is None:
        assert gap is None
        return
    assert gap is not None
    assert gap[0] == "InputContractNotMet"
    assert said in gap[1]


@pytest.mark.parametrize(
    ("wanted", "produced", "good"),
    [
        ("application/json", "application/json", True),
        ("application/json", "application/vnd.x+json", True),
        ("application/json", "Application/JSON; charset=utf-8", True),
        ("application/vnd.x+json", "application/json", False),
        ("text/csv", "text/plain", False),
        ("text/csv", "text/csv", True),
    ],
)
def test_the_media_type_of_another_task_s_output(wanted: str, produced: str, good: bool) -> None:
    inputs = [ResolvedInput("data", DIGEST, "File")]
    found = content_checks([lens({"name": "data", "mediaType": wanted})], inputs, {"data": produced})
    if good:
        assert not isinstance(found, Unmet)
        assert [(item.digest, item.media_type) for item in found] == [(DIGEST, wanted)]
    else:
        assert isinstance(found, Unmet)
        assert produced in found.message


def test_only_contents_that_are_there_and_asked_for_are_looked_at() -> None:
    asked = [lens({"name": "data"}, {"name": "late", "schema": {"type": "object"}}, {"name": "x", "schema": {}})]
    inputs = [ResolvedInput("data", DIGEST, "File"), ResolvedInput("x", DIGEST, "File")]
    found = content_checks(asked, inputs, {})
    assert not isinstance(found, Unmet)
    assert [(item.input, item.media_type, item.schema) for item in found] == [("x", "application/json", {})]
