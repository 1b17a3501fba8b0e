"""The policy engine on the real worker: what Policies may say, what they cost, and who is to blame."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from triplane.adapters.cel import policies as module
from triplane.adapters.cel.limits import BARRED_SECONDS, POLICY_SECONDS
from triplane.adapters.cel.policies import CelPolicies
from triplane.api.authority import Axis
from triplane.api.policy import PolicySpec, Stage
from triplane.domain.policy import PolicyDecision, PolicyRequest
from triplane.errors import Unavailable

OBJECT: dict[str, Any] = {
    "kind": "Task",
    "metadata": {"name": "t", "namespace": "team", "labels": {"a.b/c": "d"}},
    "spec": {"objective": "x", "maxRetries": 3, "tools": ["git/*", "fetch/*"], "share": 0.5},
}
HEAVY = {"spec": {"list": list(range(3000)), "maxRetries": 1}, "metadata": {"name": "t"}}
SLOW = "object.spec.list.map(a, object.spec.list.map(b, [a, b])).size() > 0"


@pytest.fixture
async def engine() -> AsyncIterator[CelPolicies]:
    made = CelPolicies()
    yield made
    await made.close()


def policy(*rules: str, name: str = "p", namespace: str = "team", generation: int = 1, **spec: Any) -> dict[str, Any]:
    whole = {
        "match": {"kinds": ["Task"]},
        "stages": ["Admission", "Launch"],
        "validations": [{"expression": rule} for rule in rules],
    }
    metadata = {"namespace": namespace, "name": name, "uid": f"u-{name}", "generation": generation}
    return {"kind": "Policy", "metadata": metadata, "spec": {**whole, **spec}}


def asked(**more: Any) -> PolicyRequest:
    plain: dict[str, Any] = {
        "stage": Stage.ADMISSION, "operation": "CREATE", "kind": "Task", "namespace": "team", "name": "t",
        "object": OBJECT, "user": {"username": "alice", "groups": ["dev"]},
    }  # fmt: skip
    return PolicyRequest(**{**plain, **more})


def said(decision: PolicyDecision) -> list[tuple[str, str, str]]:
    return [(each.policy, each.rule, each.message) for each in decision.violations]


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("object.spec.maxRetries == 3 && object.kind == 'Task'", id="the object"),
        pytest.param("object.metadata.?labels[?'a.b/c'].orValue('') == 'd'", id="optional fields"),
        pytest.param("object.spec.?missing.orValue('none') == 'none'", id="an optional field that is not there"),
        pytest.param("oldObject == null && graph == null && authority == null", id="what is not there is null"),
        pytest.param("request.operation == 'CREATE' && request.kind.kind == 'Task'", id="the request"),
        pytest.param("request.userInfo.username == 'alice' && 'dev' in request.userInfo.groups", id="who asks"),
        pytest.param("!request.dryRun && request.namespace == 'team'", id="no dry run"),
        pytest.param("object.spec.tools.all(t, t.matches('^[a-z]+/'))", id="a regular expression"),
        pytest.param("'%s has %d'.format([object.spec.objective, 2]) == 'x has 2'", id="strings"),
        pytest.param("sets.contains(object.spec.tools, ['git/*'])", id="sets"),
        pytest.param("object.spec.tools.exists(i, t, i == 0 && t == 'git/*')", id="comprehensions of two variables"),
        pytest.param("math.greatest(object.spec.maxRetries, 2) == 3 && object.spec.share < 1.0", id="numbers"),
        pytest.param("cel.bind(n, size(object.spec.tools), n > 1 && n < 3)", id="a bound value"),
        pytest.param(
            "cel.bind(a, 1, cel.bind(b, 2, cel.bind(c, 3, a + b + c == 6)))", id="bindings are no loops, however deep"
        ),
    ],
)
async def test_what_policies_may_say(engine: CelPolicies, rule: str) -> None:
    assert await engine.problems(PolicySpec.model_validate(policy(rule)["spec"])) == []
    assert said(await engine.decide([policy(rule)], asked())) == []


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        pytest.param(
            {"validations": [{"expression": "object.foo("}]}, "spec.validations[0].expression", "1:12: Syntax error",
            id="a syntax error, with its position",
        ),
        pytest.param(
            {"validations": [{"expression": "true &&\n  nothing == 1"}]}, "spec.validations[0].expression",
            "2:3: undeclared reference to 'nothing'", id="an unknown name on the second line",
        ),
        pytest.param(
            {"validations": [{"expression": "1 + 1"}]}, "spec.validations[0].expression", "type INT, not bool",
            id="a rule that is no boolean",
        ),
        pytest.param(
            {"matchConditions": [{"name": "c", "expression": "'a'"}]}, "spec.matchConditions[0].expression",
            "type STRING, not bool", id="a condition that is no boolean",
        ),
        pytest.param(
            {"validations": [{"expression": "true", "messageExpression": "1"}]},
            "spec.validations[0].messageExpression", "type INT, not string", id="a message that is no text",
        ),
        pytest.param(
            {"variables": [{"name": "n", "expression": "1"}], "validations": [{"expression": "variables.n == 'a'"}]},
            "spec.validations[0].expression", "no matching overload for '_==_' applied to '(int, string)'",
            id="a variable used as another type",
        ),
        pytest.param(
            {"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]},
            "spec.variables[0].expression", "undeclared reference", id="a variable before it is declared",
        ),
        pytest.param(
            {"variables": [{"name": "o", "expression": "object.?spec"}]}, "spec.variables[0].expression", "orValue",
            id="a variable that may be nothing",
        ),
        pytest.param(
            {"validations": [{"expression": "object.spec.objective.matches('(')"}]}, "spec.validations[0].expression",
            "invalid regular expression", id="a regular expression that is none",
        ),
        pytest.param(
            {"validations": [{"expression": "[1].all(a, [1].all(b, [1].all(c, a == b)))"}]},
            "spec.validations[0].expression", "3 comprehensions", id="loops too deep",
        ),
        pytest.param(
            {"match": {"kinds": ["Task"], "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}},
            "spec.match.selector.matchExpressions[0].values", "needs values", id="a selector that means nothing",
        ),
    ],
)  # fmt: skip
async def test_a_broken_policy_is_told_with_its_place(
    engine: CelPolicies, spec: dict[str, Any], field: str, why: str
) -> None:
    (problem,) = await engine.problems(PolicySpec.model_validate(policy("true", **spec)["spec"]))
    assert problem.field == field
    assert why in problem.message


async def test_a_broken_policy_that_is_there_all_the_same_denies(engine: CelPolicies) -> None:
    ((_, rule, message),) = said(await engine.decide([policy("object.foo(")], asked()))
    assert rule == "validations[0].expression"
    assert "Syntax error" in message


async def test_messages(engine: CelPolicies) -> None:
    rules = [
        {"expression": "false", "message": "plain"},
        {"expression": "false", "messageExpression": "'for ' + object.metadata.name", "message": "fallback"},
        {"expression": "false", "messageExpression": "object.missing", "message": "fallback"},
        {"expression": "false", "messageExpression": "'two\\nlines'", "message": "fallback"},
        {"expression": "false &&\n  true", "reason": "Why"},
    ]
    decision = await engine.decide([policy(validations=rules)], asked())
    assert [each.message for each in decision.violations] == [
        "plain",
        "for t",
        "fallback",
        "fallback",
        "failed expression: false && true",
    ]
    assert [each.reason for each in decision.violations] == [*["PolicyDenied"] * 4, "Why"]


async def test_variables_are_lazy_and_see_each_other(engine: CelPolicies) -> None:
    variables = [
        {"name": "limit", "expression": "int(params.most)"},
        {"name": "broken", "expression": "object.spec.nowhere.atAll"},
        {"name": "over", "expression": "object.spec.maxRetries > variables.limit"},
    ]
    fine = policy("!variables.over", "true || variables.broken", variables=variables, params={"most": 3})
    assert said(await engine.decide([fine], asked())) == []
    bad = policy("!variables.over", "variables.broken == 1", variables=variables, params={"most": 2})
    found = said(await engine.decide([bad], asked()))
    assert [(rule, message) for _, rule, message in found] == [
        ("validations[0]", "failed expression: !variables.over"),
        ("variables.broken", 'Key not found in map : "nowhere"'),
    ]


async def test_conditions_decide_whether_it_is_asked(engine: CelPolicies) -> None:
    no, fails = {"name": "no", "expression": "false"}, {"name": "fails", "expression": "object.missing == 1"}
    assert said(await engine.decide([policy("false", matchConditions=[fails, no])], asked())) == []
    ((_, rule, _),) = said(await engine.decide([policy("true", matchConditions=[fails])], asked()))
    assert rule == "matchConditions[fails]"


async def test_what_is_asked_does_not_hang_on_conditions(engine: CelPolicies) -> None:
    no = policy("false", matchConditions=[{"name": "no", "expression": "false"}])
    decision = await engine.decide([no, policy("true", name="q", namespace="other")], asked())
    assert [(each[0], each[1]) for each in decision.asked] == [("team", "p")]


async def test_an_axis_is_let_go_only_by_a_policy_that_matches_and_holds(engine: CelPolicies) -> None:
    launch = asked(stage=Stage.LAUNCH, operation="LAUNCH")
    free = {"allowUnenforced": ["egress"]}
    assert (await engine.decide([policy("true", **free)], launch)).allow_unenforced == {Axis.EGRESS}
    for other in (
        policy("false", enforcement="Warn", **free),
        policy("true", matchConditions=[{"name": "no", "expression": "false"}], **free),
    ):
        assert (await engine.decide([other], launch)).allow_unenforced == frozenset()
    assert (await engine.decide([policy("true", **free)], asked())).allow_unenforced == frozenset()


async def test_an_edited_policy_is_compiled_anew(engine: CelPolicies) -> None:
    assert said(await engine.decide([policy("true")], asked())) == []
    assert len((await engine.decide([policy("false", generation=2)], asked())).violations) == 1


async def test_more_policies_than_are_kept(engine: CelPolicies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 2)
    five = [policy(f"object.spec.maxRetries > {n}", name=f"p{n}") for n in range(5)]
    for _ in range(2):
        assert [each for each, _, _ in said(await engine.decide(five, asked()))] == ["p3", "p4"]
        assert said(await engine.decide(five[:1], asked())) == []


async def test_one_that_takes_too_long_blames_nobody_else(engine: CelPolicies) -> None:
    others = [policy("object.spec.maxRetries == 1", name=f"p{n}") for n in range(3)]
    decision = await engine.decide(
        [others[0], policy(SLOW, name="slow"), *others[1:], policy("false", name="z")], asked(object=HEAVY)
    )
    found = {each: (rule, message) for each, rule, message in said(decision)}
    assert set(found) == {"slow", "z"}
    assert found["slow"][0] == "policy"
    assert f"more than {POLICY_SECONDS} s of CPU time" in found["slow"][1]
    assert decision.violations[0].reason == "EvaluationFailed"


async def test_the_same_is_not_paid_for_twice(engine: CelPolicies) -> None:
    await engine.decide([policy(SLOW, name="slow")], asked(object=HEAVY))
    process = engine._worker.starts
    before = time.monotonic()
    ((_, _, message),) = said(await engine.decide([policy(SLOW, name="slow")], asked(object=HEAVY)))
    assert "asked again within" in message
    assert time.monotonic() - before < POLICY_SECONDS
    assert engine._worker.starts == process
    assert BARRED_SECONDS <= 30, "a Policy must not stay barred for long: it denies what it is about meanwhile"


async def test_in_another_namespace_it_is_asked_all_the_same(engine: CelPolicies) -> None:
    everywhere = policy(SLOW, name="slow", namespace="triplane-system")
    await engine.decide([everywhere], asked(object=HEAVY))
    small = {"metadata": {"name": "t"}, "spec": {"list": [1]}}
    assert said(await engine.decide([everywhere], asked(object=small, namespace="neighbours"))) == []


async def test_many_slow_ones_end_with_the_time_of_the_request(
    engine: CelPolicies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 2 * POLICY_SECONDS)
    slow = [policy(SLOW, name=f"p{n}") for n in range(5)]
    found = said(await engine.decide(slow, asked(object=HEAVY)))
    assert len(found) == 5, "each of them denies"
    assert sum("CPU time on Task t" in message for _, _, message in found) == 2
    assert sum("it was not asked" in message for _, _, message in found) == 3


async def test_a_killed_worker_is_replaced_unseen(engine: CelPolicies) -> None:
    await engine.decide([policy("true")], asked())
    assert engine._worker._process is not None
    os.kill(engine._worker._process.pid, signal.SIGKILL)
    assert said(await engine.decide([policy("true")], asked())) == []


async def test_a_caller_that_gives_up_leaves_no_answer_for_the_next(engine: CelPolicies) -> None:
    await engine.decide([policy("true")], asked())
    given_up = asyncio.create_task(engine.decide([policy(SLOW, name="slow")], asked(object=HEAVY)))
    await asyncio.sleep(0.05)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    ((_, _, message),) = said(await engine.decide([policy("object.spec.maxRetries == 4")], asked()))
    assert message == "failed expression: object.spec.maxRetries == 4"


async def test_no_worker_is_nobodys_violation(engine: CelPolicies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine._worker, "_module", "triplane.adapters.cel.nowhere")
    with pytest.raises(Unavailable, match="keeps ending"):
        await engine.decide([policy("true")], asked())


async def test_a_thousand_evaluations_take_little_cpu(engine: CelPolicies) -> None:
    twenty = [policy("object.spec.maxRetries == 3 && object.metadata.name == 't'", name=f"p{n}") for n in range(20)]
    await engine.decide(twenty, asked())
    before = time.process_time() + _of_worker(engine)
    for _ in range(50):
        assert said(await engine.decide(twenty, asked())) == []
    assert time.process_time() + _of_worker(engine) - before < 1.0


def _of_worker(engine: CelPolicies) -> float:
    assert engine._worker._process is not None
    with open(f"/proc/{engine._worker._process.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
