"""A Task that needs a person's leave and two reviewers, and people who do what its status asks of them."""

from typing import Any

from tests.unit.controllers.memory_world import NAMESPACE, KilledError, MemoryWorld

from triplane.audit.model import EventFilter, Recorded
from triplane.domain.accounts import Accounts

WORKER = {"exec": {"program": "worker.py", "interpreter": "python3", "args": [], "env": []}}
TASK: dict[str, Any] = {
    "graphRef": {"name": "g"},
    "objective": "Write the report",
    "agentRef": {"name": "writer"},
    "outputs": [{"name": "report", "path": "report.txt", "mediaType": "text/plain"}],
}
AGENTS = (("alice", "writer", "write"), ("bob", "judge", "review"))


def world(
    agents: tuple[tuple[str, str, str], ...] = AGENTS, accounts: Accounts | None = None, **task: Any
) -> MemoryWorld:
    """A Task ``t`` of alice's, and Agents (user, name, capability), each with a Harness of the same user."""
    made = MemoryWorld(accounts)
    made.server.put("Graph", "g", {}, "alice")
    for user, name, capability in agents:
        made.server.put("Harness", name, WORKER, user)
        made.server.put("Agent", name, {"harnessRef": {"name": name}, "capabilities": [capability]}, user)
    made.server.put("Task", "t", {**TASK, **task}, "alice")
    made.look()
    return made


def status(made: MemoryWorld, name: str = "t") -> dict[str, Any]:
    return dict(made.server.objects["Task", NAMESPACE, name].get("status") or {})


def message(made: MemoryWorld, condition: str = "Succeeded") -> str:
    return next((str(item["message"]) for item in status(made)["conditions"] if item["type"] == condition), "")


def outputs(made: MemoryWorld) -> list[dict[str, str]]:
    return [{"name": item["name"], "digest": item["digest"]} for item in status(made).get("outputs", ())]


def say(made: MemoryWorld, user: str | None, verdict: str = "Approve", *, name: str = "", **spec: Any) -> str:
    """Somebody makes a Review of what the Task's status shows; returns its name."""
    shown = status(made)
    gate = shown.get("approval")
    values = {
        "taskRef": {"name": "t", "uid": made.server.objects["Task", NAMESPACE, "t"]["metadata"]["uid"]},
        "gate": gate["gate"] if gate else "Outputs",
        "round": shown.get("round", 1),
        "verdict": verdict,
        "subjects": gate["subjects"] if gate else outputs(made),
        "findings": [] if verdict == "Approve" else ["no"],
        **spec,
    }
    name = name or f"{user}-{values['gate'].lower()}-{len(made.server.of('Review'))}"
    made.server.put("Review", name, values, user)
    made.look()
    return name


async def entries(made: MemoryWorld, *types: str) -> list[Recorded]:
    return await made.log.query(EventFilter(types=frozenset(types)), limit=1000)


async def to_end(made: MemoryWorld, *people: str) -> int:
    """Runs are made, and these people give leave and approve whatever waits for them; how often it was killed."""
    killed = 0
    said: set[tuple[str, str]] = set()
    for _ in range(30):
        try:
            await made.settle()
        except KilledError:
            killed += 1
            made.start()
            continue
        if await made.run_next() is not None:
            continue
        shown = status(made)
        waits = shown.get("approval") or shown.get("state") == "reviewing"
        gate = shown["approval"]["gate"] if shown.get("approval") else f"Outputs-{shown.get('round')}"
        todo = [user for user in people if (user, gate) not in said] if waits else []
        if not todo:
            return killed
        said.add((todo[0], gate))
        say(made, todo[0], name=f"{todo[0]}-{gate.lower()}")
    raise AssertionError("it does not come to rest")
