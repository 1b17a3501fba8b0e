"""Tasks that depend on one another, over memory stores: order, conditions, merged inputs, retries, cancelling; and the
operator killed at every write of each."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, KilledError, MemoryWorld

from triplane.audit.digest import digest_of_bytes
from triplane.audit.entry import event_id
from triplane.audit.model import SYSTEM_ACTOR, EventBody, EventFilter, EventSubject
from triplane.controllers.key import Key
from triplane.domain.session import Outcome, RunResult
from triplane.ports import Edge

WORKER = {"exec": {"program": "worker.py", "interpreter": "python3", "args": [], "env": []}}
OUTPUT = {"name": "report", "path": "report.json", "mediaType": "application/json"}
WORK = {"graphRef": {"name": "g"}, "objective": "Do", "agentRef": {"name": "writer"}, "outputs": [OUTPUT]}


def world(**tasks: dict[str, Any]) -> MemoryWorld:
    made = MemoryWorld()
    made.server.put("Graph", "g", {}, "alice")
    for user, name, capability in (("alice", "writer", "write"), ("bob", "judge", "review")):
        made.server.put("Harness", name, WORKER, user)
        made.server.put("Agent", name, {"harnessRef": {"name": name}, "capabilities": [capability]}, user)
    for name, spec in tasks.items():
        made.server.put("Task", name, {**WORK, **spec}, "alice")
    made.look()
    return made


Run = Callable[[MemoryWorld], Awaitable[bool]]


async def well(made: MemoryWorld) -> bool:
    """A runner takes the next run and leaves ``{"n": <position of the Task's letter>}``."""
    live = await made.sessions.claim("r", "i")
    if live is None:
        return False
    await made.sessions.start(live.session_uid, live.run, {})
    name = live.work_order["task"]["name"]
    await made.end_well(live, b'{"n": %d}' % (ord(name[0]) - ord("a")), "application/json")
    return True


async def finish(made: MemoryWorld, run: Run = well) -> int:
    """Until nothing is left to do; returns how often the operator was killed."""
    killed = idle = 0
    for _ in range(200):
        try:
            await made.settle()
        except KilledError:
            killed += 1
            made.start()
            continue
        if await run(made):
            idle = 0
        elif idle == 3:
            return killed
        else:
            idle += 1
            made.clock.advance(30)  # permits expire, waits pass
            await run(made)
        made.look()
    raise AssertionError("it does not come to rest")


def status(made: MemoryWorld, name: str) -> dict[str, Any]:
    found: dict[str, Any] = made.server.objects["Task", NAMESPACE, name].get("status") or {}
    return found


def states(made: MemoryWorld) -> dict[str, str]:
    return {task["metadata"]["name"]: task["status"]["state"] for task in made.server.of("Task")}


async def data_of(made: MemoryWorld, *types: str) -> list[Any]:
    return [item.entry["data"] for item in await made.log.query(EventFilter(types=frozenset(types)))]


def edge(task: str, **more: str) -> dict[str, str]:
    return {"task": task, "output": "report", **more}


CHAIN = {
    "c": {"inputs": [{"name": "from-b", "from": edge("b")}]},
    "b": {"dependsOn": ["a"]},
    "a": {},
}


async def test_tasks_run_in_the_order_of_what_they_need_whatever_the_order_they_are_applied_in() -> None:
    made = world(**CHAIN)
    await made.settle()
    assert len(await made.sessions.open_sessions()) == 1
    await finish(made)
    assert states(made) == dict.fromkeys("abc", "completed")
    accepted = await made.log.query(EventFilter(types=frozenset({"task.accepted"})))
    assert [item.entry["subject"]["name"] for item in accepted] == ["a", "b", "c"]
    uids = {task["metadata"]["name"]: task["metadata"]["uid"] for task in made.server.of("Task")}
    for later, earlier in (("b", "a"), ("c", "b")):
        assert uids[earlier] in [
            item.target for item in await made.graph.edges(uids[later], kinds=frozenset({"dependsOn"}))
        ]


async def test_a_lasting_wait_is_written_and_names_what_it_waits_for() -> None:
    made = world(b={"dependsOn": ["a"]}, a={})
    await made.settle()
    assert status(made, "b").get("state") in (None, "pending"), "a wait of a moment is not written"
    made.clock.advance(6)
    made.look()
    await made.settle()
    seen = status(made, "b")
    assert (seen["state"], seen["waitingReason"]) == ("awaiting_dependency", "dependency")
    assert "accepted or skipped: a" in seen["conditions"][0]["message"]


async def test_a_task_that_is_not_there_is_waited_for_and_found() -> None:
    made = world(b={"dependsOn": ["a"]})
    await made.settle()
    assert status(made, "b")["conditions"][0]["reason"] == "TaskNotFound"
    made.server.put("Task", "a", WORK, "alice")
    made.look()
    await finish(made)
    assert states(made) == {"a": "completed", "b": "completed"}


async def test_a_cycle_is_stalled_and_spelled_out_and_heals_when_it_is_broken() -> None:
    made = world(a={"dependsOn": ["b"]}, b={"dependsOn": ["c"]}, c={"dependsOn": ["a"]}, d={"dependsOn": ["a"]})
    await made.settle()
    stalled = {item["type"]: item for item in status(made, "b")["conditions"]}["Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "DependencyCycle")
    assert "b → c → a → b" in stalled["message"]
    made.clock.advance(6)
    made.look()
    await made.settle()
    assert states(made) == {"a": "blocked", "b": "blocked", "c": "blocked", "d": "awaiting_dependency"}
    gone = made.server.objects.pop(("Task", NAMESPACE, "c"))
    made.index.remove(gone)
    made.server.put("Task", "c", WORK, "alice")
    made.look()
    await finish(made)
    assert set(states(made).values()) == {"completed"}


async def failing(made: MemoryWorld, name: str = "a", outcome: Outcome = Outcome.FAILED) -> bool:
    """As ``well``, but the producer of that Task fails."""
    claim = await made.sessions.claim("r", "i")
    if claim is None:
        return False
    await made.sessions.start(claim.session_uid, claim.run, {})
    if claim.work_order["task"]["name"] == name and claim.role == "producer":
        result = RunResult(outcome, "HarnessFailed", "it broke")
        await made.sessions.finish(claim.session_uid, claim.run, result)
    else:
        await made.end_well(claim, b'{"n": 1}', "application/json")
    return True


async def test_what_depends_on_a_failed_task_is_invalidated_and_nothing_is_blocked_for_ever() -> None:
    made = world(**{"a": {"maxRetries": 0}, "b": {"dependsOn": ["a"]}, "c": {"dependsOn": ["b"]}, "d": {}})
    await finish(made, failing)
    assert states(made) == {"a": "failed", "b": "invalidated", "c": "invalidated", "d": "completed"}
    reasons = {item["reason"] for item in await data_of(made, "task.failed")}
    assert reasons == {"HarnessFailed", "DependencyFailed"}


SKIPPING = {
    "a": {},
    "b": {"dependsOn": ["a"], "when": "steps.a.outputs.report.json.n > 10"},
    "c": {"inputs": [{"name": "data", "sources": [edge("a"), edge("b")], "merge": "JsonObject"}]},
    "d": {"inputs": [{"name": "only", "from": edge("b")}]},
    "e": {"dependsOn": ["d"]},
}


async def test_a_skipped_task_settles_what_comes_after_it_but_brings_nothing() -> None:
    made = world(**SKIPPING)
    await finish(made)
    assert states(made) == {"a": "completed", "b": "skipped", "c": "completed", "d": "skipped", "e": "completed"}
    reasons = {data["reason"]: data["values"] for data in await data_of(made, "task.skipped")}
    assert reasons == {
        "ConditionFalse": {"steps": [{"step": "a", "state": "completed"}]},
        "InputsSkipped": {"steps": [{"step": "b", "state": "skipped"}]},
    }
    assert status(made, "b")["waitingReason"] == "condition_false"
    assert status(made, "b")["phase"] == "Succeeded"
    (composed,) = await data_of(made, "input.composed")
    assert composed["digest"] == digest_of_bytes(b'{"a":{"n":0}}')


async def test_a_condition_that_fails_on_what_it_sees_fails_the_task_with_the_error() -> None:
    made = world(a={}, b={"dependsOn": ["a"], "when": "steps.nope.state == 'completed'"})
    await finish(made)
    assert states(made) == {"a": "completed", "b": "failed"}
    message = status(made, "b")["conditions"][0]["message"]
    assert message == 'Key not found in map : "nope"'


MERGED: dict[str, dict[str, Any]] = {
    "a": {},
    "b": {},
    "c": {
        "inputs": [
            {
                "name": "all",
                "merge": "JsonObject",
                "sources": [edge("a", path="/n", to="/from/a"), edge("b", path="/n", to="/from/b")],
            },
            {"name": "last", "sources": [edge("a"), edge("b", when="steps.b.outputs.report.json.n > 100")]},
            {"name": "lines", "merge": "Concat", "sources": [edge("a"), edge("b")]},
            {"name": "one", "from": edge("b")},
            {"name": "part", "from": edge("b", path="/n")},
            {"name": "said", "value": "literal text"},
        ]
    },
}


async def inputs_of_c(made: MemoryWorld) -> dict[str, bytes]:
    (session,) = [item for item in made.server.of("AgentSession") if item["metadata"]["name"].startswith("c-work")]
    view = await made.sessions.get(session["metadata"]["uid"])
    assert view is not None
    found = {}
    for item in view.offer.work_order["inputs"]:
        found[item["name"]] = b"".join([chunk async for chunk in made.content.resolve(item["digest"])])
    return found


CONTENT = {
    "all": b'{"from":{"a":0,"b":1}}',
    "last": b'{"n": 0}',
    "lines": b'{"n": 0}\n{"n": 1}',
    "one": b'{"n": 1}',
    "part": b"1",
    "said": b"literal text",
}


async def test_outputs_are_merged_and_every_field_can_be_traced() -> None:
    made = world(**MERGED)
    await finish(made)
    assert states(made) == dict.fromkeys("abc", "completed")
    assert await inputs_of_c(made) == CONTENT
    composed = {data["input"]: data for data in await data_of(made, "input.composed")}
    assert set(composed) == {"all", "last", "lines", "part"}
    uids = {task["metadata"]["name"]: task["metadata"]["uid"] for task in made.server.of("Task")}
    assert composed["all"]["edges"] == [
        {
            "taskUid": uids[name],
            "step": name,
            "output": "report",
            "digest": digest_of_bytes(b'{"n": %d}' % number),
            "path": "/n",
            "to": f"/from/{name}",
        }
        for number, name in enumerate("ab")
    ]
    assert [item["step"] for item in composed["last"]["edges"]] == ["a"]
    derived: list[Edge] = list(await made.graph.edges(composed["all"]["digest"], kinds=frozenset({"derivedFrom"})))
    assert {(item.target, item.data["path"], item.data["to"]) for item in derived} == {
        (digest_of_bytes(b'{"n": 0}'), "/n", "/from/a"),
        (digest_of_bytes(b'{"n": 1}'), "/n", "/from/b"),
    }
    for name in ("all", "said"):
        assert await made.sessions.owns_blob(NAMESPACE, digest_of_bytes(CONTENT[name]))


@pytest.mark.parametrize(
    ("inputs", "reason", "said"),
    [
        pytest.param(
            [{"name": "x", "from": edge("a", path="/gone/far")}],
            "InputPathMissing",
            "output report of step a: /gone/far leads nowhere",
            id="a path that is not there",
        ),
        pytest.param(
            [{"name": "x", "from": {"task": "a", "output": "other"}}],
            "OutputNotFound",
            "accepted with: report",
            id="an output that is not there",
        ),
        pytest.param(
            [
                {"name": "x", "sources": [edge("a", to="")], "merge": "JsonObject"},
                {"name": "y", "from": edge("a", when="steps.a.outputs.report.size")},
            ],
            "ConditionFailed",
            "input y",
            id="an edge's condition without a value",
        ),
    ],
)
async def test_an_input_that_can_never_be_had_fails_the_task(inputs: list[Any], reason: str, said: str) -> None:
    made = world(a={}, b={"inputs": inputs})
    await finish(made)
    assert states(made) == {"a": "completed", "b": "failed"}
    condition = status(made, "b")["conditions"][0]
    assert condition["reason"] == reason
    assert said in condition["message"]


async def test_many_edges_are_told_in_several_entries() -> None:
    tasks: dict[str, dict[str, Any]] = {f"a{number}": {} for number in range(20)}
    tasks["z"] = {"inputs": [{"name": "all", "merge": "Array", "sources": [edge(name) for name in tasks]}]}
    made = world(**tasks)
    await finish(made)
    assert states(made)["z"] == "completed"
    entries = await made.log.query(EventFilter(types=frozenset({"input.composed"})))
    assert [len(item.entry["data"]["edges"]) for item in entries] == [16, 4]
    assert [item.entry["id"].rpartition("/")[2] for item in entries] == ["all", "all.2"]


async def test_settled_dependencies_are_read_once_and_together() -> None:
    tasks: dict[str, dict[str, Any]] = {f"a{number}": {} for number in range(9)}
    tasks["z"] = {"dependsOn": list(tasks)}
    made = world(**tasks)
    await finish(made)
    made.start()
    asked = 0
    query = made.log.query

    async def counted(where: EventFilter = EventFilter(), **more: Any) -> Any:
        nonlocal asked
        asked += bool(where.uid or where.uids)
        return await query(where, **more)

    made.log.query = counted  # type: ignore[method-assign]
    made.server.put("Task", "late", {**WORK, "dependsOn": list(tasks)}, "alice")
    made.index.observe(made.server.objects["Task", NAMESPACE, "late"])
    await made.reconcile(Key("Task", NAMESPACE, "late"))
    steps = asked
    assert steps <= 6, "one query for the nine, and one for itself at each step"
    await made.reconcile(Key("Task", NAMESPACE, "late"))
    assert asked - steps == 1, "what is over is not read again"


async def test_a_failed_run_is_followed_by_another_after_a_while() -> None:
    made = world(a={"retry": {"backoffSeconds": 60, "maxBackoffSeconds": 600}, "maxRetries": 2})
    await made.settle()
    assert await failing(made)
    made.look()
    await made.settle()
    seen = status(made, "a")
    assert (seen["state"], seen["waitingReason"], seen["retries"]) == ("retrying", "retry_backoff", 0)
    assert seen["nextRunAt"]
    versions = made.server.objects["Task", NAMESPACE, "a"]["metadata"]["resourceVersion"]
    made.clock.advance(20)
    made.look()
    await made.settle()
    assert made.server.objects["Task", NAMESPACE, "a"]["metadata"]["resourceVersion"] == versions
    made.clock.advance(45)
    await finish(made)
    seen = status(made, "a")
    assert (seen["state"], seen["retries"], seen["runs"]) == ("completed", 1, 2)
    assert "nextRunAt" not in seen
    assert "waitingReason" not in seen
    assert seen["durationSeconds"] >= 65
    assert seen["startedAt"] < seen["completedAt"]


async def test_looked_at_again_after_a_restart_what_is_over_is_not_written() -> None:
    made = world(**SKIPPING)
    await finish(made)
    before = {key: obj["metadata"]["resourceVersion"] for key, obj in made.server.objects.items()}
    made.clock.advance(3600)
    made.start()
    await made.settle()
    assert {key: obj["metadata"]["resourceVersion"] for key, obj in made.server.objects.items()} == before


async def _to(made: MemoryWorld, stage: str) -> None:
    """Bring Task a to that stage."""
    await made.settle()
    if stage == "running":
        claim = await made.sessions.claim("r", "i")
        assert claim is not None
        await made.sessions.start(claim.session_uid, claim.run, {})
    elif stage == "retrying":
        assert await failing(made)
    elif stage in ("reviewing", "accepted"):
        assert await well(made)
        made.look()
        await made.settle()
        if stage == "accepted":
            assert await well(made)
            made.look()
            await made.settle()
    made.look()


@pytest.mark.parametrize("stage", ["queued", "running", "retrying", "reviewing", "accepted"])
async def test_killed_at_any_write_a_cancelled_task_ends_only_when_its_sessions_are_revoked(stage: str) -> None:
    spec = {"retry": {"backoffSeconds": 600}, "maxRetries": 3}
    sound = world(a=spec)
    await _to(sound, stage)
    sound.server.edit("Task", "a", cancel=True)
    sound.look()
    sound.fuse.writes = 0
    await finish(sound)
    expected = "completed" if stage == "accepted" else "cancelled"
    assert states(sound) == {"a": expected}
    for at in range(1, sound.fuse.writes + 1):
        for after in (False, True):
            made = world(a=spec)
            await _to(made, stage)
            made.server.edit("Task", "a", cancel=True)
            made.look()
            made.fuse.writes, made.fuse.at, made.fuse.after = 0, at, after
            with suppress(KilledError):
                await made.settle()
            failed = await data_of(made, "task.failed")
            for session in made.server.of("AgentSession"):
                view = await made.sessions.get(session["metadata"]["uid"])
                assert not failed or view is None or view.revoked is not None, (at, after)
            made.fuse.at = None
            made.start()
            await finish(made)
            assert states(made) == {"a": expected}, (at, after)
            assert [item["reason"] for item in await data_of(made, "task.failed")] == (
                [] if stage == "accepted" else ["Cancelled"]
            )
            assert await made.sessions.live() == []


@pytest.mark.parametrize("reason", ["FailFast", "Replaced"])
async def test_a_node_that_was_aborted_cancels_its_tasks(reason: str) -> None:
    made = MemoryWorld()
    made.server.put("Graph", "g", {}, "alice")
    queue = {"failureMode": "FailFast"} if reason == "FailFast" else {"queue": {"name": "q", "mode": "Replace"}}
    for user, name in (("alice", "writer"), ("bob", "judge")):
        made.server.put("Harness", name, WORKER, user)
        made.server.put("Agent", name, {"harnessRef": {"name": name}, "capabilities": ["review"]}, user)
    step = {**{key: value for key, value in WORK.items() if key != "graphRef"}, "name": "a"}
    node = made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": [step], **queue}, "alice")
    made.look()
    await made.settle()
    (task,) = made.server.of("Task")
    uid = node["metadata"]["uid"]
    body = EventBody(
        event_id("node.aborted", uid, 1),
        "node.aborted",
        "system",
        SYSTEM_ACTOR,
        EventSubject("Node", NAMESPACE, "n", uid, 1),
        {"reason": reason},
    )
    await made.log.append([body])
    made.look()
    await finish(made)
    seen = status(made, task["metadata"]["name"])
    assert (seen["state"], seen["conditions"][0]["reason"]) == ("cancelled", reason)


@pytest.mark.parametrize("where", ["Graph", "Task"])
async def test_suspended_it_waits_and_goes_on_when_that_is_lifted(where: str) -> None:
    made = world(a={"suspend": where == "Task"})
    name = "g" if where == "Graph" else "a"
    if where == "Graph":
        made.server.edit("Graph", "g", suspend=True)
        made.look()
    await made.settle()
    seen = status(made, "a")
    assert (seen["state"], seen["waitingReason"]) == ("blocked", "human_input")
    conditions = {item["type"]: item for item in seen["conditions"]}
    assert conditions["Suspended"]["status"] == "True"
    assert f"{where} {name}" in conditions["Suspended"]["message"]
    assert conditions["Stalled"]["status"] == "False"
    assert not await data_of(made, "task.stalled")
    made.server.edit(where, name, suspend=False)
    made.look()
    await finish(made)
    assert states(made) == {"a": "completed"}


@pytest.mark.parametrize(
    ("tasks", "ends"),
    [
        pytest.param(MERGED, dict.fromkeys("abc", "completed"), id="composed inputs"),
        pytest.param(
            {key: SKIPPING[key] for key in "abd"}, {"a": "completed", "b": "skipped", "d": "skipped"}, id="skips"
        ),
        pytest.param(
            {"a": {"maxRetries": 0}, "b": {"dependsOn": ["a"]}}, {"a": "failed", "b": "invalidated"}, id="a failure"
        ),
    ],
)
async def test_killed_at_any_write_it_records_the_same_in_the_end(
    tasks: dict[str, dict[str, Any]], ends: dict[str, str]
) -> None:
    run = failing if "failed" in ends.values() else well
    sound = world(**tasks)
    await finish(sound, run)
    assert states(sound) == ends
    expected, edges = await _types(sound), await _edges(sound)
    for at in range(1, sound.fuse.writes + 1):
        made = world(**tasks)
        made.fuse.at, made.fuse.after = at, at % 2 == 0
        assert await finish(made, run) == 1, at
        assert states(made) == ends, at
        assert await _types(made) == expected, at
        assert await _edges(made) == edges, at
        if "c" in ends:
            assert await inputs_of_c(made) == CONTENT, at


async def test_killed_at_any_write_a_retried_task_ends_the_same() -> None:
    spec = {"retry": {"backoffSeconds": 5}, "maxRetries": 1}

    def once() -> Run:
        fails = iter([True])

        async def run(made: MemoryWorld) -> bool:
            claim = await made.sessions.claim("r", "i")
            if claim is None:
                return False
            await made.sessions.start(claim.session_uid, claim.run, {})
            if claim.role == "producer" and next(fails, False):
                await made.sessions.finish(
                    claim.session_uid, claim.run, RunResult(Outcome.FAILED, "HarnessFailed", "no")
                )
            else:
                await made.end_well(claim, b"{}", "application/json")
            return True

        return run

    sound = world(a=spec)
    await finish(sound, once())
    expected = await _types(sound)
    assert expected.count("run.finished") == 3
    for at in range(1, sound.fuse.writes + 1):
        made = world(a=spec)
        made.fuse.at, made.fuse.after = at, at % 2 == 0
        assert await finish(made, once()) == 1, at
        assert await _types(made) == expected, at
        assert status(made, "a")["retries"] == 1, at


async def _types(made: MemoryWorld) -> list[str]:
    """Permits expire and are given again, and what was not told before a crash is told after: both may differ."""
    entries = await made.log.query(EventFilter(), limit=5000)
    return sorted(item.entry["type"] for item in entries if item.entry["type"] != "run.permitted")


async def _edges(made: MemoryWorld) -> set[tuple[str, str]]:
    found = set()
    for obj in made.server.objects.values():
        found |= {(obj["kind"], item.kind) for item in await made.graph.edges(obj["metadata"]["uid"])}
    for data in await data_of(made, "input.composed"):
        found |= {(data["input"], str(item.data["step"])) for item in await made.graph.edges(data["digest"])}
    return found


async def under_way() -> MemoryWorld:
    """A Node with one step at work, one that waits for it, and one that waits for its Agent."""
    made = world()
    step = {"objective": "Do", "agentRef": {"name": "writer"}, "outputs": [OUTPUT]}
    steps = [
        {**step, "name": "a"},
        {**step, "name": "b", "dependsOn": ["a"]},
        {**step, "name": "c", "agentRef": {"name": "late"}},
    ]
    made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": steps}, "alice")
    await later(made)
    await made.sessions.claim("r", "i")  # its permit has expired: a new one is asked for
    made.look()
    await made.settle()
    assert (await made.sessions.claim("r", "i")) is not None
    return made


async def later(made: MemoryWorld) -> None:
    for _ in range(4):
        made.clock.advance(5)
        made.look()
        await made.settle()


@pytest.mark.parametrize("remade", [False, True], ids=["and stays away", "and is made anew"])
async def test_what_has_not_begun_ends_with_its_node_when_the_graph_goes(remade: bool) -> None:
    made = await under_way()
    gone = made.server.objects.pop(("Graph", NAMESPACE, "g"))
    made.index.remove(gone)
    if remade:
        made.server.put("Graph", "g", {}, "alice")
    await later(made)
    assert states(made) == dict.fromkeys(("n-a", "n-b", "n-c"), "cancelled")
    assert made.server.objects["Node", NAMESPACE, "n"]["status"]["state"] == "cancelled"
    failed = await made.log.query(EventFilter(types=frozenset({"task.failed"})))
    assert {item.entry["stream"] for item in failed} == {f"graph/{gone['metadata']['uid']}"}


async def test_a_node_made_anew_under_the_name_is_not_the_one_the_steps_are_of() -> None:
    made = await under_way()
    made.index.remove(made.server.objects.pop(("Node", NAMESPACE, "n")))
    step = {"name": "z", "objective": "Do", "agentRef": {"name": "writer"}}
    made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": [step]}, "alice")
    await later(made)
    assert {status(made, name)["conditions"][0]["reason"] for name in ("n-a", "n-b", "n-c")} == {"NodeDeleted"}


async def test_a_step_that_is_over_and_was_deleted_still_brings_what_it_made() -> None:
    made = world()
    step = {"objective": "Do", "agentRef": {"name": "writer"}, "outputs": [OUTPUT]}
    taken = {"name": "in", "merge": "Array", "sources": [{"step": "a", "output": "report"}]}
    when = "steps['a'].outputs['report'].json.n == 13"
    steps = [
        {**step, "name": "a"},
        {**step, "name": "b", "dependsOn": ["c"], "when": when, "inputs": [taken]},
        {**step, "name": "c", "agentRef": {"name": "late"}},
    ]
    made.server.put("Node", "n", {"graphRef": {"name": "g"}, "steps": steps}, "alice")
    await later(made)
    await finish(made)
    assert states(made) == {"n-a": "completed", "n-b": "awaiting_dependency", "n-c": "awaiting_dependency"}
    uid = made.server.objects["Task", NAMESPACE, "n-a"]["metadata"]["uid"]
    for key, obj in list(made.server.objects.items()):
        if obj["metadata"]["name"] == "n-a" or obj["spec"].get("taskRef", {}).get("name") == "n-a":
            made.index.remove(made.server.objects.pop(key))
    made.start()
    made.server.put("Harness", "late", WORKER, "alice")
    made.server.put("Agent", "late", {"harnessRef": {"name": "late"}, "capabilities": []}, "alice")
    await later(made)
    await finish(made)
    assert states(made) == {"n-b": "completed", "n-c": "completed"}
    (composed,) = await data_of(made, "input.composed")
    assert composed["digest"] == digest_of_bytes(b'[{"n":13}]')
    waited = await made.graph.edges(
        made.server.objects["Task", NAMESPACE, "n-b"]["metadata"]["uid"], kinds=frozenset({"dependsOn"})
    )
    assert uid in [item.target for item in waited]
