"""``triplane.ports.PolicyEngine``: Policies in a worker process, all that concern a request in one round.

A Policy that uses up its time, or ends the process, is a violation of itself alone: the others are asked again without
it. It is then left unasked for a while about objects of the same namespace, for each such death costs a new process:
who submits objects that a Policy chokes on delays nobody else for long.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from triplane.adapters.cel.limits import (
    BARRED_SECONDS,
    CPU_SECONDS,
    MAX_MESSAGE,
    MAX_OBJECTS,
    POLICY_SECONDS,
    REQUEST_SECONDS,
)
from triplane.adapters.cel.process import TIMED_OUT, WorkerProcess
from triplane.api.authority import Axis
from triplane.api.policy import PolicySpec, Stage
from triplane.api.text import GROUP, VERSION, plain_line
from triplane.domain.admission import patterns
from triplane.domain.policy import (
    FAILED,
    NOT_ASKED,
    WHOLE,
    KnownPolicy,
    PolicyDecision,
    PolicyProblem,
    PolicyRequest,
    PolicyViolation,
    binds,
    decision,
    spec_problems,
)
from triplane.errors import InvalidInput, TooLarge, Unavailable

KNOWN: Final = 2048
"""Policies read and compiled that are kept, here and in the worker."""
_DEATHS: Final = 3
"""Deaths of the worker that nobody is to blame for, before it is said that none can be asked."""

Answer = tuple[bool, Sequence[tuple[str, str, str]]]
"""Whether the Policy matches, and (rule, reason, message) of what does not hold."""


class CelPolicies:
    """One worker process. Requests queue; use it in one event loop, which it never blocks for long."""

    def __init__(self, worker: WorkerProcess | None = None) -> None:
        """``worker``: a stand-in for tests."""
        self._worker = worker or WorkerProcess("triplane.adapters.cel.policyworker", "Policies")
        self._read: OrderedDict[tuple[Any, ...], tuple[Any, KnownPolicy]] = OrderedDict()
        self._loaded: OrderedDict[str, None] = OrderedDict()
        """Digests of the specs that the worker has, the longest unused first."""
        self._of_start = 0
        self._barred: dict[tuple[str, str], float] = {}

    async def problems(self, spec: PolicySpec) -> Sequence[PolicyProblem]:
        """See ``PolicyEngine.problems``."""
        found = list(spec_problems(spec))
        request = {"check": _wire(spec), "patterns": _patterns(spec)}
        async with self._worker.turn:
            for _ in range(_DEATHS):
                line, code = await self._worker.exchange(orjson.dumps(request))
                if line:
                    said = orjson.loads(line)["problems"]
                    return [*found, *(PolicyProblem(field, plain_line(message)) for field, message in said)]
                if code == TIMED_OUT:
                    break
        why = f"its expressions take more than {CPU_SECONDS} s of CPU time, or too much memory, to compile"
        return [*found, PolicyProblem("spec", f"{why}; write them more simply")]

    async def decide(self, policies: Sequence[Mapping[str, Any]], request: PolicyRequest) -> PolicyDecision:
        """See ``PolicyEngine.decide``."""
        asked = [known for policy in policies if binds(known := self._known(policy), request)]
        answers: dict[int, Answer] = {}
        for place, policy in enumerate(asked):
            if policy.spec is None:
                said = "it cannot be read: a release with other rules stored it; correct it, or make it anew"
                answers[place] = _failed(said)
            elif self._barred_until(policy, request) > asyncio.get_running_loop().time():
                said = "it took too much on an object of this namespace a moment ago"
                answers[place] = _failed(f"{said}; it is asked again within {BARRED_SECONDS:.0f} s", NOT_ASKED)
        if len(answers) < len(asked):
            # One Policy at work must not keep the turn of another request longer than its own time.
            async with self._worker.turn:
                await self._ask(asked, answers, request)
        violations: list[PolicyViolation] = []
        allowed: set[Axis] = set()
        for place, policy in enumerate(asked):
            matched, complaints = answers[place]
            violations += [
                policy.violated(rule, plain_line(message)[:MAX_MESSAGE], reason) for rule, reason, message in complaints
            ]
            if matched and not complaints and policy.spec is not None and request.stage is Stage.LAUNCH:
                allowed.update(policy.spec.allow_unenforced or ())
        return decision(asked, violations, allowed)

    async def close(self) -> None:
        """End the worker."""
        await self._worker.close()

    def _known(self, policy: Mapping[str, Any]) -> KnownPolicy:
        """Read once for each generation; that it is the same is looked at, not believed."""
        metadata, spec = policy["metadata"], policy.get("spec")
        key = (metadata.get("namespace"), metadata["name"], metadata.get("uid"), metadata.get("generation"))
        kept = self._read.get(key)
        if kept is not None and (kept[0] is spec or kept[0] == spec):
            self._read.move_to_end(key)
            return kept[1]
        found = KnownPolicy.of(policy)
        self._read[key] = (spec, found)
        if len(self._read) > KNOWN:
            self._read.popitem(last=False)
        return found

    async def _ask(self, asked: Sequence[KnownPolicy], answers: dict[int, Answer], request: PolicyRequest) -> None:
        """Fill in the answers that are missing."""
        try:
            variables = orjson.dumps(variables_of(request))
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{request.kind} {request.name} cannot be shown to Policies: {error}") from error
        if len(variables) > MAX_OBJECTS:
            raise TooLarge(f"{request.kind} {request.name} and what it refers to are over {MAX_OBJECTS >> 20} MiB")
        seconds, deaths, suspects = REQUEST_SECONDS, 0, set[int]()
        while missing := [place for place in range(len(asked)) if place not in answers]:
            if seconds <= 0:
                _leave_out(missing, answers, "those before it")
                return
            line, code = await self._exchange([asked[place] for place in missing], variables)
            if line:
                _take(orjson.loads(line), missing, asked, answers)
                return
            at = self._worker.place
            culprit = missing[at] if at < len(missing) else None
            if culprit is None or (code != TIMED_OUT and culprit not in suspects):
                # It may have been the machine: an end by other hands is nobody's fault until it happens twice.
                suspects.update(() if culprit is None else (culprit,))
                deaths += 1
                if deaths >= _DEATHS:
                    raise Unavailable(f"the worker for Policies keeps ending (code {code}); it is tried again")
                continue
            seconds -= POLICY_SECONDS
            said = f"it takes more than {POLICY_SECONDS} s of CPU time" if code == TIMED_OUT else "it ends its process"
            answers[culprit] = _failed(f"{said} on {request.kind} {request.name}; write it more simply")
            self._bar(asked[culprit], request)

    async def _exchange(self, policies: Sequence[KnownPolicy], variables: bytes) -> tuple[bytes, int | None]:
        """One round: what the worker does not have yet is sent along."""
        await self._worker.ready()
        if self._worker.starts != self._of_start:
            self._of_start = self._worker.starts
            self._loaded.clear()
        load = {each.digest: each for each in policies if each.digest not in self._loaded}
        for each in policies:
            self._loaded[each.digest] = None
            self._loaded.move_to_end(each.digest)
        drop = [
            self._loaded.popitem(last=False)[0] for _ in range(max(0, len(self._loaded) - max(KNOWN, len(policies))))
        ]
        head = {
            "load": {digest: _wire(each.spec) for digest, each in load.items() if each.spec is not None},
            "drop": drop,
            "ask": [each.digest for each in policies],
        }
        return await self._worker.exchange(orjson.dumps(head)[:-1] + b',"variables":' + variables + b"}")

    def _bar(self, policy: KnownPolicy, request: PolicyRequest) -> None:
        now = asyncio.get_running_loop().time()
        self._barred = {key: until for key, until in self._barred.items() if until > now}
        self._barred[f"{policy.uid}/{policy.digest}", request.namespace] = now + BARRED_SECONDS

    def _barred_until(self, policy: KnownPolicy, request: PolicyRequest) -> float:
        return self._barred.get((f"{policy.uid}/{policy.digest}", request.namespace), 0.0)


def variables_of(request: PolicyRequest) -> dict[str, Any]:
    """What expressions see, but for ``params`` and ``variables`` (docs/reference/policies.md)."""
    return {
        "object": _slim(request.object),
        "oldObject": _slim(request.old_object),
        "request": {
            "operation": request.operation,
            "kind": {"group": GROUP, "version": VERSION, "kind": request.kind},
            "namespace": request.namespace,
            "name": request.name,
            "userInfo": request.user or {},
            "dryRun": request.dry_run,
        },
        "graph": _slim(request.graph),
        "node": _slim(request.node),
        "parent": _slim(request.parent),
        "agent": _slim(request.agent),
        "producer": _slim(request.producer),
        "authority": request.authority,
        "session": request.session,
    }


def _slim(obj: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Without managedFields, which are larger than most objects and say nothing of what is asked for."""
    if obj is None or "managedFields" not in (metadata := obj.get("metadata") or {}):
        return obj
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _take(
    said: Mapping[str, Any], missing: Sequence[int], asked: Sequence[KnownPolicy], answers: dict[int, Answer]
) -> None:
    for place, answer in zip(missing, said["answers"], strict=False):
        answers[place] = (answer[0], answer[1])
    if late := missing[len(said["answers"]) :]:
        costliest = asked[missing[said["costliest"]]]
        _leave_out(late, answers, f"above all Policy {costliest.namespace}/{costliest.name}")


def _leave_out(places: Sequence[int], answers: dict[int, Answer], by: str) -> None:
    for place in places:
        answers[place] = _failed(
            f"it was not asked: the {REQUEST_SECONDS:g} s of CPU time of one request were used up by {by}"
        )


def _failed(message: str, reason: str = FAILED) -> Answer:
    return True, [(WHOLE, reason, message)]


def _wire(spec: PolicySpec) -> dict[str, Any]:
    return spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        include={"params", "match_conditions", "variables", "validations"},
    )


def _patterns(spec: PolicySpec) -> list[tuple[str, str]]:
    """The regular expressions that stand in it as literals, each as an expression, with its field."""
    placed = [(f"spec.variables[{n}].expression", item.expression) for n, item in enumerate(spec.variables or ())]
    placed += [
        (f"spec.matchConditions[{n}].expression", item.expression) for n, item in enumerate(spec.match_conditions or ())
    ]
    for n, item in enumerate(spec.validations or ()):
        placed.append((f"spec.validations[{n}].expression", item.expression))
        if item.message_expression is not None:
            placed.append((f"spec.validations[{n}].messageExpression", item.message_expression))
    return [(field, pattern) for field, expression in placed for pattern in patterns(expression)]
