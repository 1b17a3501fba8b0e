"""``why`` says what the conditions say, in order, and names who must act."""

from dataclasses import replace
from typing import Any

import pytest

from triplane.api.meta import Gate
from triplane.domain import task_outlook
from triplane.domain.task_outlook import Outlook
from triplane.domain.why import explain


def task(outlook: Outlook | None, **status: Any) -> dict[str, Any]:
    """A Task whose status is what the operator's own decision gives."""
    found: dict[str, Any] = {"observedGeneration": 1, **status}
    if outlook is not None:
        found["state"] = outlook.state.value
        found["conditions"] = [
            {"type": f.type, "status": f.status, "reason": f.reason, "message": f.message} for f in outlook.findings()
        ]
        found |= {"reviewer": outlook.reviewer} if outlook.reviewer else {}
    metadata = {"name": "audit", "namespace": "demo", "uid": "u", "generation": 1}
    return {"kind": "Task", "metadata": metadata, "spec": {"graphRef": {"name": "g"}}, "status": found}


RUNNING = task_outlook.in_run("Running", "Agent a is working: run 1 of session s", queued=False)
CASES = [
    pytest.param(
        task(task_outlook.unresolved([("AgentNotFound", "Agent a does not exist; apply it")])),
        [
            "Task demo/audit waits for something that does not exist yet",
            "AgentNotFound: Waiting: Agent a does not exist; apply it",
            "Whoever applies what is missing must act; it goes on by itself then, in any order",
        ],
        id="a pending Task names the reference that dangles",
    ),
    pytest.param(
        task(task_outlook.in_run("Queued", "Run 1 of session s waits for a free runner", queued=True)),
        [
            "Task demo/audit waits to be run",
            "Queued: Run 1 of session s waits for a free runner",
            "A runner must take it: see that one runs and has a free place (`triplane cluster status`)",
        ],
        id="a queued Task waits for a runner",
    ),
    pytest.param(
        task(task_outlook.awaiting(["a", "b"])),
        [
            "Task demo/audit waits for what must come first",
            "AwaitingDependency: Waits until these Tasks are accepted or skipped: a, b",
            "Nobody must act here; those Tasks' people and agents must (`triplane why task/NAME`), then it goes on",
        ],
        id="a Task that waits for others names them",
    ),
    pytest.param(
        task(
            task_outlook.backing_off("Run 1 of s failed (HarnessFailed: no)", "2026-03-01T12:00:00Z", seconds=60),
            nextRunAt="2026-03-01T12:00:00Z",
        ),
        [
            "Task demo/audit will be tried again",
            "RetryBackoff: Run 1 of s failed (HarnessFailed: no)",
            "Nobody must act: the next run may begin at 2026-03-01T12:00:00Z",
        ],
        id="a Task that backs off says until when",
    ),
    pytest.param(
        task(
            task_outlook.awaiting_leave(
                task_outlook.Leave(Gate.LAUNCH, (), "2026-03-01T12:00:00Z", None, ("bob",)), "Waiting for leave by bob"
            ),
            approval={"gate": "Launch", "people": ["bob"]},
        ),
        [
            "Task demo/audit waits for a person's leave",
            "WaitingForApproval: Waiting for leave by bob",
            "bob must answer: `triplane review approve audit`, or `reject`",
        ],
        id="a gate names who must answer, and how",
    ),
    pytest.param(
        task(
            task_outlook.in_review("WaitingForPerson", "Waiting for a Review of round 1 by alice", reviewer="a, alice"),
            reviewer="a, alice",
            reviewSession="s2",
        ),
        [
            "Task demo/audit is in review",
            "WaitingForPerson: Waiting for a Review of round 1 by alice",
            "a, alice must give a verdict: apply a Review of these digests (`triplane review show`)",
        ],
        id="a person is named beside the Agent that reviews",
    ),
    pytest.param(
        task(task_outlook.held(["Graph g", "Node n"])),
        [
            "Task demo/audit is suspended",
            "Suspended: Suspended by Graph g and Node n: nothing is launched until spec.suspend is false there",
            "Whoever suspended it must act, when it is to go on: set spec.suspend to false where it says so above",
        ],
        id="a suspended Task names who holds it",
    ),
    pytest.param(
        task(replace(RUNNING, suspended=task_outlook.suspension(["Task audit"])), agent="a"),
        [
            "Task demo/audit is at work",
            "Running: Agent a is working: run 1 of session s",
            "Suspended: Suspended by Task audit: nothing is launched until spec.suspend is false there",
            "Agent a must finish; nobody else must act",
        ],
        id="a suspended Task whose run goes on says both",
    ),
    pytest.param(
        task(task_outlook.blocked("DependencyCycle", "These Tasks wait for one another: a → b → a")),
        [
            "Task demo/audit is stalled",
            "DependencyCycle: These Tasks wait for one another: a → b → a",
            "Whoever breaks the cycle that is spelled out must act: nothing moves until what is said above is mended",
        ],
        id="a cycle is spelled out",
    ),
    pytest.param(
        task(task_outlook.finished(None, None, None, ("ConditionFalse", "Its condition is false: x > 1"))),
        [
            "Task demo/audit was skipped",
            "ConditionFalse: Its condition is false: x > 1",
            "Nobody must act: it is done",
        ],
        id="a skipped Task says by which condition",
    ),
    pytest.param(
        task(
            task_outlook.in_run("AgentAtLimit", "Run 1 waits until Agent a has fewer", queued=True),
            waitingReason="rate_limit",
        ),
        [
            "Task demo/audit waits to be run",
            "AgentAtLimit: Run 1 waits until Agent a has fewer",
            "Nobody must act: it goes on when its Agent has fewer sessions at work; maxConcurrentSessions says how "
            "many",
        ],
        id="a Task behind its Agent's limit says so",
    ),
    pytest.param(
        task(RUNNING, agent="a"),
        [
            "Task demo/audit is at work",
            "Running: Agent a is working: run 1 of session s",
            "Agent a must finish; nobody else must act",
        ],
        id="a running Task names the agent",
    ),
    pytest.param(
        task(RUNNING, agent="a", findings=["audit.json /n: says 1, the inputs give 2"]),
        [
            "Task demo/audit is at work",
            "Running: Agent a is working: run 1 of session s",
            "The last rejection found: audit.json /n: says 1, the inputs give 2",
            "Agent a must finish; nobody else must act",
        ],
        id="a rejected Task says what was found",
    ),
    pytest.param(
        task(task_outlook.in_review("InReview", "Review by agent r", reviewer="r"), reviewSession="s2"),
        [
            "Task demo/audit is in review",
            "InReview: Review by agent r",
            "Agent r must finish its review (session s2); nobody else must act",
        ],
        id="a Task in review names the reviewing agent and its session",
    ),
    pytest.param(
        task(
            task_outlook.in_review("WaitingForPerson", "Waiting for a verdict of alice or bob", reviewer="alice, bob")
        ),
        [
            "Task demo/audit is in review",
            "WaitingForPerson: Waiting for a verdict of alice or bob",
            "alice, bob must give a verdict: apply a Review of these digests (`triplane review show`)",
        ],
        id="a Task reviewed by people names them",
    ),
    pytest.param(
        task(task_outlook.blocked("NoIndependentReviewer", "No independent Agent has capability review; apply one")),
        [
            "Task demo/audit is stalled",
            "NoIndependentReviewer: No independent Agent has capability review; apply one",
            "A user other than the producing Agent's must act: nothing moves until what is said above is mended",
        ],
        id="a stalled Task says who must act",
    ),
    pytest.param(
        task(task_outlook.finished(2, "r-2", None)),
        [
            "Task demo/audit is done",
            "Accepted: The outputs of round 2 were accepted by Review r-2",
            "Nobody must act: it is done",
        ],
        id="an accepted Task names the Review",
    ),
    pytest.param(
        task(task_outlook.finished(None, None, ("HarnessFailed", "The program ended with exit code 3"))),
        [
            "Task demo/audit has failed",
            "HarnessFailed: The program ended with exit code 3",
            "NotAccepted: No output was accepted",
            "Nobody will act: it is over. To try again, apply new work under another name",
        ],
        id="a failed Task says why",
    ),
    pytest.param(
        task(None, observedGeneration=0),
        [
            "Task demo/audit has no conditions yet",
            "The operator has not looked at it yet",
            "The operator must act: see that it runs (`triplane cluster status`)",
        ],
        id="a Task nobody has seen points at the operator",
    ),
]


@pytest.mark.parametrize(("obj", "sentences"), CASES)
def test_the_explanation_reads(obj: dict[str, Any], sentences: list[str]) -> None:
    assert explain(obj) == sentences


@pytest.mark.parametrize(("obj", "sentences"), CASES)
def test_every_reason_comes_from_a_condition(obj: dict[str, Any], sentences: list[str]) -> None:
    said = {f"{c['reason']}: {c['message']}" for c in obj["status"].get("conditions", [])}
    reasons = {line for line in explain(obj)[1:-1] if not line.startswith(("The operator", "The last rejection"))}
    assert reasons <= said


def test_a_status_about_an_older_spec_is_called_so() -> None:
    obj = task(RUNNING, agent="a")
    obj["metadata"]["generation"] = 3
    assert "The operator has seen generation 1 of 3: what follows is about the older spec" in explain(obj)


def test_an_object_being_deleted_says_what_happens_and_lists_the_sessions_being_stopped() -> None:
    obj = task(RUNNING, agent="a")
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    session = {
        "kind": "AgentSession",
        "metadata": {"name": "s", "namespace": "demo"},
        "spec": {"role": "Producer"},
        "status": {"state": "running", "conditions": []},
    }
    over = {**session, "metadata": {"name": "old"}, "status": {"state": "completed"}}
    ended = {**session, "metadata": {"name": "e", "namespace": "demo"}, "status": {"state": "cancelled"}}
    said = explain(obj, [session, over, ended])
    assert said[0] == "Task demo/audit is being deleted"
    assert "AgentSession demo/s (producer) is being stopped" in said
    assert "AgentSession demo/e (producer) was stopped" in said
    assert not any("old" in line for line in said)
    assert said[-1].startswith("Nobody must act: what it owns is being stopped")


def test_a_suspended_agent_points_at_whoever_applied_it() -> None:
    conditions = [{"type": "Ready", "status": "False", "reason": "Suspended", "message": "The Agent is suspended"}]
    agent = {
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "demo", "generation": 1},
        "spec": {},
        "status": {"observedGeneration": 1, "conditions": conditions},
    }
    assert explain(agent) == [
        "Agent demo/a is not Ready",
        "Suspended: The Agent is suspended",
        "Whoever applied it must act: mend what is said above",
    ]
