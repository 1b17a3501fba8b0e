"""What a seed's history is about: who applies what in which order, how agents behave, what must come of it.

``expected`` is an oracle written apart from the product: the end of every Task, from the graph and the behaviours
alone. It speaks only of histories without interference by users; the other invariants hold in all.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.apiserver import ApiServer
from triplane.domain.session import Claim

Script = Callable[[ApiServer], None]
GRAPH, NODE = "g", "n"
BACKOFF_SECONDS = 3
UNSEEN_SECONDS = 25.0
INDEPENDENT_REVIEWERS = 2
"""Of any worker: the judge, and the crony of the other worker."""
WIDE = {"mayUse": {"egress": ["*"]}}
NARROW = {"mayUse": {"egress": []}, "mayDelegate": {"egress": []}}
WORKERS = (("worker", "alice"), ("helper", "carol"))


@dataclass(frozen=True)
class StepPlan:
    """One step of the Node and how it goes."""

    name: str
    after: tuple[str, ...]
    """Steps named in dependsOn."""
    takes: tuple[str, ...]
    """Steps whose output it takes as one merged input."""
    threshold: int | None
    """It is done only if the value of the first step it takes is above this."""
    value: int
    """What it produces."""
    agent: str
    retries: int
    runs: tuple[str, ...]
    """What happens to its first runs; after them all goes well."""
    reviews: tuple[str, ...]
    """What happens to its first reviews."""

    @property
    def reviewers(self) -> int:
        """How many must approve; where a review goes wrong, one: the oracle does not follow which of them it is."""
        return INDEPENDENT_REVIEWERS if not self.reviews and self.value % 3 == 0 else 1

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.after, *self.takes)))


@dataclass
class Scenario:
    """Everything a seed has decided beforehand."""

    steps: Sequence[StepPlan]
    fail_fast: bool
    script: Sequence[Script]
    """What users apply, in this order."""
    interference: Sequence[Script]
    """What users do while the work is under way."""
    faults: int
    faulty_watches: bool
    interfered: bool
    agent_limit: int | None
    store_settings: Mapping[str, Any] = field(default_factory=dict)
    _runs: dict[tuple[str, str], int] = field(default_factory=dict)

    def step_of(self, task: str) -> StepPlan:
        return next(step for step in self.steps if task == f"{NODE}-{step.name}")

    def behaviour(self, claim: Claim) -> str:
        """What happens to this run; the same run asked about again would be another."""
        task = claim.work_order["task"]["name"]
        step = self.step_of(task)
        planned = step.runs if claim.role == "producer" else step.reviews
        number = self._runs[task, claim.role] = self._runs.get((task, claim.role), 0) + 1
        return planned[number - 1] if number <= len(planned) else "well"

    def product(self, claim: Claim) -> Mapping[str, Any]:
        """What a producer writes: the same in every run."""
        step = self.step_of(claim.work_order["task"]["name"])
        return {"value": step.value, "step": step.name}

    def expected(self) -> Mapping[str, str]:
        """The state every step must end in, if no user interferes and nothing fails fast."""
        ends: dict[str, str] = {}
        for step in self.steps:  # they are generated in an order that works
            needed = {name: ends[name] for name in step.needs}
            if any(end not in ("completed", "skipped") for end in needed.values()):
                ends[step.name] = "invalidated"
            elif (step.takes and all(needed[name] == "skipped" for name in step.takes)) or (
                step.threshold is not None and self._below(step, ends)
            ):
                ends[step.name] = "skipped"
            else:
                ends[step.name] = self._outcome(step)
        return ends

    def _below(self, step: StepPlan, ends: Mapping[str, str]) -> bool:
        first = next(item for item in self.steps if item.name == step.takes[0])
        assert step.threshold is not None
        return ends[first.name] != "completed" or first.value <= step.threshold

    @staticmethod
    def _outcome(step: StepPlan) -> str:
        """Runs fail until the retries of the round are used up; a rejection opens the next round, once."""
        runs, reviews = list(step.runs), list(step.reviews)
        for _round in (1, 2):
            failures = 0
            while True:
                run = runs.pop(0) if runs else "well"
                if run in ("lost", "refused"):
                    continue
                if run == "well":
                    break
                failures += 1
                if failures > step.retries:
                    return "timed_out" if run == "timeout" else "failed"
            review = _reviewed(reviews, step.retries)
            if review == "stalled":
                return review
            if review == "well":
                return "completed"
        return "failed"


def _reviewed(reviews: list[str], retries: int) -> str:
    """How a round's review comes out: each independent reviewer may fail ``retries`` times and once more."""
    for _ in range(INDEPENDENT_REVIEWERS):
        failures = 0
        while failures <= retries:
            review = reviews.pop(0) if reviews else "well"
            if review in ("well", "reject"):
                return review
            failures += review not in ("lost", "refused")
    return "stalled"


def make(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"scenario-{seed}")
    steps = _steps(rng)
    interfered = rng.random() < 0.4
    scenario = Scenario(
        steps=steps,
        fail_fast=rng.random() < 0.2,
        script=(),
        interference=(),
        faults=rng.choice([0, 1, 1, 2, 3, 5]),
        faulty_watches=rng.random() < 0.5,
        interfered=interfered,
        agent_limit=rng.choice([None, None, 1, 2]),
    )
    scenario.script = _script(rng, scenario)
    if interfered:
        scenario.interference = [_interference(rng, scenario) for _ in range(rng.randint(1, 4))]
    return scenario


def _steps(rng: random.Random) -> list[StepPlan]:
    steps: list[StepPlan] = []
    for number in range(rng.choice([1, 1, 2, 3, 3, 4, 5])):
        earlier = [step.name for step in steps]
        takes = tuple(rng.sample(earlier, rng.randint(0, min(2, len(earlier)))))
        after = tuple(rng.sample(earlier, rng.randint(0, min(2, len(earlier)))))
        steps.append(
            StepPlan(
                name=f"s{number}",
                after=after,
                takes=takes,
                threshold=rng.choice([3, 6]) if takes and rng.random() < 0.4 else None,
                value=rng.randint(0, 9),
                agent=rng.choice(WORKERS)[0],
                retries=rng.choice([0, 1, 1, 2]),
                runs=tuple(
                    rng.choice(["fail", "lost", "timeout", "refused"]) for _ in range(rng.choice([0, 0, 0, 1, 2, 3]))
                ),
                reviews=tuple(
                    rng.choice(["reject", "lost", "fail", "void"]) for _ in range(rng.choice([0, 0, 0, 1, 2]))
                ),
            )
        )
    return steps


def node_spec(scenario: Scenario, order: Sequence[StepPlan]) -> dict[str, Any]:
    return {
        "graphRef": {"name": GRAPH},
        "failureMode": "FailFast" if scenario.fail_fast else "Isolate",
        "steps": [_step(step) for step in order],
    }


def _step(step: StepPlan) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": step.name,
        "objective": f"Make {step.name}",
        "agentRef": {"name": step.agent},
        "outputs": [{"name": "out", "path": "out.json", "mediaType": "application/json"}],
        "maxRetries": step.retries,
        "retry": {"backoffSeconds": BACKOFF_SECONDS, "maxBackoffSeconds": 6},
    }
    if step.reviewers > 1:
        spec["review"] = {"reviewers": step.reviewers}
    if step.after:
        spec["dependsOn"] = list(step.after)
    if step.takes:
        sources = [{"step": name, "output": "out", "path": "/value"} for name in step.takes]
        spec["inputs"] = [{"name": "given", "merge": "Array", "sources": sources}]
    if step.threshold is not None:
        first = step.takes[0]
        spec["when"] = (
            f'steps["{first}"].state == "completed" && steps["{first}"].outputs["out"].json.value > {step.threshold}'
        )
    return spec


def _script(rng: random.Random, scenario: Scenario) -> list[Script]:
    order = list(scenario.steps)
    rng.shuffle(order)
    limit = {} if scenario.agent_limit is None else {"maxConcurrentSessions": scenario.agent_limit}
    script: list[Script] = [
        _apply("Graph", GRAPH, {"title": "t", "authority": WIDE}, "alice"),
        _apply("Node", NODE, node_spec(scenario, order), "alice"),
        _apply("Capability", "review", {"instructions": "Look closely."}, "bob"),
        _apply("Harness", "judging", {"exec": {"program": "judge.py"}}, "bob"),
        _apply(
            "Agent", "judge", {"harnessRef": {"name": "judging"}, "capabilities": ["review"], "authority": WIDE}, "bob"
        ),
    ]
    for name, user in WORKERS:
        script.append(_apply("Harness", f"{name}-way", {"exec": {"program": f"{name}.py"}}, user))
        script.append(_apply("Agent", name, {"harnessRef": {"name": f"{name}-way"}, "authority": WIDE, **limit}, user))
        # Whoever produces also offers a reviewer of his own: it must never judge his work.
        script.append(
            _apply(
                "Agent", f"crony-of-{name}", {"harnessRef": {"name": f"{name}-way"}, "capabilities": ["review"]}, user
            )
        )
    rng.shuffle(script)
    return script


def _apply(kind: str, name: str, spec: Mapping[str, Any], user: str) -> Script:
    return lambda server: server.apply(kind, name, dict(spec), user) and None


def _interference(rng: random.Random, scenario: Scenario) -> Script:
    task = f"{NODE}-{rng.choice(scenario.steps).name}"
    worker = rng.choice(WORKERS)[0]
    choices: list[Script] = [
        lambda server: server.edit("Agent", worker, model="another"),
        lambda server: server.edit("Harness", f"{worker}-way", exec={"program": "other.py"}),
        lambda server: _edit_unseen(server, "Agent", worker, model="yet another"),
        lambda server: _edit_unseen(server, "Harness", f"{worker}-way", exec={"program": "third.py"}),
        lambda server: server.edit("Agent", "judge", model="another"),
        lambda server: server.edit("Graph", GRAPH, authority=NARROW),
        lambda server: _edit_unseen(server, "Graph", GRAPH, authority=NARROW),
        lambda server: server.edit("Task", task, maxRetries=3),
        lambda server: server.edit("Task", task, cancel=True),
        lambda server: server.edit("Node", NODE, cancel=True),
        lambda server: server.edit("Node", NODE, suspend=True),
        lambda server: server.edit("Node", NODE, suspend=False),
        lambda server: server.edit("Task", task, suspend=True),
        lambda server: server.edit("Task", task, suspend=False),
        lambda server: server.remove("Task", task),
        lambda server: server.remove("Node", NODE),
        lambda server: server.remove("Agent", worker),
        _remove_a_child,
    ]
    return rng.choice(choices)


def _edit_unseen(server: ApiServer, kind: str, name: str, **fields: Any) -> None:
    """The watch of that kind goes silent just then."""
    server.silenced[kind] = UNSEEN_SECONDS
    server.edit(kind, name, **fields)


def _remove_a_child(server: ApiServer) -> None:
    """Somebody deletes a session, an artifact or a review."""
    children = sorted((kind, name) for kind, name in server.objects if kind in ("AgentSession", "Artifact", "Review"))
    if children:
        kind, name = children[len(children) // 2]
        server.remove(kind, name)
