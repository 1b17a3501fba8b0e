"""One Task through every plane, as users meet it: what kubectl describe and `triplane why` say in each state,
what the wait commands do, and that the evidence stays when the objects go."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.e2e.stack import Stack, agent, condition, graph, has, resource, task

from triplane.domain.naming import fingerprint, object_name

GOLDEN = Path(__file__).parent / "golden"
NAMESPACE = "spine"
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def spine(stack: Stack) -> Stack:
    """A namespace with a worker (alice's) and a judge (bob's)."""
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    return stack


def _normal(text: str) -> str:
    """Without what differs from run to run: digests, uids, fingerprints, times, versions."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:<digest>", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<uid>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<time>", text)
    text = re.sub(r"-[0-9a-f]{8}\b", "-<fingerprint>", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "<short>", text)
    text = re.sub(r"(Resource Version:\s+)\d+", r"\1<version>", text)
    text = re.sub(r"(Duration Seconds:\s+)\d+", r"\1<seconds>", text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def _shown(stack: Stack, name: str) -> str:
    """Conditions and summary of kubectl describe, then `triplane why`; Events have ages, they are left out."""
    described = _normal(stack.kubectl("describe", "task", "-n", NAMESPACE, name))
    status = described[described.index("Status:") : described.index("Events:")]
    why = _normal(stack.triplane("why", "-n", NAMESPACE, f"task/{name}"))
    return f"# kubectl describe task {name}\n{status}\n# triplane why task/{name}\n{why}\n"


def _pending(stack: Stack) -> str:
    stack.apply(task(NAMESPACE, "pending", graphRef={"name": "missing"}))
    stack.wait("Task", NAMESPACE, "pending", has("ResolvedRefs", "False", "GraphNotFound"))
    return "pending"


def _running(stack: Stack) -> str:
    stack.apply(*agent(NAMESPACE, "slow", ["write"], SLEEP="300"))
    stack.apply(task(NAMESPACE, "running", agentRef={"name": "slow"}))
    stack.wait("Task", NAMESPACE, "running", has("Succeeded", "Unknown", "Running"))
    return "running"


def _reviewing(stack: Stack) -> str:
    stack.apply(*agent(NAMESPACE, "slow-judge", ["slow-review"], SLEEP="300"), as_="bob")
    stack.apply(task(NAMESPACE, "reviewing", review={"capability": "slow-review"}))
    obj = stack.wait("Task", NAMESPACE, "reviewing", has("Succeeded", "Unknown", "InReview"))
    stack.wait("AgentSession", NAMESPACE, obj["status"]["reviewSession"], has("Succeeded", "Unknown", "Running"))
    return "reviewing"


def _rejected(stack: Stack) -> str:
    stack.apply(*agent(NAMESPACE, "strict", ["strict-review"], STRICT="1"), as_="bob")
    stack.apply(task(NAMESPACE, "rejected", review={"capability": "strict-review"}, maxReworks=0))
    stack.wait("Task", NAMESPACE, "rejected", has("Succeeded", "False"))
    return "rejected"


def _stalled(stack: Stack) -> str:
    stack.apply(*agent(NAMESPACE, "crony", ["crony-review"]))
    stack.apply(task(NAMESPACE, "stalled", review={"capability": "crony-review"}))
    stack.wait("Task", NAMESPACE, "stalled", has("Stalled", "True", "NoIndependentReviewer"))
    return "stalled"


def _succeeded(stack: Stack) -> str:
    stack.apply(task(NAMESPACE, "succeeded"))
    stack.wait("Task", NAMESPACE, "succeeded", has("Succeeded", "True"))
    return "succeeded"


@pytest.mark.parametrize(
    "bring",
    [
        pytest.param(_pending, id="pending: the graph is missing"),
        pytest.param(_running, id="running: the agent is working"),
        pytest.param(_reviewing, id="reviewing: another agent judges"),
        pytest.param(_rejected, id="rejected: no rework is left"),
        pytest.param(_stalled, id="stalled: nobody independent can review"),
        pytest.param(_succeeded, id="succeeded: accepted by an independent review"),
    ],
)
def test_describe_and_why_name_what_it_waits_for_and_who_must_act(
    spine: Stack, bring: Callable[[Stack], str], request: pytest.FixtureRequest
) -> None:
    name = bring(spine)
    try:
        shown = _shown(spine, name)
    finally:
        spine.kubectl("delete", "task", "-n", NAMESPACE, name)
    golden = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        golden.write_text(shown)
    assert shown == golden.read_text()


def test_kubectl_get_triplane_and_wait_work(spine: Stack) -> None:
    spine.apply(task(NAMESPACE, "waited"))
    spine.kubectl("wait", "--for=condition=Succeeded", "-n", NAMESPACE, "task/waited", "--timeout=60s")
    table = spine.kubectl("get", "triplane", "-A")
    assert re.search(r"task.triplane.dev/waited\s+Succeeded\s+worker\s+True\s+[0-9a-f]{12}\s+300\s", table)
    assert "agentsession.triplane.dev/" in table


def test_stalled_task_heals_when_another_user_applies_a_reviewer(spine: Stack) -> None:
    spine.apply(task(NAMESPACE, "heals", review={"capability": "late-review"}))
    spine.wait("Task", NAMESPACE, "heals", has("Stalled", "True", "NoIndependentReviewer"))
    spine.apply(*agent(NAMESPACE, "late", ["late-review"]), as_="bob")
    done = spine.wait("Task", NAMESPACE, "heals", has("Succeeded", "True"))
    assert condition(done, "Stalled")["status"] == "False"


def test_a_person_reviews_with_kubectl_and_only_as_an_independent_user(spine: Stack) -> None:
    people = [f"system:serviceaccount:people:{name}" for name in ("alice", "bob")]
    spine.apply(task(NAMESPACE, "judged", review={"people": people}))
    waiting = spine.wait("Task", NAMESPACE, "judged", has("Succeeded", "Unknown", "WaitingForPerson"))
    subjects = [{"name": out["name"], "digest": out["digest"]} for out in waiting["status"]["outputs"]]
    verdict = {
        "taskRef": {"name": "judged", "uid": waiting["metadata"]["uid"]},
        "round": 1, "verdict": "Approve", "subjects": subjects,
    }  # fmt: skip
    mine = json.dumps(resource("Review", NAMESPACE, "by-alice", verdict))
    said = spine.kubectl("apply", "-f", "-", as_="alice", stdin=mine, check=False)
    assert "(Forbidden)" in said
    assert "alice controls Agent worker" in said
    assert spine.get("Review", NAMESPACE, "by-alice") is None
    spine.apply(resource("Review", NAMESPACE, "by-bob", verdict), as_="bob")
    done = spine.wait("Task", NAMESPACE, "judged", has("Succeeded", "True"))
    assert "by-bob" in condition(done, "Succeeded")["message"]


def test_rejected_work_is_mended_in_the_same_session_because_of_the_findings(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "picky", ["picky-review"], STRICT="1"), as_="bob")
    spine.apply(task(NAMESPACE, "mended", review={"capability": "picky-review"}))
    done = spine.wait("Task", NAMESPACE, "mended", has("Succeeded", "True"))
    assert done["status"]["round"] == 2
    sessions = [s for s in spine.list("AgentSession", NAMESPACE) if s["spec"]["taskRef"]["name"] == "mended"]
    producer = [s for s in sessions if s["spec"]["role"] == "Producer"]
    assert len(producer) == 1
    assert producer[0]["status"]["run"] == 2
    assert len({s["spec"]["agentRef"]["uid"] for s in sessions}) == 2


def test_findings_without_effect_fail_the_task(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "stubborn", ["write"], STUBBORN="1"))
    spine.apply(*agent(NAMESPACE, "picky", ["picky-review"], STRICT="1"), as_="bob")
    spine.apply(task(NAMESPACE, "unmended", agentRef={"name": "stubborn"}, review={"capability": "picky-review"}))
    spine.wait("Task", NAMESPACE, "unmended", has("Succeeded", "False", "ReworksExhausted"))


def test_failing_harness_is_retried_once_and_then_named(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "broken", ["write"], FAIL="on purpose"))
    spine.apply(task(NAMESPACE, "fails", agentRef={"name": "broken"}))
    failed = spine.wait("Task", NAMESPACE, "fails", has("Succeeded", "False", "HarnessFailed"))
    assert "on purpose" in condition(failed, "Succeeded")["message"]
    assert failed["status"]["runs"] == 2


def test_deleting_a_running_task_ends_its_session_and_keeps_the_evidence(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "sleeper", ["write"], SLEEP="300"))
    spine.apply(task(NAMESPACE, "doomed", agentRef={"name": "sleeper"}))
    obj = spine.wait("Task", NAMESPACE, "doomed", has("Succeeded", "Unknown", "Running"))
    session = obj["status"]["session"]
    uid = spine.get("AgentSession", NAMESPACE, session)["metadata"]["uid"]  # type: ignore[index]
    spine.kubectl("delete", "task", "-n", NAMESPACE, "doomed", "--wait=true")
    types = _until(lambda: _events(spine, uid), lambda found: "run.revoked" in found)
    assert {"session.offered", "run.permitted", "run.claimed", "run.started", "run.revoked"} <= types
    assert _until(lambda: spine.get("AgentSession", NAMESPACE, session), lambda found: found is None) is None
    gone = _events(spine, obj["metadata"]["uid"])
    assert {"resource.observed", "task.placed", "resource.gone"} <= gone


def test_lineage_is_answered_after_everything_was_deleted(spine: Stack) -> None:
    spine.apply(task(NAMESPACE, "kept"))
    done = spine.wait("Task", NAMESPACE, "kept", has("Succeeded", "True"))
    digest = done["status"]["outputs"][0]["digest"]
    artifact = done["status"]["outputs"][0]["artifact"]
    spine.kubectl("delete", "task", "-n", NAMESPACE, "kept")
    _until(lambda: spine.get("Artifact", NAMESPACE, artifact), lambda found: found is None)
    lineage = spine.triplane("lineage", digest)
    assert "Task spine/kept" in lineage
    assert "Approve by Agent judge" in lineage
    assert "as-run record" in lineage


def test_deleting_the_source_of_an_input_mid_run_wedges_nothing(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "unhurried", ["write"], SLEEP="3"))
    source = {"name": "before", "from": {"task": "upstream", "output": "report"}}
    spine.apply(
        task(NAMESPACE, "downstream", agentRef={"name": "unhurried"}, inputs=[source]), task(NAMESPACE, "upstream")
    )
    spine.wait("Task", NAMESPACE, "downstream", has("Succeeded", "Unknown", "Running"))
    spine.kubectl("delete", "task", "-n", NAMESPACE, "upstream")
    done = spine.wait("Task", NAMESPACE, "downstream", has("Succeeded", "True"))
    assert done["status"]["runs"] == 1


def test_node_makes_its_task_and_does_not_work_twice(spine: Stack) -> None:
    step = {key: value for key, value in task(NAMESPACE, "x")["spec"].items() if key != "graphRef"}
    spine.apply(resource("Node", NAMESPACE, "n", {"graphRef": {"name": "g"}, "steps": [{"name": "only", **step}]}))
    spine.wait("Node", NAMESPACE, "n", has("Succeeded", "True"))
    made = spine.get("Task", NAMESPACE, "n-only")
    assert made is not None
    assert made["spec"]["onBehalfOf"] == "system:serviceaccount:people:alice"
    spine.kubectl("delete", "task", "-n", NAMESPACE, "n-only")
    spine.kubectl("annotate", "node.triplane.dev", "-n", NAMESPACE, "n", "triplane.dev/requestedAt=now")
    node = spine.wait("Node", NAMESPACE, "n", lambda obj: obj["status"].get("requestedAt") == "now")
    assert condition(node, "Succeeded")["status"] == "True"
    assert node["status"]["progress"] == "1/1"
    assert spine.get("Task", NAMESPACE, "n-only") is None


def test_node_goes_on_when_the_task_that_stood_in_its_place_is_deleted(spine: Stack) -> None:
    spine.apply(task(NAMESPACE, "taken-only", graphRef={"name": "missing"}))
    step = {key: value for key, value in task(NAMESPACE, "x")["spec"].items() if key != "graphRef"}
    spine.apply(resource("Node", NAMESPACE, "taken", {"graphRef": {"name": "g"}, "steps": [{"name": "only", **step}]}))
    spine.wait("Node", NAMESPACE, "taken", has("Stalled", "True", "TaskNameTaken"))
    spine.kubectl("delete", "task", "-n", NAMESPACE, "taken-only")
    spine.wait("Node", NAMESPACE, "taken", has("Succeeded", "True"))


def test_a_review_made_under_the_name_the_operator_will_use_decides_nothing(spine: Stack) -> None:
    spine.apply(*agent(NAMESPACE, "thinker", ["think-review"], SLEEP="3"), as_="bob")
    spine.apply(task(NAMESPACE, "squatted", review={"capability": "think-review"}))
    seen = spine.wait("Task", NAMESPACE, "squatted", lambda obj: bool((obj.get("status") or {}).get("reviewSession")))
    session = spine.get("AgentSession", NAMESPACE, seen["status"]["reviewSession"])
    assert session is not None
    name = object_name("squatted", "review-1", fingerprint(session["metadata"]["uid"], "1"))
    forged = {
        "taskRef": {"name": "squatted", "uid": seen["metadata"]["uid"]},
        "round": 1, "verdict": "Approve", "subjects": [{"name": "report", "digest": "sha256:" + "f" * 64}],
    }  # fmt: skip
    spine.apply(resource("Review", NAMESPACE, name, forged), as_="bob")
    done = spine.wait("Task", NAMESPACE, "squatted", has("Succeeded", "True"))
    theirs = [r for r in spine.list("Review", NAMESPACE) if r["spec"]["taskRef"]["name"] == "squatted"]
    (ours,) = [review for review in theirs if "sessionRef" in review["spec"]]
    assert ours["metadata"]["name"] != name
    assert ours["metadata"]["name"] in condition(done, "Succeeded")["message"]


def test_a_blob_of_another_namespace_is_neither_read_nor_made_an_input_by_naming_it(
    spine: Stack, tmp_path: Path
) -> None:
    spine.people("vault")
    secret, kubeconfig = tmp_path / "secret", str(spine.settings.secrets / "kubeconfig-alice")
    secret.write_text("only for the vault\n")
    as_alice = ("--kubeconfig", kubeconfig)
    digest = spine.triplane("blob", "put", "-n", "vault", str(secret), *as_alice).strip()
    spine.apply(task(NAMESPACE, "thief", inputs=[{"name": "loot", "digest": digest}]))
    seen = spine.wait("Task", NAMESPACE, "thief", has("ResolvedRefs", "False", "InputNotStored"))
    assert f"`triplane blob put -n {NAMESPACE}`" in condition(seen, "ResolvedRefs")["message"]
    spine.triplane("blob", "get", "-n", NAMESPACE, digest, *as_alice, code=2)
    assert spine.triplane("blob", "get", "-n", "vault", digest, *as_alice) == secret.read_text()
    spine.triplane("blob", "put", "-n", NAMESPACE, str(secret), *as_alice)  # who has the content may use it
    spine.wait("Task", NAMESPACE, "thief", has("Succeeded", "True"))


def test_the_chain_verifies_after_all_of_this(spine: Stack) -> None:
    assert re.search(r"chain verified: \d+ entries, root [0-9a-f]{64}", spine.triplane("log", "verify"))


def _events(stack: Stack, uid: str) -> set[str]:
    text = stack.triplane("log", "query", "--uid", uid, "-o", "json")
    entries = json.loads(text)
    return {entry["entry"]["type"] for entry in (entries["entries"] if isinstance(entries, dict) else entries)}


def _until(read: Callable[[], Found], good: Callable[[Found], bool], seconds: float = 60) -> Found:
    deadline = time.monotonic() + seconds
    while True:
        found = read()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"still {found}"
        time.sleep(0.2)
