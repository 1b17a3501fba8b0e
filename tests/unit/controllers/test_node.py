"""A Node's life over memory stores: what it makes, when, how often it writes, and what it survives."""

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, KilledError
from tests.unit.controllers.node_world import STEP, NodeWorld, steps

from triplane.controllers.key import Key
from triplane.controllers.node_gather import NodeGatherer
from triplane.controllers.observe import subject_of
from triplane.domain.node_log import node_aborted
from triplane.errors import Forbidden, Unavailable

REF = {"graphRef": {"name": "g"}}
NODE = Key("Node", NAMESPACE, "n")


def world(**node: Any) -> NodeWorld:
    made = NodeWorld()
    made.apply("Graph", "g")
    made.apply("Node", "n", **REF, **(node or {"steps": steps("a", "b")}))
    return made


async def test_all_tasks_are_made_up_front_with_what_they_wait_for() -> None:
    made = world(steps=[{**STEP, "name": "b", "dependsOn": ["a"]}, *steps("a")])
    await made.run()
    assert made.tasks() == ["n-a", "n-b"]
    spec = made.task("n-b")["spec"]
    assert spec["dependsOn"] == ["n-a"]
    assert (spec["step"], spec["nodeRef"], spec["onBehalfOf"]) == ("b", {"name": "n"}, "alice")
    assert await made.types() == ["node.planned"]


async def test_it_sums_its_tasks_up_and_ends_once() -> None:
    made = world()
    await made.run(10)
    await made.stand("n-a", "running")
    await made.run(2)
    status = made.node()["status"]
    assert (status["state"], status["progress"], status["active"]) == ("running", "0/2", ["a"])
    await made.stand("n-a", "completed", startedAt="2026-01-01T00:00:01Z", completedAt="2026-01-01T00:00:05Z")
    await made.stand("n-b", "skipped", "ConditionFalse", completedAt="2026-01-01T00:00:07Z")
    await made.run(2)
    status = made.node()["status"]
    assert made.succeeded() == ("True", "Accepted")
    assert (status["progress"], status["durationSeconds"]) == ("2/2", 6)
    made.start()
    version = made.node()["metadata"]["resourceVersion"]
    await made.run(100)
    assert made.node()["metadata"]["resourceVersion"] == version  # a resync changes nothing


async def test_a_burst_of_changes_costs_a_write_a_second_and_the_last_is_not_late() -> None:
    made = world(steps=steps(*[f"s{n}" for n in range(20)]))
    await made.run(10)
    made.fuse.writes = 0
    for n in range(20):
        await made.stand(f"n-s{n}", "running")
        await made.run(0.05)
        await made.stand(f"n-s{n}", "completed", "Accepted")
        await made.run(0.05)
    await made.run(1.0)
    assert made.succeeded() == ("True", "Accepted")
    assert made.fuse.writes <= 4  # 40 changes in two seconds, and a second more


async def test_a_message_of_a_task_writes_nothing() -> None:
    made = world()
    await made.run(10)
    await made.stand("n-a", "running", "Running", message="Agent a is thinking")
    await made.run(2)
    made.fuse.writes = 0
    await made.stand("n-a", "running", "Running", message="Agent a is writing")
    await made.run(5)
    assert made.fuse.writes == 0


async def test_a_roll_up_reads_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(steps=steps(*[f"s{n}" for n in range(50)]))
    await made.run(10)

    async def never(*_: object, **__: object) -> None:
        raise AssertionError("a store was read")

    for store, name in ((made.log, "query"), (made.log, "get_many"), (made.log, "get"), (made.graph, "edges")):
        monkeypatch.setattr(store, name, never)
    await made.context.cluster.write_status(made.task("n-s1"), {"state": "running"})
    made.index.observe(made.task("n-s1"))
    await made.run(2)
    assert made.node()["status"]["active"] == ["s1"]


async def test_what_it_waits_for_heals_in_any_order() -> None:
    made = NodeWorld()
    made.apply("Node", "n", **REF, workflowRef={"name": "w"})
    await made.run(2)
    assert made.succeeded() == ("Unknown", "GraphNotFound")
    assert made.condition("n", "ResolvedRefs")["status"] == "False"
    made.apply("Graph", "g")
    await made.run(2)
    assert made.succeeded() == ("Unknown", "WorkflowNotFound")
    made.apply("Workflow", "w", steps=steps("a"))
    await made.run(2)
    assert made.tasks() == ["n-a"]
    assert made.server.objects["Workflow", NAMESPACE, "w"]["status"]["order"] == ["a"]


async def test_a_workflow_that_cannot_be_run_stalls_and_heals_when_it_is_mended() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    made.apply("Workflow", "w", steps=[*steps("a", dependsOn=["b"]), *steps("b", dependsOn=["a"])])
    made.apply("Node", "n", **REF, workflowRef={"name": "w"})
    await made.run(2)
    assert made.condition("n", "Stalled")["reason"] == "DependencyCycle"
    assert "a → b → a" in made.condition("n", "Stalled")["message"]
    (ready,) = made.server.objects["Workflow", NAMESPACE, "w"]["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "DependencyCycle")
    assert made.tasks() == []
    made.edit("Workflow", "w", steps=steps("a", "b"))
    await made.run(2)
    assert made.condition("n", "Stalled")["status"] == "False"
    assert made.tasks() == ["n-a", "n-b"]


async def test_a_workflow_with_a_condition_that_does_not_compile_is_not_ready() -> None:
    made = NodeWorld()
    made.apply("Workflow", "w", steps=[*steps("a"), *steps("b", dependsOn=["a"], when="steps[")])
    await made.run()
    (ready,) = made.server.objects["Workflow", NAMESPACE, "w"]["status"]["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "ConditionInvalid")
    assert ready["message"].startswith("step b.when: ")


async def test_an_edit_of_the_workflow_changes_nothing_of_a_node_that_has_begun() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    made.apply("Workflow", "w", steps=steps("a", "b"))
    made.apply("Node", "n", **REF, workflowRef={"name": "w"})
    await made.run(2)
    made.edit("Workflow", "w", steps=steps("x"))
    made.start()
    await made.run(10)
    assert made.tasks() == ["n-a", "n-b"]
    assert made.node()["status"]["workflowGeneration"] == 1
    made.apply("Node", "m", **REF, workflowRef={"name": "w"})
    await made.run(2)
    assert "m-x" in made.tasks()


async def test_killed_at_any_write_it_makes_each_task_once_and_settles_once() -> None:
    for at in range(1, 60):
        for after in (False, True):
            made = world(steps=steps("a", "b", "c"))
            made.fuse.at, made.fuse.after = at, after
            try:
                await made.run(10)
            except KilledError:
                made.start()
                await made.run(10)
            else:
                assert at > 8, "the fuse never blew"
                return
            assert sorted(made.tasks()) == ["n-a", "n-b", "n-c"]
            assert await made.types() == ["node.planned"]
            assert made.node()["status"]["progress"] == "0/3"
    raise AssertionError("it never came to rest")


async def test_a_task_that_ended_and_was_deleted_is_not_made_again() -> None:
    made = world(steps=steps("a", "b", "c", "d"))
    await made.run(10)
    await made.stand("n-a", "completed", "Accepted")
    await made.stand("n-b", "skipped", "ConditionFalse")
    await made.stand("n-c", "running")
    for name in ("n-a", "n-b", "n-c"):
        made.remove("Task", name)
    made.start()
    await made.run(10)
    assert sorted(made.tasks()) == ["n-c", "n-d"]  # c had not ended: it is made anew
    await made.stand("n-c", "completed", "Accepted")
    await made.stand("n-d", "completed", "Accepted")
    await made.run(2)
    states = [step["state"] for step in made.node()["status"]["steps"]]
    assert states == ["completed", "skipped", "completed", "completed"]
    assert made.succeeded() == ("True", "Accepted")


async def test_a_node_that_is_over_stays_so_when_its_tasks_go() -> None:
    made = world()
    await made.run(10)
    for name in ("n-a", "n-b"):
        await made.stand(name, "completed", "Accepted")
    await made.run(2)
    for name in ("n-a", "n-b"):
        made.remove("Task", name)
    made.edit("Node", "n", suspend=True)
    made.start()
    await made.run(10)
    assert made.tasks() == []
    assert made.succeeded() == ("True", "Accepted")
    assert made.node()["status"]["observedGeneration"] == 2


async def test_fail_fast_is_logged_once_and_wakes_the_tasks_that_must_end() -> None:
    made = world(steps=steps("a", "b"), failureMode="FailFast")
    await made.run(10)
    await made.stand("n-b", "running")
    await made.run(2)
    await made.stand("n-a", "failed", "HarnessFailed", message="exit 3")
    woken = Key("Task", NAMESPACE, "n-b")
    made.due.pop(woken, None)
    await made.nodes.reconcile(NODE)
    assert woken in made.due
    await made.run(2)
    assert (await made.types()).count("node.aborted") == 1
    await made.stand("n-b", "cancelled", "FailFast")
    await made.run(2)
    assert made.succeeded() == ("False", "FailFast")
    assert "a (HarnessFailed) failed: exit 3" in made.condition("n", "Succeeded")["message"]
    assert made.node()["status"]["state"] == "failed"


async def test_a_cancelled_node_makes_no_further_task() -> None:
    made = world(steps=steps("a"), cancel=True)
    await made.run(2)
    assert made.tasks() == []
    assert made.succeeded() == ("False", "Cancelled")
    assert made.node()["status"]["completedAt"]


async def test_a_suspended_graph_holds_a_node_back_until_it_is_resumed() -> None:
    made = world(steps=steps("a"))
    made.edit("Graph", "g", suspend=True)
    await made.run(2)
    assert made.tasks() == []
    assert made.condition("n", "Suspended")["status"] == "True"
    assert made.condition("n", "Stalled")["status"] == "False"
    assert (made.node()["status"]["state"], made.node()["status"]["waitingReason"]) == ("blocked", "human_input")
    made.edit("Graph", "g", suspend=False)
    await made.run(2)
    assert made.tasks() == ["n-a"]
    assert made.condition("n", "Suspended") == {}


def queued(made: NodeWorld, name: str, mode: str = "Serial", queue: str = "q") -> None:
    made.apply("Node", name, **REF, steps=steps("a"), queue={"name": queue, "mode": mode})


async def finish(made: NodeWorld, name: str, state: str = "completed") -> None:
    await made.stand(f"{name}-a", state)
    await made.run(2)


async def test_a_serial_queue_runs_one_after_the_other_in_the_order_of_creation() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    for name in ("z", "m", "a"):
        queued(made, name)
        made.clock.seconds += 1
    queued(made, "other", queue="elsewhere")
    await made.run(2)
    assert sorted(made.tasks()) == ["other-a", "z-a"]
    assert made.succeeded("m") == ("Unknown", "QueueTurn")
    assert made.condition("a", "Succeeded")["message"] == "It waits in its queue behind Node m"
    assert made.node("m")["status"]["waitingReason"] == "queued"
    await finish(made, "z", "failed")
    assert "m-a" in made.tasks()
    assert "a-a" not in made.tasks()
    made.remove("Node", "m")
    await made.run(2)
    assert "a-a" in made.tasks()


async def test_in_one_second_who_has_begun_is_before_who_has_not() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "b")
    await made.run()
    queued(made, "a")  # first by name, and made in the same second
    made.start()
    await made.run(0.5)
    assert made.tasks() == ["b-a"]
    await finish(made, "b")
    assert made.tasks() == ["b-a", "a-a"]


async def test_a_node_that_replaces_cuts_the_earlier_ones_short_and_begins_when_they_are_over() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    queued(made, "waits")
    made.clock.seconds += 1
    await made.run(2)
    queued(made, "new", "Replace")
    await made.run(2)
    assert made.succeeded("waits") == ("False", "Replaced")
    assert made.tasks() == ["first-a"]  # it has not stopped yet
    await made.stand("first-a", "cancelled", "Replaced")
    await made.run(2)
    assert made.succeeded("first") == ("False", "Replaced")
    assert made.node("first")["status"]["state"] == "cancelled"
    assert made.tasks() == ["first-a", "new-a"]
    assert (await made.types()).count("node.aborted") == 2


async def test_who_must_hear_of_an_abort_does_though_its_append_was_answered_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    await made.run(5)
    await made.stand("first-a", "running")
    await made.run(5)
    append = made.log.append

    async def answers_with_an_error(bodies: Any) -> Any:
        receipts = await append(bodies)
        if any(body.type == "node.aborted" for body in bodies):
            raise Unavailable("the connection was cut after the commit")
        return receipts

    monkeypatch.setattr(made.log, "append", answers_with_an_error)
    queued(made, "new", "Replace")
    first, new, task = Key("Node", NAMESPACE, "first"), Key("Node", NAMESPACE, "new"), Key("Task", NAMESPACE, "first-a")
    with pytest.raises(Unavailable):
        await made.nodes.reconcile(new)
    made.due.clear()  # whoever was woken found nothing in the log yet
    await made.nodes.reconcile(new)
    assert first in made.due
    made.clock.seconds += 5
    await made.nodes.reconcile(first)
    assert task in made.due
    made.due.clear()
    made.clock.seconds += 5
    await made.nodes.reconcile(first)
    assert task not in made.due  # once is enough
    assert (await made.types()).count("node.aborted") == 1


async def test_the_lost_plan_of_another_node_of_its_queue_is_not_its_own() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    await made.run(2)
    (planned,) = [item for item in await made.log.query() if item.entry["type"] == "node.planned"]
    await made.content.delete(planned.entry["data"]["planDigest"])
    made.start()
    queued(made, "second")
    await made.run(2)
    assert made.condition("first", "Stalled")["reason"] == "PlanLost"
    assert made.succeeded("second") == ("Unknown", "QueueTurn")


async def test_an_abort_that_another_worker_logs_while_the_log_is_read_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    await made.run(2)
    made.start()
    get_many, answered = made.log.get_many, asyncio.Event()

    async def slow(ids: Any) -> Any:
        found = await get_many(ids)
        if any("node.aborted" in item for item in ids):
            await answered.wait()
        return found

    monkeypatch.setattr(made.log, "get_many", slow)
    gatherer = NodeGatherer(made.context)
    uid = made.node("first")["metadata"]["uid"]
    reading = asyncio.create_task(gatherer.settled(uid))
    await asyncio.sleep(0)
    await made.log.append([node_aborted(subject_of(made.node("first")), "system", "Replaced", node_uid="other")])
    gatherer.forget(uid)
    answered.set()
    assert (await reading).aborted is not None


async def test_a_parallel_node_of_a_queue_does_not_wait() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    queued(made, "second", "Parallel")
    await made.run(2)
    assert sorted(made.tasks()) == ["first-a", "second-a"]


async def test_a_stranger_s_task_is_not_adopted_and_the_node_goes_on_when_it_goes() -> None:
    made = NodeWorld()
    made.apply("Task", "n-a", **REF, **STEP)
    made.apply("Graph", "g")
    made.apply("Node", "n", **REF, steps=steps("a", "b"))
    await made.run(2)
    assert made.condition("n", "Stalled")["reason"] == "TaskNameTaken"
    made.remove("Task", "n-a")
    await made.run(2)
    assert made.condition("n", "Stalled").get("status") == "False"
    assert sorted(made.tasks()) == ["n-a", "n-b"]


async def test_a_task_whose_owner_reference_somebody_took_away_is_still_its_own() -> None:
    made = world(steps=steps("a"))
    await made.run(2)
    task = made.task("n-a")
    bare = {key: value for key, value in task["metadata"].items() if key != "ownerReferences"}
    made.index.observe(made.server._write({**task, "metadata": bare}))
    made.start()
    await made.run(10)
    assert made.condition("n", "Stalled")["status"] == "False"
    await made.stand("n-a", "completed")
    await made.run(5)
    assert made.succeeded() == ("True", "Accepted")


async def test_tasks_that_went_are_asked_about_together(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(steps=steps("a", "b", "c"))
    await made.run(2)
    for name in ("n-a", "n-b"):
        await made.stand(name, "completed")
        made.remove("Task", name)
    queries = 0
    query = made.log.query

    async def counted(*args: Any, **more: Any) -> Any:
        nonlocal queries
        queries += 1
        return await query(*args, **more)

    monkeypatch.setattr(made.log, "query", counted)
    await made.run(2)
    assert queries == 1
    assert [row["state"] for row in made.node()["status"]["steps"]] == ["completed", "completed", "pending"]


async def test_a_task_that_the_api_server_refuses_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world()
    refused = made.server.create

    async def full(obj: dict[str, Any]) -> Any:
        if obj["metadata"]["name"] == "n-b":
            raise Forbidden("exceeded quota: tasks")
        return await refused(obj)

    monkeypatch.setattr(made.server, "create", full)
    await made.run(2)
    assert made.condition("n", "Stalled")["reason"] == "TaskRefused"
    assert "exceeded quota" in made.condition("n", "Stalled")["message"]
    assert made.tasks() == ["n-a"]
    monkeypatch.undo()
    await made.run(20)
    assert made.tasks() == ["n-a", "n-b"]
    assert made.condition("n", "Stalled")["status"] == "False"


async def test_a_lost_plan_is_told_and_never_replaced_by_another() -> None:
    made = world()
    await made.run(10)
    (planned,) = [item for item in await made.log.query() if item.entry["type"] == "node.planned"]
    await made.content.delete(planned.entry["data"]["planDigest"])
    made.start()
    await made.run(2)
    assert made.condition("n", "Stalled")["reason"] == "PlanLost"
    assert await made.types() == ["node.planned"]


async def lost(made: NodeWorld) -> None:
    """The plans are gone, and the operator begins anew."""
    for item in await made.log.query():
        if item.entry["type"] == "node.planned":
            await made.content.delete(item.entry["data"]["planDigest"])
    made.start()
    await made.run(2)


async def test_a_node_whose_plan_is_lost_can_be_cancelled_and_ends_with_its_tasks() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    await made.run(2)
    queued(made, "second")
    await lost(made)
    assert "Cancel or delete it" in made.condition("first", "Stalled")["message"]
    made.edit("Node", "first", cancel=True)
    await made.run(2)
    assert made.condition("first", "Stalled")["reason"] == "PlanLost"
    assert made.tasks() == ["first-a"]
    await finish(made, "first", "cancelled")
    assert made.node("first")["status"]["state"] == "cancelled"
    assert made.succeeded("first") == ("False", "Cancelled")
    await made.run(2)
    assert made.tasks() == ["first-a", "second-a"], "its queue goes on"


async def test_a_node_whose_plan_is_lost_can_be_replaced() -> None:
    made = NodeWorld()
    made.apply("Graph", "g")
    queued(made, "first")
    made.clock.seconds += 1
    await made.run(2)
    await lost(made)
    queued(made, "second", "Replace")
    await made.run(2)
    await finish(made, "first", "cancelled")
    await made.run(2)
    assert made.succeeded("first") == ("False", "Replaced")
    assert made.tasks() == ["first-a", "second-a"]


async def test_a_node_whose_plan_is_lost_still_fails_fast() -> None:
    made = world(steps=steps("a", "b"), failureMode="FailFast")
    await made.run(10)
    await lost(made)
    await made.stand("n-a", "failed", "HarnessFailed")
    await made.run(2)
    assert "node.aborted" in await made.types()
    await made.stand("n-b", "cancelled", "FailFast")
    await made.run(2)
    assert made.node()["status"]["state"] == "failed"
    assert made.succeeded() == ("False", "FailFast")


@pytest.mark.parametrize("ttl", [0, 30])
async def test_a_finished_node_is_deleted_when_its_time_is_up(ttl: int) -> None:
    made = world(steps=steps("a"), ttlSecondsAfterFinished=ttl)
    await made.run(10)
    await made.stand("n-a", "completed", "Accepted")
    await made.run(1)
    if ttl:
        await made.run(ttl - 5)
        assert ("Node", NAMESPACE, "n") in made.server.objects
        made.start()  # the timer dies with the process, not the intent
        await made.run(10)
    assert ("Node", NAMESPACE, "n") not in made.server.objects


@pytest.mark.parametrize("by", ["its own steps", "a Workflow"])
async def test_work_that_a_node_will_need_is_kept_past_its_time(by: str) -> None:
    made = world(steps=steps("a"), ttlSecondsAfterFinished=0)
    needing = [{**STEP, "name": "s", "inputs": [{"name": "i", "from": {"task": "n-a", "output": "report"}}]}]
    if by == "a Workflow":
        made.apply("Workflow", "w", steps=needing)
    own = {"steps": needing} if by == "its own steps" else {"workflowRef": {"name": "w"}}
    made.apply("Node", "later", **REF, **own, suspend=True)
    await made.run(10)
    await made.stand("n-a", "completed", "Accepted")
    await made.run(60)
    assert made.tasks() == ["n-a"]
    made.edit("Node", "later", cancel=True)
    await made.run(20)
    assert ("Node", NAMESPACE, "n") not in made.server.objects


async def test_work_that_others_still_wait_for_is_kept_past_its_time() -> None:
    made = world(steps=steps("a"), ttlSecondsAfterFinished=0)
    made.apply("Task", "later", **REF, **STEP, dependsOn=["n-a"])
    await made.run(10)
    await made.stand("n-a", "completed", "Accepted")
    await made.run(60)
    assert ("Node", NAMESPACE, "n") in made.server.objects
    await made.stand("later", "completed", "Accepted")
    await made.run(20)
    assert ("Node", NAMESPACE, "n") not in made.server.objects


async def test_a_task_of_a_node_has_no_time_of_its_own() -> None:
    made = world(steps=steps("a"))
    made.apply("Task", "alone", **REF, **STEP, ttlSecondsAfterFinished=5)
    made.apply("Task", "owned", **REF, **STEP, ttlSecondsAfterFinished=5, nodeRef={"name": "n"})
    for name in ("alone", "owned"):
        await made.stand(name, "failed")
        assert await made.expiry.expire(Key("Task", NAMESPACE, name)) == (5.0 if name == "alone" else None)
    made.clock.seconds += 5
    assert await made.expiry.expire(Key("Task", NAMESPACE, "alone")) is None
    assert ("Task", NAMESPACE, "alone") not in made.server.objects
