"""Authority as a lattice: it only narrows on the way down (docs/explanation/authority.md).

A ``Grant`` here is *whole* when nothing in it is left to be inherited: every list is there, and an amount, depth or
time that is absent is unlimited. The ceiling is whole, and ``resolve`` makes whole grants of what objects declare.
``meet`` is the greatest grant within both; ``is_within`` says along which axes one goes beyond another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from triplane.api.authority import Authority, Axis, Budget, Grant
from triplane.audit.digest import digest_of_json
from triplane.domain.authority_patterns import HOSTS, NAMES, PATHS, Language

LISTS: Final[Mapping[Axis, Language]] = {
    Axis.TOOLS: NAMES,
    Axis.CAPABILITIES: NAMES,
    Axis.HARNESSES: NAMES,
    Axis.MODELS: NAMES,
    Axis.EGRESS: HOSTS,
    Axis.SECRETS: NAMES,
    Axis.PATHS: PATHS,
}
"""Axes that are lists of patterns; their values are the names of the fields of ``Grant``."""
AMOUNTS: Final[Mapping[Axis, str]] = {
    Axis.TOKENS: "tokens",
    Axis.COST: "cost_minor_units",
    Axis.SECONDS: "wall_clock_seconds",
    Axis.SESSIONS: "sessions",
}
"""Axes of the budget, and the fields of ``Budget``."""
SHOWN: Final = 5
"""Patterns of one limit that a message names."""


@dataclass(frozen=True, slots=True)
class Excess:
    """Where something goes beyond its limit."""

    axis: Axis
    value: str
    limit: str
    """The limit on that axis, for people: the patterns, a number, a time, or ``nothing``."""

    def __str__(self) -> str:
        return f"{self.axis.value} {self.value} is beyond {self.limit}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What an object may use and hand on when everything above it is taken into account; both whole."""

    may_use: Grant
    may_delegate: Grant


_ALL: Final = ["**"]
BUILT_IN: Final = Resolved(
    may_use=Grant(
        tools=_ALL, capabilities=_ALL, harnesses=_ALL, models=_ALL, egress=[], secrets=[], paths=[], budget=Budget(),
        delegation_depth=8,
    ),
    may_delegate=Grant(
        tools=_ALL, capabilities=_ALL, harnesses=_ALL, models=_ALL, egress=["*"], secrets=_ALL, paths=["**:rw"],
        budget=Budget(), delegation_depth=8,
    ),
)  # fmt: skip
"""The ceiling of an installation that configures none: nothing leaves the sandbox and nothing enters it unless
somebody grants it on purpose; and who may write an object of the namespace may grant it there."""


def listed(grant: Grant, axis: Axis) -> list[str] | None:
    """The patterns of one of the ``LISTS``; None: inherited."""
    found: list[str] | None = getattr(grant, axis.value)
    return found


def amount(grant: Grant, axis: Axis) -> int | None:
    """One of the ``AMOUNTS``; None: inherited, or in a whole grant unlimited."""
    found: int | None = getattr(grant.budget, AMOUNTS[axis]) if grant.budget is not None else None
    return found


def explicit(grant: Grant | None) -> frozenset[Axis]:
    """The axes that are not left to be inherited."""
    if grant is None:
        return frozenset()
    found = {axis for axis in LISTS if listed(grant, axis) is not None}
    found |= {axis for axis in AMOUNTS if amount(grant, axis) is not None}
    if grant.delegation_depth is not None:
        found.add(Axis.DEPTH)
    if grant.expires_at is not None:
        found.add(Axis.EXPIRY)
    return frozenset(found)


def moment(text: str) -> datetime:
    """A time of ``expiresAt``. What cannot be read is past: it grants nothing."""
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _rfc3339(text: str | None) -> str | None:
    """The one spelling of a time: UTC."""
    return None if text is None else moment(text).isoformat().replace("+00:00", "Z")


def normal(grant: Grant) -> Grant:
    """The one spelling of a grant: two that grant the same are equal."""
    lists = {
        axis.value: None if (patterns := listed(grant, axis)) is None else language.normal(patterns)
        for axis, language in LISTS.items()
    }
    return grant.model_copy(update={**lists, "expires_at": _rfc3339(grant.expires_at)})


def meet(one: Grant, other: Grant) -> Grant:
    """The greatest grant within both: commutative, associative, idempotent. Absent on one side counts as the other
    side's, on both as absent. Lists that cross in more than 64 ways grant less than that, never more."""
    lists = {axis.value: _meet_lists(listed(one, axis), listed(other, axis), each) for axis, each in LISTS.items()}
    budget = None
    if one.budget is not None or other.budget is not None:
        budget = Budget(**{field: _least(amount(one, axis), amount(other, axis)) for axis, field in AMOUNTS.items()})
    return Grant(
        **lists,
        budget=budget,
        delegation_depth=_least(one.delegation_depth, other.delegation_depth),
        expires_at=min(filter(None, map(_rfc3339, (one.expires_at, other.expires_at))), key=moment, default=None),
    )


def _meet_lists(one: list[str] | None, other: list[str] | None, language: Language) -> list[str] | None:
    if one is None or other is None:
        only = one if other is None else other
        return None if only is None else language.normal(only)
    return language.meet(one, other)


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def is_within(child: Grant, limit: Grant) -> tuple[Excess, ...]:
    """Where ``child`` goes beyond ``limit``; nothing: it is within. What the child leaves to be inherited goes beyond
    nothing, and what the limit leaves absent limits nothing."""
    found: list[Excess] = []
    for axis, language in LISTS.items():
        patterns, limits = listed(child, axis), listed(limit, axis)
        if patterns is not None and limits is not None:
            found += [Excess(axis, each, shown(limits)) for each in language.beyond(patterns, limits)]
    for axis in AMOUNTS:
        found += _beyond(axis, amount(child, axis), amount(limit, axis))
    found += _beyond(Axis.DEPTH, child.delegation_depth, limit.delegation_depth)
    if child.expires_at and limit.expires_at and moment(child.expires_at) > moment(limit.expires_at):
        found.append(Excess(Axis.EXPIRY, child.expires_at, limit.expires_at))
    return tuple(found)


def _beyond(axis: Axis, value: int | None, limit: int | None) -> Iterable[Excess]:
    return [Excess(axis, str(value), str(limit))] if value is not None and limit is not None and value > limit else []


def holds(outer: Grant, inner: Grant) -> tuple[Excess, ...]:
    """As ``is_within`` of whole grants: what ``inner`` leaves unlimited goes beyond a limit of ``outer``."""
    found = list(is_within(inner, outer))
    unlimited = [axis for axis in AMOUNTS if amount(inner, axis) is None and amount(outer, axis) is not None]
    found += [Excess(axis, "unlimited", str(amount(outer, axis))) for axis in unlimited]
    if inner.expires_at is None and outer.expires_at is not None:
        found.append(Excess(Axis.EXPIRY, "never", outer.expires_at))
    return tuple(found)


def shown(patterns: Sequence[str]) -> str:
    """A list of patterns, for people."""
    more = len(patterns) - SHOWN
    return (", ".join(patterns[:SHOWN]) + (f" and {more} more" if more > 0 else "")) or "nothing"


def fill(grant: Grant | None, above: Grant) -> Grant:
    """The grant with what it leaves absent as it is above; the depth one less."""
    below = max(above.delegation_depth - 1, 0) if above.delegation_depth is not None else None
    return whole(grant, above.model_copy(update={"delegation_depth": below}))


def whole(grant: Grant | None, other: Grant) -> Grant:
    """The grant with what it leaves absent as in the other."""
    if grant is None:
        return other
    update: dict[str, object] = {
        field: getattr(grant, field)
        for field in (*(axis.value for axis in LISTS), "delegation_depth", "expires_at")
        if getattr(grant, field) is not None
    }
    amounts = {field: _first(amount(grant, axis), amount(other, axis)) for axis, field in AMOUNTS.items()}
    return other.model_copy(update={**update, "budget": Budget(**amounts)})


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def resolve(parent: Resolved, authority: Authority | None) -> Resolved:
    """What an object with this authority has beneath its parent. Never wider than the parent hands on, whatever it
    declares: admission refuses what is, and a parent may be narrowed afterwards."""
    own = authority or Authority()
    below = fill(None, parent.may_delegate)
    may_delegate = meet(fill(own.may_delegate, parent.may_delegate), below)
    may_use = meet(fill(own.may_use, parent.may_use), may_delegate)
    return Resolved(may_use, may_delegate)


def widening(parent: Resolved, authority: Authority | None) -> tuple[tuple[str, Excess], ...]:
    """Where what an object declares goes beyond what its parent hands on (``mayDelegate``), or what it would use
    beyond what it hands on itself (``mayUse``)."""
    if authority is None:
        return ()
    below = fill(None, parent.may_delegate)
    found = [("mayDelegate", each) for each in is_within(authority.may_delegate or Grant(), below)]
    own = meet(fill(authority.may_delegate, parent.may_delegate), below)
    return (*found, *(("mayUse", each) for each in is_within(authority.may_use or Grant(), own)))


def too_deep(parent: Resolved) -> Excess | None:
    """Nothing may follow beneath this parent."""
    depth = parent.may_delegate.delegation_depth
    return Excess(Axis.DEPTH, "one more level", "0") if depth is not None and depth <= 0 else None


def expired(grant: Grant, now: datetime) -> bool:
    """Whether its time is over."""
    return grant.expires_at is not None and moment(grant.expires_at) <= now


def digest_of(grant: Grant) -> str:
    """Digest of the wire form (JCS): what a permit and a session's spec carry."""
    return digest_of_json(grant.wire())


def chain(ceiling: Resolved, authorities: Iterable[Authority | None]) -> tuple[Resolved, ...]:
    """What each of these objects has, the topmost first."""
    found: list[Resolved] = []
    for authority in authorities:
        found.append(resolve(found[-1] if found else ceiling, authority))
    return tuple(found)
