"""Label selectors in the syntax of Kubernetes (Labels and Selectors; apimachinery's ``labels.Parse``).

``env=prod``, ``env==prod``, ``env!=prod``, ``env in (a, b)``, ``env notin (a)``, ``env``, ``!env``; a comma is *and*.
As there, ``!=`` and ``notin`` also match objects without the label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from triplane.api.policy import Selector, SelectorOperator
from triplane.errors import InvalidInput


class Operator(StrEnum):
    """What a requirement asks of one label."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label; ``values`` is empty for EXISTS and ABSENT."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        match self.operator:
            case Operator.EXISTS:
                return self.key in labels
            case Operator.ABSENT:
                return self.key not in labels
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that all hold; none of them matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> "LabelSelector":
        """All of these labels with exactly these values (``matchLabels``)."""
        return cls(tuple(Requirement(key, Operator.IN, (value,)) for key, value in sorted(labels.items())))


_DECLARED: Mapping[SelectorOperator, Operator] = {
    SelectorOperator.IN: Operator.IN,
    SelectorOperator.NOT_IN: Operator.NOT_IN,
    SelectorOperator.EXISTS: Operator.EXISTS,
    SelectorOperator.DOES_NOT_EXIST: Operator.ABSENT,
}


def matches(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels meet a selector as objects declare it (metav1.LabelSelector); an absent or empty one matches
    everything. As in Kubernetes, NotIn also matches objects without the label."""
    if selector is None:
        return True
    exactly = LabelSelector.of(selector.match_labels or {})
    further = (
        Requirement(item.key, _DECLARED[item.operator], tuple(item.values or ()))
        for item in selector.match_expressions or ()
    )
    return exactly.matches(labels) and all(requirement.matches(labels) for requirement in further)


_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_FORMS = (
    (re.compile(rf"!\s*({_KEY})"), Operator.ABSENT),
    (re.compile(rf"({_KEY})\s+in\s*\(([^()]*)\)"), Operator.IN),
    (re.compile(rf"({_KEY})\s+notin\s*\(([^()]*)\)"), Operator.NOT_IN),
    (re.compile(rf"({_KEY})\s*!=\s*({_VALUE})"), Operator.NOT_IN),
    (re.compile(rf"({_KEY})\s*==?\s*({_VALUE})"), Operator.IN),
    (re.compile(rf"({_KEY})"), Operator.EXISTS),
)
_PART = re.compile(r"[^,()]*(?:\([^()]*\))?[^,()]*")
_ONE_VALUE = re.compile(_VALUE)


def parse_selector(text: str) -> LabelSelector:
    """The selector written as ``kubectl -l`` takes it; the empty text matches everything.

    Raises ``InvalidInput`` naming the requirement that cannot be read.
    """
    if not text.strip():
        return LabelSelector()
    parts, at = [], 0
    while True:
        part = _PART.match(text, at)
        assert part is not None  # it matches the empty text
        parts.append(part.group())
        at = part.end()
        if at == len(text):
            break
        if text[at] != ",":
            raise InvalidInput(f"label selector {text!r}: unexpected {text[at]!r} at position {at + 1}")
        at += 1
    return LabelSelector(tuple(_requirement(part.strip(), text) for part in parts))


def _requirement(part: str, whole: str) -> Requirement:
    for form, operator in _FORMS:
        found = form.fullmatch(part)
        if found is None:
            continue
        if operator in (Operator.EXISTS, Operator.ABSENT):
            return Requirement(found[1], operator)
        values = tuple(value.strip() for value in found[2].split(","))
        for value in values:
            if _ONE_VALUE.fullmatch(value) is None:
                raise InvalidInput(f"label selector {whole!r}: {value!r} cannot be the value of a label")
        return Requirement(found[1], operator, tuple(sorted(set(values))))
    raise InvalidInput(
        f"label selector {whole!r}: cannot read {part!r}; write KEY=VALUE, KEY!=VALUE, KEY in (A, B), "
        "KEY notin (A, B), KEY or !KEY, joined by commas"
    )
