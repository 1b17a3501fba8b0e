"""The process that compiles and asks Policies: all that concern a request in one round.

One JSON document a line on standard input, one answer a line on standard output, until the input ends:

* ``{"check": spec, "patterns": [[field, expression]…]}`` → ``{"problems": [[field, message]…]}``
* ``{"drop": [digest…], "load": {digest: spec}, "ask": [digest…], "variables": {…}}`` →
  ``{"answers": [[matched, [[rule, reason, message]…]]…], "costliest": ordinal}``: an answer for each that was asked;
  fewer when the time of the request was used up.

The ordinal of the Policy at work stands in shared memory, so that whoever asks knows which one ended the process.
"""

import mmap
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from cel_expr_python import cel

from triplane.adapters.cel.compiling import Refused, confine, limited, plain, value_of
from triplane.adapters.cel.limits import CPU_SECONDS, MAX_MESSAGE, POLICY_SECONDS, REQUEST_SECONDS
from triplane.adapters.cel.policycode import (
    PREFIX,
    Compiled,
    Expression,
    Rule,
    bad_patterns,
    compile_policy,
    plain_environment,
)

_FAILED: Final = "EvaluationFailed"
Complaint = tuple[str, str, str]
"""(rule, reason, message)"""


def main() -> int:
    """Answer until standard input ends."""
    worker = Worker(confine())
    plain_environment()  # before the first request waits for it
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(worker.answer(orjson.loads(line)) + b"\n")
        sys.stdout.buffer.flush()
    return 0


class Worker:
    """What one process knows: Policies by the digest of their spec."""

    def __init__(self, shared: mmap.mmap | bytearray) -> None:
        self._shared = shared
        self._specs: dict[str, Mapping[str, Any]] = {}
        self._compiled: dict[str, Compiled] = {}

    def answer(self, request: Mapping[str, Any]) -> bytes:
        """One answer to one request."""
        if "check" in request:
            self._at(0)
            with limited(CPU_SECONDS):
                problems = [*compile_policy(request["check"]).problems, *bad_patterns(request["patterns"])]
            return orjson.dumps({"problems": problems})
        for digest in request["drop"]:
            self._specs.pop(digest, None)
            self._compiled.pop(digest, None)
        self._specs |= request["load"]
        return orjson.dumps(self._ask_all(request["ask"], request["variables"]))

    def _ask_all(self, digests: Sequence[str], variables: Mapping[str, Any]) -> dict[str, Any]:
        base = plain_environment().Activation({**variables, "params": {}})
        answers: list[tuple[bool, list[Complaint]]] = []
        began = before = time.process_time()
        costliest, cost = 0, 0.0
        for place, digest in enumerate(digests):
            if before - began > REQUEST_SECONDS:
                break
            self._at(place)
            policy = self._known(digest)
            with limited(POLICY_SECONDS):
                answers.append(_answered(policy, variables, base))
            now = time.process_time()
            if now - before > cost:
                costliest, cost = place, now - before
            before = now
        return {"answers": answers, "costliest": costliest}

    def _known(self, digest: str) -> Compiled:
        if (found := self._compiled.get(digest)) is None:
            with limited(CPU_SECONDS):
                found = self._compiled[digest] = compile_policy(self._specs[digest])
        return found

    def _at(self, place: int) -> None:
        self._shared[:4] = place.to_bytes(4, "little")


def _answered(policy: Compiled, variables: Mapping[str, Any], base: cel.Activation) -> tuple[bool, list[Complaint]]:
    """As ``ask``; whatever goes wrong with one Policy is a violation of it, and of no other."""
    try:
        return ask(policy, variables, base)
    except Exception as error:  # the binding raises what it likes: it must end nobody else's answer
        return True, [("policy", _FAILED, f"{type(error).__name__}: {plain(str(error))}")]


def ask(policy: Compiled, variables: Mapping[str, Any], base: cel.Activation) -> tuple[bool, list[Complaint]]:
    """Whether the Policy matches, and what of it does not hold.

    As in Kubernetes, a condition that is false settles that it does not match, whatever another one fails with.
    """
    if policy.problems:
        return True, [(field.removeprefix("spec."), _FAILED, said) for field, said in policy.problems]
    frame = Frame(policy, variables, base)
    failed: list[Complaint] = []
    for name, condition in policy.conditions:
        try:
            if not frame.truth(condition):
                return False, []
        except Refused as refusal:
            failed.append((f"matchConditions[{name}]", _FAILED, frame.blame(refusal)))
    if failed:
        return True, failed
    return True, list(dict.fromkeys(said for rule in policy.rules if (said := _complaint(frame, rule)) is not None))


def _complaint(frame: "Frame", rule: Rule) -> Complaint | None:
    try:
        if frame.truth(rule.expression):
            return None
    except Refused as refusal:
        said = frame.blame(refusal)
        return (frame.culprit(refusal) or rule.place, _FAILED, said)
    return rule.place, rule.reason, _words(frame, rule)


def _words(frame: "Frame", rule: Rule) -> str:
    """What the violation says: as with ValidatingAdmissionPolicy, ``messageExpression`` if it gives one line."""
    if rule.words is not None:
        try:
            said = frame.value(rule.words)
        except Refused:
            said = None
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said.strip()[:MAX_MESSAGE]
    return rule.message or f"failed expression: {' '.join(rule.source.split())}"[:MAX_MESSAGE]


class Frame:
    """One Policy on one request: its variables are evaluated when an expression that uses them is, and once."""

    def __init__(self, policy: Compiled, variables: Mapping[str, Any], base: cel.Activation) -> None:
        self._policy = policy
        self._data = variables if not policy.params else {**variables, "params": policy.params}
        self._values: dict[str, object] = {}
        self._failed: dict[str, str] = {}
        self._shown: frozenset[str] = frozenset()
        self._activation = base if not policy.params else plain_environment().Activation(self._data)

    def truth(self, expression: Expression) -> bool:
        """Raises ``Refused`` when there is no boolean value."""
        value = self.value(expression)
        if not isinstance(value, bool):
            raise Refused("its value is not bool; compare it with something")
        return value

    def value(self, expression: Expression) -> object:
        """Raises ``Refused``. A variable that failed is missing, and that is an error only where it is used."""
        if not expression.needs <= self._values.keys() | self._failed.keys():
            for name, variable in self._policy.variables.items():
                if name in expression.needs and name not in self._values and name not in self._failed:
                    self._evaluate(name, variable)
        try:
            return value_of(expression.code.eval(self._showing(expression.needs)))
        except RuntimeError as error:
            raise Refused(plain(str(error))) from error
        except MemoryError as error:
            raise Refused("it needs too much memory") from error

    def _evaluate(self, name: str, variable: Expression) -> None:
        try:
            self._values[name] = self.value(variable)
        except Refused as refusal:
            self._failed[name] = self.blame(refusal)

    def _showing(self, needs: frozenset[str]) -> cel.Activation:
        """Turning objects into CEL's is what costs: an activation is kept until an expression needs a further value."""
        if not (needs & self._values.keys()) <= self._shown:
            self._shown = frozenset(self._values)
            named = {PREFIX + name: value for name, value in self._values.items()}
            self._activation = plain_environment().Activation({**self._data, **named})
        return self._activation

    def culprit(self, refusal: Refused) -> str | None:
        """The rule that is to blame, when that is a variable."""
        return next((PREFIX + name for name in self._failed if f'"{PREFIX}{name}"' in str(refusal)), None)

    def blame(self, refusal: Refused) -> str:
        """Why; of a variable that has no value, why it has none."""
        named = self.culprit(refusal)
        return self._failed[named.removeprefix(PREFIX)] if named is not None else str(refusal)


if __name__ == "__main__":
    sys.exit(main())
