"""Signed statements on a whole installation: shown, exported, verified without it, and across a rotation of the key."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.stack import Stack, agent, graph, has, task

pytestmark = pytest.mark.e2e

NAMESPACE = "attested"


@pytest.fixture(scope="module")
def attested(stack: Stack) -> Stack:
    """A namespace with a worker (alice's) and a judge (bob's)."""
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    return stack


def accepted(stack: Stack, name: str) -> str:
    """Name of the accepted Artifact of a Task that is done now."""
    stack.apply(task(NAMESPACE, name))
    done = stack.wait("Task", NAMESPACE, name, has("Succeeded", "True"), seconds=60)
    found = stack.list("Artifact", NAMESPACE)
    return str(next(a["metadata"]["name"] for a in found if a["spec"]["taskRef"]["uid"] == done["metadata"]["uid"]))


def shown(stack: Stack, *arguments: str) -> Any:
    return json.loads(stack.triplane(*arguments, "-o", "json"))


def test_an_accepted_artifact_is_verified_with_and_without_the_installation(attested: Stack, tmp_path: Path) -> None:
    artifact = accepted(attested, "signed")
    statements = shown(attested, "attest", "show", "-n", NAMESPACE, artifact)
    kinds = [item["predicateType"].rsplit("/", 2)[-2] for item in statements]
    assert kinds == ["provenance", "review", "verification_summary"]
    assert shown(attested, "attest", "show", "-n", NAMESPACE, "task/signed") == statements
    by_digest = shown(attested, "attest", "show", "-n", NAMESPACE, statements[0]["envelopeDigest"])
    assert by_digest == statements[:1]
    assert "is NOT verified" not in attested.triplane("attest", "verify", "-n", NAMESPACE, artifact)

    keys, folder = tmp_path / "keys.json", tmp_path / "bundle"
    attested.triplane("keys", "export", "-o", str(keys))
    attested.triplane("attest", "export", "-n", NAMESPACE, artifact, "-o", str(folder), "--content")
    told = shown(attested, "attest", "verify", str(folder), "--keys", str(keys))
    assert [step["ok"] for step in told["steps"]] == [True] * 10

    bundle = tmp_path / "signed.intoto.jsonl"
    bundle.write_text(attested.triplane("lineage", "-n", NAMESPACE, artifact, "-o", "in-toto"))
    told = shown(attested, "attest", "verify", str(bundle), "--keys", str(keys))
    assert (told["ok"], [item["artifact"]["name"] for item in told["artifacts"]]) == (True, [artifact])

    (folder / "content").write_bytes(b"something else")
    attested.triplane("attest", "verify", str(folder), "--keys", str(keys), code=1)
    shutil.rmtree(folder)


def test_work_that_is_not_accepted_is_not_verified(attested: Stack) -> None:
    attested.apply(*agent(NAMESPACE, "strict", ["strict-review"], STRICT="1"), as_="bob")
    attested.apply(task(NAMESPACE, "rejected", review={"capability": "strict-review"}, maxReworks=0))
    done = attested.wait("Task", NAMESPACE, "rejected", has("Succeeded", "False"), seconds=60)
    found = attested.list("Artifact", NAMESPACE)
    uid = done["metadata"]["uid"]
    name = next(a["metadata"]["name"] for a in found if a["spec"]["taskRef"]["uid"] == uid)
    document = json.loads(attested.triplane("attest", "verify", "-n", NAMESPACE, name, "-o", "json", code=1))
    assert document["ok"] is False
    assert "it is not accepted" in next(step["found"] for step in document["steps"] if step["ok"] is False)


def test_a_rotated_key_is_taken_up_and_what_the_old_one_signed_stays_good(attested: Stack) -> None:
    before = accepted(attested, "before")
    new = attested.triplane("keys", "rotate").strip()
    after = accepted(attested, "after")
    for artifact in (before, after):
        attested.triplane("attest", "verify", "-n", NAMESPACE, artifact)
    signed = {item["keyId"] for item in shown(attested, "attest", "show", "-n", NAMESPACE, after)}
    assert signed == {new}
    keys = shown(attested, "keys", "list")
    assert keys[-1]["keyId"] == new
    assert all("retired" in key for key in keys[:-1])
    folder = attested.settings.secrets / "signing"
    assert [path.stem for path in folder.glob("*.pem")] == [new]
    assert next(folder.glob("*.pem")).stat().st_mode & 0o777 == 0o600
