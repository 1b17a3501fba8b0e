"""The operator is killed at every single write of one Task's life, before and after it takes effect; what is recorded
in the end is the same each time. And what users make under names that can be foreseen changes nothing."""

from contextlib import suppress
from typing import Any

from tests.unit.controllers.memory_world import NAMESPACE, KilledError, MemoryWorld

from triplane.audit.digest import digest_of_bytes
from triplane.audit.model import EventFilter
from triplane.controllers.key import Key
from triplane.domain.naming import fingerprint, object_name

WORKER = {"exec": {"program": "worker.py", "interpreter": "python3", "args": [], "env": []}}
TASK = {
    "graphRef": {"name": "g"},
    "objective": "Write the report",
    "agentRef": {"name": "writer"},
    "outputs": [{"name": "report", "path": "report.txt", "mediaType": "text/plain"}],
}


def world() -> MemoryWorld:
    made = MemoryWorld()
    made.server.put("Graph", "g", {}, "alice")
    for user, name, capability in (("alice", "writer", "write"), ("bob", "judge", "review")):
        made.server.put("Harness", name, WORKER, user)
        made.server.put("Agent", name, {"harnessRef": {"name": name}, "capabilities": [capability]}, user)
    made.server.put("Task", "t", TASK, "alice")
    made.look()
    return made


async def finish(made: MemoryWorld) -> int:
    """Until nothing is left to do; returns how often the operator was killed."""
    killed = 0
    for _ in range(12):
        try:
            await made.settle()
        except KilledError:
            killed += 1
            made.start()
            continue
        if await made.run_next() is None:
            return killed
    raise AssertionError("it does not come to rest")


async def types_in(made: MemoryWorld) -> list[str]:
    entries = await made.log.query(EventFilter(), limit=1000)
    return sorted(item.entry["type"] for item in entries)


async def edges_in(made: MemoryWorld) -> set[tuple[str, str]]:
    """Kinds of edges by the kind of what they come from."""
    found = set()
    for obj in made.server.objects.values():
        for edge in await made.graph.edges(obj["metadata"]["uid"]):
            found.add((obj["kind"], edge.kind))
    return found


async def test_killed_at_any_write_it_records_the_same_in_the_end() -> None:
    sound = world()
    await finish(sound)
    expected, edges = await types_in(sound), await edges_in(sound)
    assert "task.accepted" in expected
    assert {("AgentSession", "produces"), ("Review", "reviews"), ("AgentSession", "uses")} <= edges
    total = sound.fuse.writes
    assert total > 30
    for at in range(1, total + 1):
        for after in (False, True):
            made = world()
            made.fuse.at, made.fuse.after = at, after
            where = f"killed {'after' if after else 'before'} write {at}"
            assert await finish(made) == 1, where
            # A permit that was logged and never written is followed by one with the next counter.
            types = [kind for kind in await types_in(made) if kind != "run.permitted"]
            assert types == [kind for kind in expected if kind != "run.permitted"], where
            assert await edges_in(made) == edges, where
            assert len(made.server.of("Artifact")) == len(made.server.of("Review")) == 1, where
            assert await made.sessions.open_sessions() == [], where
            (task,) = made.server.of("Task")
            assert task["status"]["state"] == "completed", where


async def test_a_review_a_user_made_under_the_operators_name_is_not_adopted() -> None:
    made = world()
    await made.settle()
    await made.run_next()
    await made.settle()
    (review_session,) = [s for s in made.server.of("AgentSession") if s["spec"]["role"] == "Reviewer"]
    (task,) = made.server.of("Task")
    name = object_name("t", "review-1", fingerprint(review_session["metadata"]["uid"], "1"))
    forged = "sha256:" + "f" * 64
    made.server.put("Review", name, {
        "taskRef": {"name": "t", "uid": task["metadata"]["uid"]}, "round": 1, "verdict": "Approve",
        "subjects": [{"name": "report", "digest": forged}], "findings": [],
    }, "alice")  # fmt: skip
    await finish(made)
    (accepted,) = await made.log.query(EventFilter(types=frozenset({"task.accepted"})))
    assert accepted.entry["data"]["subjects"] == [{"name": "report", "digest": digest_of_bytes(b"report")}]
    assert accepted.entry["data"]["reviewName"] != name
    assert made.server.objects["Review", NAMESPACE, accepted.entry["data"]["reviewName"]]["spec"]["sessionRef"]


async def test_a_review_made_in_another_namespace_is_not_heard() -> None:
    made = world()
    made.server.put("Task", "judged", {**TASK, "review": {"people": ["bob"]}}, "alice")
    made.look()
    await finish(made)
    task: dict[str, Any] = made.server.objects["Task", NAMESPACE, "judged"]
    review = made.server.put("Review", "from-afar", {
        "taskRef": {"name": "judged", "uid": task["metadata"]["uid"]}, "round": 1, "verdict": "Approve",
        "subjects": [{"name": "report", "digest": digest_of_bytes(b"report")}], "findings": [],
    }, "bob")  # fmt: skip
    elsewhere = {**review, "metadata": {**review["metadata"], "namespace": "elsewhere"}}
    del made.server.objects["Review", NAMESPACE, "from-afar"]
    made.index.put(elsewhere)
    made.look()
    await made.settle()
    assert made.server.objects["Task", NAMESPACE, "judged"]["status"]["state"] == "reviewing"


async def test_erased_findings_do_not_stop_the_decision_that_named_them() -> None:
    made = world()
    made.server.put("Graph", "doomed", {}, "alice")
    made.server.put("Task", "lost", {**TASK, "graphRef": {"name": "doomed"}}, "alice")
    made.look()
    await made.settle()
    del made.server.objects["Graph", NAMESPACE, "doomed"]
    graph = made.index.get("Graph", NAMESPACE, "doomed")
    assert graph is not None
    made.index.remove(graph)
    made.pending.clear()
    made.look()
    await made.settle()
    (failed,) = await made.log.query(EventFilter(types=frozenset({"task.failed"})))
    await made.content.delete(failed.entry["data"]["messageDigest"])
    made.start()
    await made.settle()
    assert made.server.objects["Task", NAMESPACE, "lost"]["status"]["state"] == "cancelled"


async def test_a_missing_input_is_looked_for_again_because_no_store_tells_that_it_came() -> None:
    made = world()
    digest = digest_of_bytes(b"late")
    made.server.put("Task", "hungry", {**TASK, "inputs": [{"name": "i", "type": "File", "digest": digest}]}, "alice")
    made.look()
    await made.settle()
    assert made.server.objects["Task", NAMESPACE, "hungry"]["status"]["state"] == "awaiting_dependency"
    key = Key("Task", NAMESPACE, "hungry")
    assert await made.reconcile(key) == 5.0
    await made.content.store(b"late")
    await made.sessions.own_blob(NAMESPACE, digest)
    await made.reconcile(key)
    assert [item.name.startswith("hungry-work") for item in await made.sessions.open_sessions()].count(True) == 1


async def test_naming_a_blob_of_another_namespace_gets_a_task_nothing() -> None:
    made = world()
    digest = await made.content.store(b"foreign")
    await made.sessions.own_blob("other", digest)
    made.server.put("Task", "thief", {**TASK, "inputs": [{"name": "i", "type": "File", "digest": digest}]}, "alice")
    made.look()
    await made.settle()
    conditions = made.server.objects["Task", NAMESPACE, "thief"]["status"]["conditions"]
    (resolved,) = [item for item in conditions if item["type"] == "ResolvedRefs"]
    assert (resolved["status"], resolved["reason"]) == ("False", "InputNotStored")
    assert f"`triplane blob put -n {NAMESPACE}`" in resolved["message"]
    assert not [item for item in await made.sessions.open_sessions() if item.name.startswith("thief")]


async def test_an_edit_while_a_permit_is_out_does_not_have_the_work_done_twice() -> None:
    made = world()
    await made.settle()
    made.server.edit("Agent", "writer", model="another")
    made.look()
    await made.settle()
    claims = [claim for text in (b"one", b"two") if (claim := await made.run_next(text)) and claim.role == "producer"]
    assert len(claims) == 1
    await finish(made)
    (accepted,) = await made.log.query(EventFilter(types=frozenset({"task.accepted"})))
    (artifact,) = made.server.of("Artifact")
    assert accepted.entry["data"]["subjects"] == [{"name": "report", "digest": artifact["spec"]["digest"]}]


async def test_a_withdrawn_task_ends_only_when_what_runs_is_revoked_wherever_the_operator_dies() -> None:
    revoked_but_undecided = 0
    for at in range(1, 12):
        made = world()
        await made.settle()
        claim = await made.sessions.claim("r", "i")
        assert claim is not None
        del made.server.objects["Graph", NAMESPACE, "g"]
        made.start()
        made.fuse.writes, made.fuse.at, made.fuse.after = 0, at, True
        with suppress(KilledError):
            await made.settle()
        failed = await made.log.query(EventFilter(types=frozenset({"task.failed"})))
        view = await made.sessions.get(claim.session_uid)
        assert view is not None
        assert not failed or view.revoked is not None, at
        revoked_but_undecided += not failed and view.revoked is not None
        made.fuse.at = None
        made.start()
        await made.settle()
        view = await made.sessions.get(claim.session_uid)
        assert view is not None
        assert (view.revoked or "").startswith("GraphDeleted"), at
    assert revoked_but_undecided, "the crash this is about did not happen"
