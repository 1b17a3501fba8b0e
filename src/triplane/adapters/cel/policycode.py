"""A Policy's expressions, type-checked: in the worker, once for each spec."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

from triplane.adapters.cel.compiling import Refused, compiled, plain, value_of
from triplane.adapters.cel.nesting import names

PREFIX: Final = "variables."
"""Of the declared names of a Policy's own variables."""
_PLAIN: Final = ("object", "oldObject", "graph", "node", "parent", "agent", "producer", "authority", "session")
_TYPES: Final[Mapping[str, cel.Type]] = {
    **dict.fromkeys(_PLAIN, cel.Type.DYN),
    "request": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "params": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}
_LIBRARIES: Final = "extensions:\n- name: sets\n- name: two-var-comprehensions\n"
"""Those without a class of their own in the binding (cel-go, ext/)."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Compiled, with the variables it uses, and those they use."""

    code: cel.Expression
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One validation."""

    place: str
    source: str
    expression: Expression
    reason: str
    message: str | None
    words: Expression | None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A Policy that can be asked; one with problems fails whoever asks it."""

    params: Mapping[str, Any]
    conditions: Sequence[tuple[str, Expression]]
    variables: Mapping[str, Expression]
    """In their order."""
    rules: Sequence[Rule]
    problems: Sequence[tuple[str, str]]


def compile_policy(spec: Mapping[str, Any]) -> Compiled:
    """Every expression, type-checked; what is wrong is in ``problems`` as (field, message)."""
    problems: list[tuple[str, str]] = []
    variables: dict[str, Expression] = {}
    known: dict[str, cel.Type] = {}
    environment = plain_environment()

    def one(field: str, source: str, wanted: cel.Type | None) -> Expression | None:
        try:
            code, checked = compiled(environment, source, wanted)
        except Refused as refusal:
            problems.append((field, str(refusal)))
            return None
        used = {name.removeprefix(PREFIX) for name in names(checked) if name.startswith(PREFIX)}
        return Expression(code, frozenset(used).union(*(variables[name].needs for name in used)))

    for place, item in enumerate(spec.get("variables") or ()):
        made = one(f"spec.variables[{place}].expression", item["expression"], None)
        if made is not None:
            variables[item["name"]] = made
            known[PREFIX + item["name"]] = made.code.return_type()
            environment = _environment(known)
    conditions = [
        (item["name"], made)
        for place, item in enumerate(spec.get("matchConditions") or ())
        if (made := one(f"spec.matchConditions[{place}].expression", item["expression"], cel.Type.BOOL)) is not None
    ]
    rules = []
    for place, item in enumerate(spec.get("validations") or ()):
        where, spoken = f"validations[{place}]", item.get("messageExpression")
        made = one(f"spec.{where}.expression", item["expression"], cel.Type.BOOL)
        words = None if spoken is None else one(f"spec.{where}.messageExpression", spoken, cel.Type.STRING)
        if made is not None:
            reason = item.get("reason") or "PolicyDenied"
            rules.append(Rule(where, item["expression"], made, reason, item.get("message"), words))
    return Compiled(spec.get("params") or {}, conditions, variables, rules, problems)


def bad_patterns(patterns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Regular expressions are compiled only when they are used: so each that is a literal is used once here."""
    bad = []
    for field, expression in patterns:
        try:
            code, _ = compiled(plain_environment(), expression, cel.Type.BOOL)
            value_of(code.eval(data={}))
        except Refused as refusal:
            bad.append((field, str(refusal)))
        except RuntimeError as error:
            bad.append((field, plain(str(error))))
    return bad


@lru_cache(maxsize=1)
def plain_environment() -> cel.Env:
    """With what every Policy sees."""
    return _environment({})


def _environment(variables: Mapping[str, cel.Type]) -> cel.Env:
    """With these declared beside what every Policy sees: so the use of each is type-checked like anything else."""
    return cel.NewEnv(
        config=cel.NewEnvConfigFromYaml(_LIBRARIES),
        variables={**_TYPES, **variables},
        extensions=[
            ext_optional.ExtOptional(),
            ext_strings.ExtStrings(),
            ext_math.ExtMath(),
            ext_encoders.ExtEncoders(),
            ext_bindings.ExtBindings(),
        ],
    )
