"""What is signed beside the log's entries: where it stands, what it says, and that a crash changes nothing of it."""

from typing import Any

import orjson
import pytest
from tests.unit.audit.attested import blob, shown
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.people import entries, say, to_end, world

from triplane.audit import dsse
from triplane.audit.attestation import PROVENANCE, REVIEW, SUMMARY
from triplane.audit.verification import holds, verify
from triplane.controllers.attest import Attestor

MIXED: dict[str, Any] = {"review": {"reviewers": 2, "capability": "review", "people": ["carol"]}}


async def stated(made: MemoryWorld, kind: str) -> list[dict[str, Any]]:
    """The statements of this type that were recorded, in the log's order."""
    found = await entries(made, "attestation.recorded")
    digests = [item.entry["data"]["envelopeDigest"] for item in found if item.entry["data"]["predicateType"] == kind]
    return [orjson.loads(dsse.parse(await blob(made, digest)).payload) for digest in digests]


async def test_each_statement_stands_right_behind_what_it_states() -> None:
    made = world(**MIXED)
    await to_end(made, "carol")
    order = [item.entry["type"] for item in await entries(made)]
    kept = ("artifact.", "review.", "attestation.", "task.accepted", "key.")
    told = [type_ for type_ in order if type_.startswith(kept)]
    assert told == [
        "key.created",
        "artifact.recorded",
        "attestation.recorded",
        "review.recorded",
        "attestation.recorded",
        "review.recorded",
        "attestation.recorded",
        "task.accepted",
        "attestation.recorded",
    ]


async def test_a_round_costs_no_append_more_than_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the one that tells of the key."""

    async def count(made: MemoryWorld) -> int:
        appends = 0
        real = made.log.append

        async def append(bodies: Any) -> Any:
            nonlocal appends
            appends += 1
            return await real(bodies)

        monkeypatch.setattr(made.log, "append", append)
        await to_end(made)
        return appends

    with_statements = await count(world())
    monkeypatch.setattr("triplane.controllers.attest._stated", lambda body: False)
    monkeypatch.setattr(Attestor, "append_artifacts", _plainly)
    without = await count(world())
    assert with_statements == without + 1


async def _plainly(attestor: Attestor, bodies: Any, artifacts: Any, action: Any, at: Any) -> None:
    await attestor._context.log.append(bodies)


async def test_the_provenance_tells_what_took_part_and_what_came_of_it_beside_the_outputs() -> None:
    made = world()
    await to_end(made)
    (found,) = await stated(made, PROVENANCE)
    (artifact,) = made.server.of("Artifact")
    (subject,) = found["subject"]
    assert subject["name"] == "report"
    assert subject["digest"]["sha256"] == artifact["spec"]["digest"].removeprefix("sha256:")
    assert subject["uri"].endswith(f"/objects/{artifact['metadata']['uid']}")
    definition, details = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    session = next(obj for obj in made.server.of("AgentSession") if obj["spec"]["role"] == "Producer")
    frozen = [item.get("digest") for item in session["spec"]["snapshot"]]
    told = [item.get("digest", {}).get("sha256") for item in definition["resolvedDependencies"]]
    assert told == [None if digest is None else digest.removeprefix("sha256:") for digest in frozen]
    (permitted, _) = await entries(made, "run.permitted")
    for key in ("snapshotDigest", "authorityDigest", "policyDigest", "runInputsDigest"):
        assert definition["internalParameters"][key] == permitted.entry["data"][key]
    assert definition["internalParameters"]["producer"]["principal"] == "p-alice"
    assert details["builder"]["id"] == f"triplane://{made.log.origin}/operator"
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]


async def test_no_statement_names_a_user() -> None:
    made = world(**MIXED)
    await to_end(made, "carol")
    for kind in (PROVENANCE, REVIEW, SUMMARY):
        for found in await stated(made, kind):
            text = orjson.dumps(found).decode().replace("p-alice", "").replace("p-bob", "").replace("p-carol", "")
            text = text.replace("carol-outputs-1", "")  # names of objects are declared non-personal
            assert not [name for name in ("alice", "bob", "carol") if name in text], text


async def test_whoever_may_read_the_namespace_may_read_the_statements() -> None:
    made = world()
    await to_end(made)
    for item in await entries(made, "attestation.recorded"):
        digest = item.entry["data"]["envelopeDigest"]
        assert item.entry["blobs"] == [digest]
        assert await made.sessions.owns_blob(NAMESPACE, digest)


async def test_a_rejection_is_stated_and_accepts_nothing() -> None:
    made = world(review={"people": ["bob"]})
    await made.settle()
    await made.run_next()
    await made.settle()
    say(made, "bob", "Reject")
    await made.settle()
    (found,) = await stated(made, REVIEW)
    assert found["predicate"]["verdict"] == "Reject"
    assert found["predicate"]["reviewer"] == {"kind": "Person", "principal": "p-bob", "harnessPrincipal": "p-bob"}
    assert await stated(made, SUMMARY) == []


async def test_killed_at_any_write_it_states_the_same_in_the_end() -> None:
    sound = world()
    await to_end(sound)
    total = sound.fuse.writes
    kinds = [item.entry["data"]["predicateType"] for item in await entries(sound, "attestation.recorded")]
    assert kinds == [PROVENANCE, REVIEW, SUMMARY]
    for at in range(1, total + 1):
        made = world()
        made.fuse.at, made.fuse.after = at, at % 2 == 0
        killed = await to_end(made)
        for _ in range(3):  # a runner has asked for what had lost its permit
            made.look()
            killed += await to_end(made)
        assert killed == 1, at
        again = await entries(made, "attestation.recorded")
        assert [item.entry["data"]["predicateType"] for item in again] == kinds, at
        assert holds(verify(await shown(made))), at


async def test_verdicts_recorded_before_anything_was_signed_are_stated_with_the_acceptance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operator was upgraded between the two reviews of a round."""
    made = world(**MIXED)
    with monkeypatch.context() as old:
        old.setattr("triplane.controllers.attest._stated", lambda body: False)
        await made.settle()
        while await made.run_next() is not None:
            await made.settle()
    assert await stated(made, REVIEW) == []
    await to_end(made, "carol")
    assert len(await stated(made, REVIEW)) == 2
    assert holds(verify(await shown(made)))


async def test_a_key_rotated_half_way_leaves_everything_valid() -> None:
    made = world()
    await made.settle()
    await made.run_next()
    await made.settle()
    made._reconcilers.signing._keys.rotate()
    await to_end(made)
    evidence = await shown(made)
    assert len(evidence.trust.keys) == 2
    assert evidence.trust.keys[0].retired is not None
    assert holds(verify(evidence))


async def test_an_artifact_that_somebody_deleted_is_named_all_the_same() -> None:
    made = world(review={"people": ["carol"]})
    await made.settle()
    assert await made.run_next() is not None
    await made.settle()
    (artifact,) = made.server.of("Artifact")
    del made.server.objects["Artifact", NAMESPACE, artifact["metadata"]["name"]]
    made.start()  # a new operator knows only what stands there, and the log
    made.look()
    await made.settle()
    say(made, "carol", subjects=[{key: artifact["spec"][key] for key in ("name", "digest")}])
    await made.settle()
    for kind in (REVIEW, SUMMARY):
        (found,) = await stated(made, kind)
        assert [item["uri"] for item in found["subject"]] == [
            f"triplane://{made.log.origin}/objects/{artifact['metadata']['uid']}"
        ]
