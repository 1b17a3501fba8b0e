"""One Task whose agent takes its time, in a namespace of its own: what most tests of single faults disturb."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.e2e.api import Api
from tests.e2e.stack import agent, condition, graph, task
from tests.faults import workload
from tests.faults.evidence import leftovers, settle, verified
from tests.faults.installation import Installation
from tests.faults.invariants import LogRow, explained, nothing_left, runs_end_once
from tests.faults.witness import read_log

UNDISTURBED = ["session.offered", "run.claimed", "run.started", "run.finished", "attestation.recorded"]
"""One run, from its offer to its result and the statement of what it produced."""
PASSING = frozenset({"run.permitted", "run.recorded", "resource.observed"})


class Work:
    """The Task ``work`` of alice's, reviewed by bob's judge."""

    def __init__(self, installation: Installation, api: Api, namespace: str, seconds: float) -> None:
        """``seconds`` is how long its agent works."""
        self.installation = installation
        self.api = api
        self.namespace = namespace
        workload.open_namespace(installation, namespace)
        slow = agent(namespace, "worker", ["write"], SLEEP=f"{seconds:g}")
        workload.create(installation, "alice", [graph(namespace), *slow])
        workload.create(installation, "bob", agent(namespace, "judge", ["review"]))

    def apply(self, name: str = "work", **spec: Any) -> None:
        """The user asks for the Task."""
        workload.create(self.installation, "alice", [task(self.namespace, name, **spec)])

    def settled(self) -> None:
        """Wait until the Graph and everything about the agents is ready."""

        def waiting() -> list[str]:
            found = workload.objects(self.api, self.namespace)
            return [item["metadata"]["name"] for item in found if condition(item, "Ready")["status"] != "True"]

        assert settle(waiting, 30) == []

    def task(self, name: str = "work") -> dict[str, Any]:
        """The Task as it stands."""
        items = self.api.list("Task", self.namespace).raise_for_status().json()["items"]
        found = next(({**item, "kind": "Task"} for item in items if item["metadata"]["name"] == name), None)
        assert found is not None, f"there is no Task {name}"
        return found

    def wait(
        self, what: Callable[[Mapping[str, Any]], bool], seconds: float = 60.0, *, name: str = "work"
    ) -> dict[str, Any]:
        """The Task once ``what`` holds of its condition ``Succeeded``."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.task(name)
            if what(condition(found, "Succeeded")):
                return found
            assert time.monotonic() < deadline, condition(found, "Succeeded")
            time.sleep(0.1)

    def begin(self) -> str:
        """Apply it and return the producing session's uid when its agent works."""
        self.apply()
        name = self.wait(lambda found: found["reason"] == "Running")["status"]["session"]
        sessions = self.api.list("AgentSession", self.namespace).raise_for_status().json()["items"]
        return next(str(item["metadata"]["uid"]) for item in sessions if item["metadata"]["name"] == name)

    def succeed(self, seconds: float = 60.0) -> None:
        """Wait for success and see that everything is sound and nothing is left."""
        self.wait(lambda found: found["status"] == "True", seconds)
        assert settle(self._problems) == []
        assert verified(self.installation) == []

    def events(self, uid: str) -> list[LogRow]:
        """The log's entries about this object."""
        return [row for row in read_log(self.installation) if row.entry["subject"]["uid"] == uid]

    def types(self, uid: str) -> list[str]:
        """The types of its entries, permits and journal left out."""
        return [row.type for row in self.events(uid) if row.type not in PASSING]

    def _problems(self) -> list[str]:
        rows = read_log(self.installation)
        found = workload.objects(self.api, self.namespace)
        return [*runs_end_once(rows), *nothing_left(rows, leftovers(self.installation)), *explained(found)]


def eventually(what: Callable[[], bool], seconds: float, otherwise: str) -> float:
    """Seconds until ``what`` held; fails with ``otherwise`` after ``seconds``."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, otherwise
        time.sleep(0.05)
    return time.monotonic() - began
