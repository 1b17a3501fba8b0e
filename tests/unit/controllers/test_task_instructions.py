"""What sessions are told: lenses of Capabilities and Guidelines, pinned when the session is made."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_crashes import TASK, world

from triplane.audit.digest import digest_of_bytes
from triplane.controllers.key import Key
from triplane.domain.session import Claim, Outcome, RunResult, RunState

PUBLISHED = [{"version": 1, "instructions": "First."}, {"version": 2, "instructions": "Second, in [[tone]].",
             "parameters": [{"name": "tone", "default": "prose"}]}]  # fmt: skip


def made(**task: Any) -> MemoryWorld:
    """A Task that requires ``write``, which is published twice; the Agents are those of the crash tests."""
    built = world()
    built.server.put("Capability", "write", {"instructions": "Draft.", "versions": PUBLISHED}, "carol")
    change(built, requiredCapabilities=["write"], **task)
    return built


def change(built: MemoryWorld, **task: Any) -> None:
    """The Task anew: what it asks for is immutable."""
    built.server.objects.pop(("Task", NAMESPACE, "t"))
    built.server.put("Task", "t", {**TASK, "retry": {"backoffSeconds": 0}, **task}, "alice")
    built.start()


async def condition(built: MemoryWorld) -> tuple[str, str]:
    """``(reason, message)`` of what stalls or ends the Task, or of how far it is."""
    await look(built)
    status = built.server.objects["Task", NAMESPACE, "t"]["status"]
    conditions = {item["type"]: item for item in status["conditions"]}
    told = conditions["Stalled"] if conditions["Stalled"]["status"] == "True" else conditions["Succeeded"]
    return told["reason"], told["message"]


async def look(built: MemoryWorld) -> None:
    built.look()
    await built.settle()


async def begin(built: MemoryWorld) -> Claim:
    await look(built)
    claim = await built.sessions.claim("r", "i")
    assert claim is not None, await condition(built)
    await built.sessions.start(claim.session_uid, claim.run, {})
    return claim


async def fail(built: MemoryWorld, claim: Claim) -> None:
    await built.sessions.finish(claim.session_uid, claim.run, RunResult(Outcome.FAILED, "HarnessFailed", "it broke"))
    await look(built)


def materials(built: MemoryWorld, uid: str) -> list[Mapping[str, Any]]:
    session = built.index.by_uid(uid)
    assert session is not None
    found: list[Mapping[str, Any]] = session["spec"]["snapshot"]
    return found


def told(claim: Claim) -> list[tuple[str, int | None, str | None]]:
    return [(item["name"], item["version"], item["instructions"]) for item in claim.work_order["capabilities"]]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        pytest.param({}, ("write", 2, "Second, in prose."), id="the newest version by its name"),
        pytest.param(
            {"capabilityParameters": {"tone": "verse"}}, ("write", 2, "Second, in verse."), id="with a value of its own"
        ),
        pytest.param(
            {"capabilityParameters": {"tone": "[[tone]] and [[x]]"}},
            ("write", 2, "Second, in [[tone]] and [[x]]."),
            id="a value is put in once",
        ),
        pytest.param({"requiredCapabilities": ["write@1"]}, ("write", 1, "First."), id="the version it names"),
    ],
)
async def test_a_task_is_told(task: dict[str, Any], expected: tuple[str, int, str]) -> None:
    built = made()
    change(built, **{"requiredCapabilities": ["write"], **task})
    claim = await begin(built)
    assert told(claim) == [expected]
    (pinned,) = [item for item in materials(built, claim.session_uid) if item["role"] == "capability"]
    assert pinned["name"] == f"write@{expected[1]}"
    assert "generation" not in pinned


@pytest.mark.parametrize(
    ("task", "reason", "said"),
    [
        pytest.param(
            {"capabilityParameters": {"x": "1"}}, "ParameterUnknown", "parameter x", id="an unknown parameter"
        ),
        pytest.param({"requiredCapabilities": ["write@3"]}, "CapabilityVersionNotFound", "1, 2", id="no such version"),
        pytest.param(
            {"requiredCapabilities": ["write", "write@1"]}, "ContractConflict", "twice", id="two versions of one"
        ),
    ],
)
async def test_a_task_that_cannot_be_told_waits_and_says_why(task: dict[str, Any], reason: str, said: str) -> None:
    built = made()
    change(built, **{"requiredCapabilities": ["write"], **task})
    found = await condition(built)
    assert found[0] == reason
    assert said in found[1]


async def test_publishing_heals_a_task_that_waits_for_the_version() -> None:
    built = made()
    change(built, requiredCapabilities=["write@3"])
    assert (await condition(built))[0] == "CapabilityVersionNotFound"
    built.server.edit("Capability", "write", versions=[*PUBLISHED, {"version": 3, "instructions": "Third."}])
    assert told(await begin(built)) == [("write", 3, "Third.")]


async def test_publishing_reaches_the_next_session_and_leaves_the_running_one_alone() -> None:
    built = made()
    claim = await begin(built)
    built.server.edit("Capability", "write", versions=[*PUBLISHED, {"version": 3, "instructions": "Third."}])
    await look(built)
    view = await built.sessions.get(claim.session_uid)
    assert view is not None
    assert (view.revoked, view.runs[-1].state) == (None, RunState.STARTED)
    await fail(built, claim)
    again = await begin(built)
    assert again.session_uid != claim.session_uid
    assert told(again) == [("write", 3, "Third.")]


async def test_what_is_edited_beside_a_named_version_changes_nothing() -> None:
    built = made()
    change(built, requiredCapabilities=["write@1"])
    claim = await begin(built)
    archived = [{**PUBLISHED[0], "archived": True}, PUBLISHED[1], {"version": 3, "instructions": "Third."}]
    built.server.edit("Capability", "write", instructions="Another draft.", versions=archived)
    await fail(built, claim)
    again = await begin(built)
    assert (again.session_uid, again.run) == (claim.session_uid, 2), "the frozen snapshot still holds"


async def test_a_blob_that_a_parameter_names_is_brought_along() -> None:
    built = made()
    style = [{"version": 1, "instructions": "As in [[style]].", "parameters": [{"name": "style", "type": "File"}]}]
    built.server.edit("Capability", "write", versions=style)
    digest = digest_of_bytes(b"the style")
    change(built, requiredCapabilities=["write"], capabilityParameters={"style": digest})
    assert (await condition(built))[0] == "InputNotStored"
    await built.content.store(b"the style")
    await built.sessions.own_blob(NAMESPACE, digest)
    claim = await begin(built)
    (given,) = claim.work_order["inputs"]
    assert given == {
        "name": "parameters/style",
        "path": "/work/inputs/parameters/style",
        "digest": digest,
        "type": "File",
    }


CONTRACT = [{"name": "data", "mediaType": "application/json", "schema": {"type": "object", "required": ["total"]}}]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        pytest.param([], "asks for input data; the Task has none", id="it is missing"),
        pytest.param([{"name": "data", "value": "no JSON"}], "not JSON", id="it is no JSON"),
        pytest.param([{"name": "data", "value": "{}"}], "'total' is a required property", id="it breaks the schema"),
        pytest.param([{"name": "data", "value": '{"total": 1}'}], None, id="it meets the contract"),
    ],
)
async def test_the_contract_of_inputs_is_checked_before_anything_runs(
    inputs: list[dict[str, Any]], said: str | None
) -> None:
    built = made()
    built.server.edit("Capability", "write", versions=[{"version": 1, "instructions": "x", "inputs": CONTRACT}])
    for item in inputs:
        await built.content.store(item["value"].encode())
    change(built, requiredCapabilities=["write"], inputs=inputs)
    if said is None:
        assert (await begin(built)).run == 1
        return
    reason, message = await condition(built)
    assert reason == "InputContractNotMet"
    assert said in message
    assert await built.sessions.claim("r", "i") is None
    built.server.edit("Capability", "write", versions=[{"version": 1, "instructions": "x"}])
    assert (await begin(built)).run == 1, "it heals with the Capability"


async def test_guidelines_are_given_in_order_and_pinned() -> None:
    built = made()
    built.server.put("Guideline", "tone", {"text": "Be plain."}, "carol")
    built.server.put("Guideline", "units", {"text": "Use SI units.", "priority": 5}, "carol")
    built.server.put("Guideline", "other", {"text": "Never seen.", "scope": {"graphs": ["another"]}}, "carol")
    claim = await begin(built)
    assert [(item["name"], item["text"]) for item in claim.work_order["guidelines"]] == [
        ("units", "Use SI units."),
        ("tone", "Be plain."),
    ]
    pinned = [
        (item["name"], item["digest"]) for item in materials(built, claim.session_uid) if item["role"] == "guideline"
    ]
    assert pinned == [
        (f"{NAMESPACE}/units", digest_of_bytes(b"Use SI units.")),
        (f"{NAMESPACE}/tone", digest_of_bytes(b"Be plain.")),
    ]


async def test_reviewers_get_the_guidelines_of_reviewers() -> None:
    built = made()
    built.server.put("Guideline", "reviewing", {"text": "Add up.", "scope": {"capabilities": ["review"]}}, "carol")
    built.server.put("Guideline", "writing", {"text": "Be plain.", "scope": {"capabilities": ["write"]}}, "carol")
    claim = await begin(built)
    assert [item["name"] for item in claim.work_order["guidelines"]] == ["writing"]
    await built.end_well(claim, b"report")
    review = await begin(built)
    assert review.role == "reviewer"
    assert [item["name"] for item in review.work_order["guidelines"]] == ["reviewing"]


async def test_more_guidelines_than_a_session_may_get_stall_it_until_some_go() -> None:
    built = made()
    for number in range(5):
        built.server.put("Guideline", f"long-{number}", {"text": "x" * 32768}, "carol")
    assert (await condition(built))[0] == "GuidelinesTooLarge"
    assert await built.sessions.claim("r", "i") is None
    built.server.edit("Guideline", "long-0", text="short")
    built.server.edit("Guideline", "long-1", text="short")
    claim = await begin(built)
    assert len(claim.work_order["guidelines"]) == 5


async def test_a_reviewer_whose_lens_has_no_values_is_not_begun() -> None:
    built = made()
    lens = {"instructions": "Mind [[what]].", "parameters": [{"name": "what"}]}
    built.server.put("Capability", "review", lens, "carol")
    await built.end_well(await begin(built), b"report")
    reason, message = await condition(built)
    assert reason == "ParameterMissing"
    assert "what" in message
    built.server.edit("Capability", "review", parameters=[{"name": "what", "default": "the sums"}])
    review = await begin(built)
    assert (review.role, told(review)) == ("reviewer", [("review", None, "Mind the sums.")])


@pytest.mark.parametrize(
    ("spec", "ready", "version"),
    [
        pytest.param({"instructions": "x"}, "True", None, id="a draft"),
        pytest.param({"versions": PUBLISHED}, "True", 2, id="published"),
        pytest.param({"versions": [{**PUBLISHED[0], "archived": True}]}, "False", None, id="all archived"),
        pytest.param({"instructions": "[[x]]"}, "False", None, id="an undeclared parameter"),
    ],
)
async def test_a_capability_says_whether_it_can_be_used(spec: dict[str, Any], ready: str, version: int | None) -> None:
    built = MemoryWorld()
    built.server.put("Capability", "c", spec, "carol")
    await look(built)
    status = built.server.objects["Capability", NAMESPACE, "c"]["status"]
    assert (status["conditions"][0]["status"], status.get("version")) == (ready, version)


async def test_a_guideline_is_ready() -> None:
    built = MemoryWorld()
    built.server.put("Guideline", "g", {"text": "x"}, "carol")
    await look(built)
    assert built.server.objects["Guideline", NAMESPACE, "g"]["status"]["conditions"][0]["status"] == "True"
    assert await built.reconcile(Key("Guideline", NAMESPACE, "gone")) is None
