"""How fast Policies are asked, on the real worker: twenty Policies on a Task of ordinary size, one round a request."""

import asyncio
import statistics
import time
from typing import Any, Final

from tests.bench.figures import Figure, figure
from triplane.adapters.cel.policies import CelPolicies
from triplane.api.policy import Stage
from triplane.domain.policy import PolicyRequest

POLICIES: Final = 20
REQUESTS: Final = 200
REPEAT: Final = 5
_RULES: Final = (
    "object.spec.?maxRetries.orValue(1) <= 3",
    "object.spec.outputs.all(o, o.mediaType.startsWith('text/'))",
    "object.metadata.?labels[?'team'].orValue('') in ['red', 'blue']",
    "request.userInfo.username != 'nobody' && size(object.spec.objective) < 4096",
)
_TASK: Final[dict[str, Any]] = {
    "apiVersion": "triplane.dev/v1alpha1",
    "kind": "Task",
    "metadata": {"name": "t", "namespace": "team", "uid": "u-t", "labels": {"team": "red"}},
    "spec": {
        "graphRef": {"name": "g"},
        "objective": "Read the report and say what is missing in it. " * 10,
        "agentRef": {"name": "a"},
        "maxRetries": 2,
        "inputs": [{"name": f"in-{n}", "digest": "sha256:" + "0" * 64} for n in range(5)],
        "outputs": [{"name": f"out-{n}", "path": f"{n}.txt", "mediaType": "text/plain"} for n in range(3)],
    },
}


def figures() -> list[Figure]:
    """Expressions evaluated a second, everything counted: binding, the round to the worker, decision and digest."""
    rates = asyncio.run(_rates())
    asked = POLICIES * len(_RULES)
    return [
        figure("policy.evaluations_per_second", statistics.median(rates) * asked, "expressions/s", repeat=len(rates)),
        figure(
            "policy.decide_p50_ms", 1000 / statistics.median(rates), f"ms for {POLICIES} Policies", repeat=len(rates)
        ),
    ]


async def _rates() -> list[float]:
    engine = CelPolicies()
    policies = [_policy(number) for number in range(POLICIES)]
    request = PolicyRequest(
        stage=Stage.ADMISSION, operation="CREATE", kind="Task", namespace="team", name="t", object=_TASK,
        user={"username": "alice", "groups": ["dev"]},
    )  # fmt: skip
    try:
        assert (await engine.decide(policies, request)).violations == ()
        rates = []
        for _ in range(REPEAT):
            began = time.perf_counter()
            for _ in range(REQUESTS):
                await engine.decide(policies, request)
            rates.append(REQUESTS / (time.perf_counter() - began))
        return rates
    finally:
        await engine.close()


def _policy(number: int) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": f"p-{number}", "uid": f"u-{number}", "generation": 1}
    spec = {
        "match": {"kinds": ["Task"]},
        "stages": ["Admission"],
        # Its own text, as Policies have: no two are compiled to one.
        "validations": [{"expression": f"{rule} || {number} < 0"} for rule in _RULES],
    }
    return {"kind": "Policy", "metadata": metadata, "spec": spec}
