"""Workflows on the real installation: what is merged, what is skipped, what a failure means, who waits for whom."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from tests.e2e.stack import Stack, agent, condition, graph, has, resource

NAMESPACE = "flows"
OUTPUTS = [
    {"name": "json", "path": "result.json", "mediaType": "application/json"},
    {"name": "text", "path": "result.txt", "mediaType": "text/plain"},
]


@pytest.fixture(scope="module")
def flows(stack: Stack) -> Stack:
    """A namespace with agents for the steps (alice's) and a judge (bob's)."""
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "stepper", ["step"], "stepper.py"))
    stack.apply(*agent(NAMESPACE, "failing", ["step"], "stepper.py", FAIL_STEPS="bad"))
    stack.apply(*agent(NAMESPACE, "slow", ["step"], "stepper.py", SLOW_STEPS="a=3 b=60"))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    return stack


def step(name: str, *after: str, worker: str = "stepper", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name, "objective": f"Do {name}", "agentRef": {"name": worker}, "outputs": OUTPUTS, "maxRetries": 0,
        **fields,
    }  # fmt: skip
    if after:
        found["dependsOn"] = list(after)
    return found


def workflow(name: str, steps: Sequence[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return resource("Workflow", NAMESPACE, name, {"steps": list(steps), **spec})


def node(name: str, **spec: Any) -> dict[str, Any]:
    return resource("Node", NAMESPACE, name, {"graphRef": {"name": "g"}, **spec})


def edge(source: str, output: str = "json", **fields: Any) -> dict[str, Any]:
    return {"step": source, "output": output, **fields}


def merged(name: str, merge: str, *edges: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "merge": merge, "sources": list(edges)}


def result(stack: Stack, task: str) -> dict[str, Any]:
    """The JSON output of an accepted Task."""
    obj = stack.get("Task", NAMESPACE, task)
    assert obj is not None
    (digest,) = [item["digest"] for item in obj["status"]["outputs"] if item["name"] == "json"]
    found: dict[str, Any] = json.loads(stack.triplane("blob", "get", "-n", NAMESPACE, digest))
    return found


def states(obj: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["state"] for item in obj["status"].get("steps") or []}


def done(stack: Stack, name: str, status: str = "True", seconds: float = 120) -> dict[str, Any]:
    return stack.wait("Node", NAMESPACE, name, has("Succeeded", status), seconds)


def test_a_diamond_with_a_condition_brings_together_what_its_arms_made_in_all_four_ways(flows: Stack) -> None:
    gather = step(
        "join",
        inputs=[
            merged("last", "LastWriteWins", edge("left"), edge("never"), edge("right", path="/step")),
            merged("chained", "Concat", edge("left", "text"), edge("right", "text"), edge("never", "text")),
            merged("listed", "Array", edge("left", path="/step"), edge("never"), edge("right", "text")),
            merged(
                "keyed", "JsonObject", edge("left", path="/step"), edge("never"),
                edge("right", path="/inputs/seed/step", to="/deep/down"),
                edge("root", path="/step", to="/root", when='steps["root"].outputs["json"].json.step == "other"'),
            ),
        ],
    )  # fmt: skip
    seed = {"name": "seed", "from": edge("root")}
    flows.apply(
        workflow(
            "diamond",
            [
                gather,
                step("left", inputs=[seed]),
                step("right", inputs=[seed]),
                step("never", when='steps["root"].outputs["json"].json.step == "other"', inputs=[seed]),
                step("root"),
            ],
        ),
        node("d", workflowRef={"name": "diamond"}),
    )
    obj = done(flows, "d")
    assert states(obj) == {
        "root": "completed", "left": "completed", "right": "completed", "never": "skipped", "join": "completed",
    }  # fmt: skip
    inputs = result(flows, "d-join")["inputs"]
    assert inputs["last"] == "right"
    assert inputs["chained"] == "left: Do left\nright: Do right"
    assert inputs["listed"] == ["left", "right: Do right"]
    assert inputs["keyed"] == {  # the edge from root brings nothing: its condition does not hold
        "left": "left", "deep": {"down": "root"},
    }  # fmt: skip
    status = obj["status"]
    assert (status["progress"], status["phase"], status["workflowGeneration"]) == ("5/5", "Succeeded", 1)
    assert status["tokens"] > 0
    assert status["costMinorUnits"] > 0
    skipped = flows.get("Task", NAMESPACE, "d-never")
    assert skipped is not None
    assert condition(skipped, "Succeeded")["reason"] == "ConditionFalse"
    ready = flows.get("Workflow", NAMESPACE, "diamond")
    assert ready is not None
    assert (ready["status"]["depth"], ready["status"]["order"][0], ready["status"]["order"][-1]) == (3, "root", "join")


def test_isolate_lets_the_others_go_on_and_invalidates_what_depends_on_the_failure(flows: Stack) -> None:
    flows.apply(
        node("isolated", steps=[step("bad", worker="failing"), step("after", "bad"), step("far", "after"), step("ok")])
    )
    obj = done(flows, "isolated", "False")
    assert states(obj) == {"bad": "failed", "after": "invalidated", "far": "invalidated", "ok": "completed"}
    assert (obj["status"]["state"], condition(obj, "Succeeded")["reason"]) == ("failed", "HarnessFailed")
    assert "Step bad (HarnessFailed) failed" in condition(obj, "Succeeded")["message"]


def test_fail_fast_stops_what_runs_and_what_waits(flows: Stack) -> None:
    flows.apply(
        node(
            "hasty", failureMode="FailFast",
            steps=[step("bad", worker="failing"), step("b", worker="slow"), step("after", "b")],
        )
    )  # fmt: skip
    began = time.monotonic()
    obj = done(flows, "hasty", "False")
    assert time.monotonic() - began < 40  # b alone would take a minute
    assert states(obj) == {"bad": "failed", "b": "cancelled", "after": "cancelled"}
    assert condition(obj, "Succeeded")["reason"] == "FailFast"


def test_cancel_ends_a_node_with_all_that_runs_in_it(flows: Stack) -> None:
    flows.apply(node("called-off", steps=[step("b", worker="slow"), step("after", "b")]))
    flows.wait("Node", NAMESPACE, "called-off", lambda obj: states(obj).get("b") == "running")
    flows.kubectl(
        "patch",
        "node.triplane.dev",
        "-n",
        NAMESPACE,
        "called-off",
        "--type=merge",
        "-p",
        '{"spec":{"cancel":true}}',
        as_="alice",
    )
    obj = done(flows, "called-off", "False", 40)
    assert (obj["status"]["state"], condition(obj, "Succeeded")["reason"]) == ("cancelled", "Cancelled")


def test_a_serial_queue_goes_one_by_one_and_a_replacing_node_clears_it(flows: Stack) -> None:
    for name, mode, worker in (("q1", "Serial", "stepper"), ("q2", "Serial", "slow"), ("q3", "Serial", "slow")):
        flows.apply(
            node(name, queue={"name": "q", "mode": mode}, steps=[step("a" if name == "q1" else "b", worker=worker)])
        )
        time.sleep(1.1)  # creation times have whole seconds
    assert flows.wait("Node", NAMESPACE, "q3", has("Succeeded", "Unknown", "QueueTurn"))
    done(flows, "q1")
    flows.wait("Node", NAMESPACE, "q2", lambda obj: states(obj).get("b") == "running")
    assert flows.get("Task", NAMESPACE, "q3-b") is None
    flows.apply(node("q4", queue={"name": "q", "mode": "Replace"}, steps=[step("a")]))
    done(flows, "q4")
    for name in ("q2", "q3"):
        obj = done(flows, name, "False")
        assert (obj["status"]["state"], condition(obj, "Succeeded")["reason"]) == ("cancelled", "Replaced")


def test_overrides_and_parameters_change_one_node_alone(flows: Stack) -> None:
    parameters = [{"name": "who", "default": "world"}, {"name": "times", "type": "Integer", "default": "1"}]
    greet = step("greet", objective="Greet [[who]]", inputs=[{"name": "note", "value": "for [[who]]"}])
    more = step("more", "greet", when='int(parameters["times"]) > 1')
    flows.apply(
        workflow("greeting", [greet, more], parameters=parameters),
        node("plain", workflowRef={"name": "greeting"}),
        node(
            "special", workflowRef={"name": "greeting"}, parameters={"who": "alice", "times": "2"},
            overrides=[{"name": "more", "objective": "Again, [[who]]"}],
        ),
    )  # fmt: skip
    assert states(done(flows, "plain")) == {"greet": "completed", "more": "skipped"}
    assert states(done(flows, "special")) == {"greet": "completed", "more": "completed"}
    assert result(flows, "plain-greet")["objective"] == "Greet world"
    assert result(flows, "special-greet")["objective"] == "Greet alice"
    assert result(flows, "special-greet")["inputs"] == {"note": "for alice"}
    assert result(flows, "special-more")["objective"] == "Again, alice"


def test_a_node_that_has_begun_is_not_changed_by_an_edit_of_its_workflow(flows: Stack) -> None:
    flows.apply(workflow("edited", [step("a", worker="slow"), step("second", "a")]))
    flows.apply(node("before", workflowRef={"name": "edited"}))
    flows.wait("Node", NAMESPACE, "before", lambda obj: states(obj).get("a") == "running")
    flows.apply(workflow("edited", [step("only", objective="Something else")]))
    flows.apply(node("afterwards", workflowRef={"name": "edited"}))
    first, second = done(flows, "before"), done(flows, "afterwards")
    assert (states(first), first["status"]["workflowGeneration"]) == ({"a": "completed", "second": "completed"}, 1)
    assert (states(second), second["status"]["workflowGeneration"]) == ({"only": "completed"}, 2)


def test_a_suspended_node_begins_when_it_is_resumed(flows: Stack) -> None:
    flows.apply(node("held", suspend=True, steps=[step("s")]))
    held = flows.wait("Node", NAMESPACE, "held", has("Suspended", "True"))
    assert condition(held, "Stalled")["status"] != "True"
    assert flows.get("Task", NAMESPACE, "held-s") is None
    flows.kubectl(
        "patch",
        "node.triplane.dev",
        "-n",
        NAMESPACE,
        "held",
        "--type=merge",
        "-p",
        '{"spec":{"suspend":false}}',
        as_="alice",
    )
    assert condition(done(flows, "held"), "Suspended")["status"] == ""


def test_finished_work_is_deleted_in_time_and_its_evidence_stays(flows: Stack) -> None:
    flows.apply(node("brief", ttlSecondsAfterFinished=2, steps=[step("s")]))
    task = flows.wait("Task", NAMESPACE, "brief-s", has("Succeeded", "True"))
    digest = task["status"]["outputs"][0]["digest"]
    deadline = time.monotonic() + 60
    while flows.get("Node", NAMESPACE, "brief") or flows.get("Task", NAMESPACE, "brief-s"):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.2)
    assert "task.accepted" in flows.triplane("log", "query", "--uid", task["metadata"]["uid"], "-o", "json")
    assert flows.triplane("blob", "get", "-n", NAMESPACE, digest)
    assert "brief-s" in flows.triplane("lineage", "-n", NAMESPACE, "task/brief-s")


def test_steps_apply_in_any_order_and_a_large_node_makes_all_its_tasks(flows: Stack) -> None:
    flows.apply(node("wide", workflowRef={"name": "late"}))
    flows.wait("Node", NAMESPACE, "wide", has("ResolvedRefs", "False", "WorkflowNotFound"))
    flows.apply(workflow("late", [step("end", *[f"s{n}" for n in range(40)]), *(step(f"s{n}") for n in range(40))]))
    obj = done(flows, "wide", seconds=240)
    assert obj["status"]["progress"] == "41/41"
    assert set(states(obj).values()) == {"completed"}
