"""Idea: make the as-run record say something else than what took part: another model, more authority, other Policies.

The record is put together from the log and its blobs. Whoever can change a blob's octets (or an AgentSession's spec)
still cannot change what offer and permit say in the hash-chained log; a record that does not fit them says so.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.test_task_authority import entries, policy, running, world

from triplane.audit.model import EventFilter
from triplane.domain.asrun import Documents, RunEntries, as_run, ids_of

pytestmark = pytest.mark.attacks

FORGED = "sha256:" + "0" * 64


async def record_of(made: MemoryWorld) -> tuple[RunEntries, Documents]:
    """What the log and the content store hold of the only run."""
    (claimed,) = await made.log.query(EventFilter(types=frozenset({"run.claimed"})))
    ids = ids_of(claimed.entry)
    known = await made.log.get_many(list(ids.values()))
    found: dict[str, Mapping[str, Any]] = {name: known[id_].entry for name, id_ in ids.items() if id_ in known}
    permitted = {**found["permitted"], "seq": known[ids["permitted"]].seq}
    run = RunEntries(claimed.entry, found["offered"], permitted, found.get("started"), None, found["session"])
    return run, Documents(
        spec=await made.document(found["session"]["data"]["specDigest"]),
        facts={},
        policies=await made.document(permitted["data"]["policyDigest"]) if permitted["blobs"] else (),
    )


async def ran() -> tuple[RunEntries, Documents]:
    made = world({}, {"model": "honest-1"})
    made.server.put("Policy", "p", policy("true"), "root")
    made.look()
    await running(made)
    for obj in made.server.of("AgentSession"):
        assert obj["metadata"]["namespace"] == NAMESPACE
    assert await entries(made, "run.permitted")
    return await record_of(made)


async def test_an_honest_record_fits() -> None:
    run, documents = await ran()
    found = as_run(run, documents)
    assert found["problems"] == []
    assert (found["model"], found["agent"]["name"]) == ("honest-1", "writer")
    roles = {item["role"] for item in found["materials"]}
    assert {"agent", "harness", "model", "authority", "policy", "task"} <= roles
    assert found["authority"]["tools"] == ["**"]


def another_model(spec: dict[str, Any]) -> None:
    next(item for item in spec["snapshot"] if item["role"] == "model")["name"] = "forged-9"


def another_harness(spec: dict[str, Any]) -> None:
    next(item for item in spec["snapshot"] if item["role"] == "harness")["digest"] = FORGED


def a_line_less(spec: dict[str, Any]) -> None:
    spec["snapshot"].pop(0)


def more_authority(spec: dict[str, Any]) -> None:
    spec["authority"]["egress"] = ["*"]


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(another_model, id="another model"),
        pytest.param(another_harness, id="another harness"),
        pytest.param(a_line_less, id="a material left out"),
        pytest.param(more_authority, id="more authority"),
    ],
)
async def test_a_forged_record_says_so(forge: Any) -> None:
    run, documents = await ran()
    assert isinstance(documents.spec, dict)
    forge(documents.spec)
    # The forged text does show: nothing but the digests in the log tells.
    weakened = as_run(RunEntries(run.claimed, None, None, run.started, None, run.session), documents)
    assert not any("rests on" in problem for problem in weakened["problems"])
    found = as_run(run, documents)
    assert any("not the one the permit rests on" in problem for problem in found["problems"])


async def test_forged_policies_say_so() -> None:
    run, documents = await ran()
    assert documents.policies
    forged = Documents(documents.spec, documents.facts, [["team", "p", "uid", 1, FORGED]])
    assert as_run(run, forged)["problems"] == ["the Policies are not those the permit rests on"]


async def test_what_was_erased_is_said_to_be_missing() -> None:
    run, _ = await ran()
    found = as_run(run, Documents(None, None, None))
    assert "the frozen snapshot is not there any more" in found["problems"]
    assert "the list of the Policies that were asked is not there any more" in found["problems"]
