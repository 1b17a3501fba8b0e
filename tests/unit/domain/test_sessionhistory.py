"""Sessions told from the log: runs, outcome and cost, the one last at work first."""

from typing import Any

from triplane.domain.sessionhistory import Histories


def entry(type_: str, uid: str, at: int, **data: Any) -> dict[str, Any]:
    subject = {"kind": "AgentSession", "namespace": "team", "name": f"n-{uid}", "uid": uid}
    return {
        "type": type_,
        "subject": subject,
        "stream": "graph/g-1",
        "time": f"2026-01-01T00:00:{at:02}Z",
        "data": data,
    }


def offered(uid: str, at: int, agent: str = "writer", task: str = "t-1") -> dict[str, Any]:
    return entry("session.offered", uid, at, agentName=agent, agentUid=f"a-{agent}", taskUid=task, role="producer")


def finished(uid: str, at: int, run: int, outcome: str = "succeeded", cost: int = 5) -> dict[str, Any]:
    return entry("run.finished", uid, at, run=run, outcome=outcome, inputTokens=10, outputTokens=1, costMinorUnits=cost)


ENTRIES = [
    offered("s-1", 0),
    entry("run.claimed", "s-1", 1, run=1),
    entry("run.lost", "s-1", 2, run=1, reason="RunnerLost"),
    offered("s-2", 3, agent="judge", task="t-2"),
    offered("s-3", 4),
    entry("run.claimed", "s-1", 5, run=2),
    finished("s-1", 6, 2, "failed", 7),
    entry("run.claimed", "s-1", 7, run=3),
    finished("s-1", 8, 3),
]


def told(**wanted: Any) -> list[dict[str, Any]]:
    histories = Histories(**wanted)
    histories.add(enumerate(ENTRIES))
    return [session.wire() for session in histories.newest_first()]


def test_a_session_taken_up_again_is_newer_than_one_made_after_it() -> None:
    assert [item["uid"] for item in told()] == ["s-1", "s-3", "s-2"]


def test_every_run_counts_and_is_paid_for() -> None:
    (first, *_) = told()
    assert (first["runs"], first["outcome"], first["running"]) == (3, "succeeded", False)
    assert (first["inputTokens"], first["outputTokens"], first["tokens"], first["costMinorUnits"]) == (20, 2, 22, 12)
    assert (first["offeredAt"], first["lastAt"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:00:08Z")
    assert (first["role"], first["graphUid"]) == ("Producer", "g-1")


def test_a_run_that_was_lost_is_told_so_and_one_at_work_is_running() -> None:
    histories = Histories()
    histories.add(enumerate(ENTRIES[:3]))
    (session,) = histories.newest_first()
    assert (session.outcome, session.live, session.runs) == ("lost", set(), 1)
    histories.add([(5, ENTRIES[5])])
    assert session.wire()["running"] is True


def test_agents_are_known_by_name_or_uid_and_tasks_by_uid() -> None:
    assert [item["uid"] for item in told(agent="judge")] == ["s-2"]
    assert [item["uid"] for item in told(agent="a-writer")] == ["s-1", "s-3"]
    assert [item["uid"] for item in told(agent="writer", task_uids=frozenset({"t-2"}))] == []
    assert [item["uid"] for item in told(task_uids=frozenset({"t-2"}))] == ["s-2"]
