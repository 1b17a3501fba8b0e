"""Row 9 of docs/reference/bad-input.md: a Policy, or an object made for one, that eats the time of everybody else."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from triplane.adapters.cel import compiling
from triplane.adapters.cel.limits import ANSWER_SECONDS, POLICY_SECONDS
from triplane.adapters.cel.policies import CelPolicies
from triplane.adapters.cel.policycode import compile_policy, plain_environment
from triplane.adapters.cel.policyworker import ask
from triplane.api.policy import PolicySpec, Stage
from triplane.domain.policy import PolicyRequest

pytestmark = pytest.mark.attacks

LIST = {"metadata": {"name": "t"}, "spec": {"list": list(range(1500)), "retries": 1}}
PAIRS = "object.spec.list.map(a, object.spec.list.map(b, [a, b])).size() > 0"
CUBES = "object.spec.list.all(a, object.spec.list.all(b, object.spec.list.all(c, a + b + c >= 0)))"


@pytest.fixture
async def engine() -> AsyncIterator[CelPolicies]:
    made = CelPolicies()
    yield made
    await made.close()


def spec(rule: str) -> dict[str, Any]:
    return {"match": {"kinds": ["Task"]}, "stages": ["Admission"], "validations": [{"expression": rule}]}


def policy(rule: str, name: str) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": f"u-{name}", "generation": 1}
    return {"kind": "Policy", "metadata": metadata, "spec": spec(rule)}


def asked(namespace: str = "team") -> PolicyRequest:
    return PolicyRequest(
        stage=Stage.ADMISSION, operation="CREATE", kind="Task", namespace=namespace, name="t", object=LIST
    )


async def test_loops_within_loops(engine: CelPolicies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "MAX_NESTING", 9)
    assert compile_policy(spec(CUBES)).problems == [], "without the limit it would be let in"
    monkeypatch.undo()
    (problem,) = await engine.problems(PolicySpec.model_validate(spec(CUBES)))
    assert "3 comprehensions" in problem.message


async def test_time_on_a_large_object(engine: CelPolicies) -> None:
    variables = {"object": LIST, "params": {}}
    began = time.process_time()
    ask(compile_policy(spec(PAIRS)), variables, plain_environment().Activation(variables))
    assert time.process_time() - began > POLICY_SECONDS, "without a limit it takes the time it likes"

    others = [policy("object.spec.retries == 1", f"p{n}") for n in range(5)]
    began = time.monotonic()
    decision = await engine.decide([policy(PAIRS, "slow"), *others], asked())
    assert [each.policy for each in decision.violations] == ["slow"], "it fails closed, and blames nobody else"
    assert time.monotonic() - began < ANSWER_SECONDS


async def test_again_and_again_it_costs_its_namespace_alone(engine: CelPolicies) -> None:
    slow, quick = policy(PAIRS, "slow"), policy("object.spec.retries == 1", "quick")
    await engine.decide([slow, quick], asked())
    started = engine._worker.starts
    told = await asyncio.gather(*(engine.decide([slow, quick], asked()) for _ in range(20)))
    assert all([each.policy for each in decision.violations] == ["slow"] for decision in told)
    assert engine._worker.starts == started, "it is not asked again for a while: no process is lost to it"
    neighbours = {**quick, "metadata": {**quick["metadata"], "namespace": "neighbours"}}
    assert (await engine.decide([neighbours], asked("neighbours"))).violations == ()


async def test_memory(engine: CelPolicies) -> None:
    """Text that doubles with each variable: cheap in time, endless in space."""
    doubling = [{"name": "v0", "expression": "'0123456789abcdef'"}] + [
        {"name": f"v{n}", "expression": f"variables.v{n - 1} + variables.v{n - 1}"} for n in range(1, 32)
    ]
    hungry = policy("size(variables.v31) > 0", "hungry")
    hungry["spec"]["variables"] = doubling
    decision = await engine.decide([hungry, policy("object.spec.retries == 1", "other")], asked())
    assert [each.policy for each in decision.violations] == ["hungry"]
