"""What warrants a session: the chain above it, what it demands, and who could grant what it lacks.

The chain is ceiling → Graph → Node → Task on one side and ceiling → Agent on the other; a session may use what both
sides may (design §3.4). Whatever is beyond is told with the object that sets the limit, and who can change that.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triplane.api.authority import Authority, Axis, Budget, Grant
from triplane.api.tool import ToolSpec
from triplane.api.work import Work
from triplane.domain.authority import (
    AMOUNTS,
    BUILT_IN,
    LISTS,
    Excess,
    Resolved,
    amount,
    digest_of,
    explicit,
    is_within,
    listed,
    meet,
    resolve,
    too_deep,
    widening,
)
from triplane.domain.lens import bare_names
from triplane.domain.tool import host_of, secrets_of
from triplane.domain.toolcall import demanded_keys, within_reach

INSTALLATION: Final = "the installation"

Beneath = Callable[[Resolved, Authority | None], Resolved]
Both = Callable[[Resolved, Resolved | None], tuple[Grant, str]]


@dataclass(frozen=True, slots=True)
class Holder:
    """An object that carries authority, as far as it matters here."""

    kind: str
    name: str
    authority: Authority | None
    uid: str = ""
    requester: str | None = None
    """User name of who applied it, and so can change it."""


_INSTALLATION: Final = Holder(INSTALLATION, "", None)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The root of every chain."""

    resolved: Resolved = BUILT_IN
    axes: frozenset[Axis] = frozenset()
    """What its file sets."""


@dataclass(frozen=True, slots=True)
class Level:
    """One link of a chain: an object, and what it has under everything above it."""

    holder: Holder
    resolved: Resolved


@dataclass(frozen=True, slots=True)
class Refused:
    """Something beyond its limit, and whose limit that is."""

    excess: Excess
    limit_of: str
    """``mayDelegate of Graph g``; ``mayUse of Agent a``; ``mayDelegate of the installation``."""
    holder: Holder
    """Whose limit it is."""
    who: str
    """Who can change it."""

    def __str__(self) -> str:
        return f"{self.excess} ({self.limit_of}); {self.who} can change that"


def links(ceiling: Ceiling, holders: Iterable[Holder], beneath: Beneath = resolve) -> tuple[Level, ...]:
    """The chain, the topmost first: the ceiling itself, then each object beneath the one before."""
    found = [Level(_INSTALLATION, ceiling.resolved)]
    for holder in holders:
        found.append(Level(holder, beneath(found[-1].resolved, holder.authority)))
    return tuple(found)


def effective(work: Resolved, agent: Resolved | None) -> tuple[Grant, str]:
    """What both sides may use, and its digest."""
    grant = work.may_use if agent is None else meet(work.may_use, agent.may_use)
    return grant, digest_of(grant)


@dataclass(frozen=True, slots=True)
class Warrant:
    """What a session may use, and why no more."""

    work: tuple[Level, ...]
    """Ceiling, Graph, Node if there is one, Task."""
    agent: tuple[Level, ...]
    """Ceiling, Agent; empty while nobody is chosen."""
    effective: Grant
    digest: str
    axes: frozenset[Axis]
    """What somebody in the chain has set on purpose: an executor that cannot enforce one of these does not run it."""

    @property
    def agent_level(self) -> Level | None:
        return self.agent[-1] if self.agent else None


def warrant(
    ceiling: Ceiling,
    work: Sequence[Holder],
    agent: Holder | None,
    *,
    beneath: Beneath = resolve,
    both: Both = effective,
) -> Warrant:
    """What a session of that work by that Agent has; without an Agent, what any would have at most. Who asks often
    may remember what ``beneath`` (see ``resolve``) and ``both`` (see ``effective``) answer."""
    chain = links(ceiling, work, beneath)
    side = links(ceiling, [agent], beneath) if agent is not None else ()
    grant, digest = both(chain[-1].resolved, side[-1].resolved if side else None)
    axes = set(ceiling.axes)
    for holder in (*work, *([agent] if agent is not None else [])):
        if holder.authority is not None:
            axes |= explicit(holder.authority.may_use) | explicit(holder.authority.may_delegate)
    return Warrant(chain, side, grant, digest, frozenset(axes))


def demanded(
    work: Work,
    *,
    role: str,
    model: str | None,
    harness: str | None,
    review_capability: str,
    tools: Sequence[ToolSpec] = (),
) -> Grant:
    """What a session needs to begin at all; ``tools`` are the Tools it is offered, with what they need. A reviewer gets
    neither tools, secrets nor paths, so it demands none."""
    producer = role == "producer"
    secrets = {item.name for item in work.secrets or ()} | {name for tool in tools for name in secrets_of(tool)}
    return Grant.model_construct(
        tools=list(demanded_keys(work.tools or ())) if producer else [],
        capabilities=list(bare_names(work.required_capabilities)) if producer else [review_capability],
        harnesses=[harness] if harness is not None else [],
        models=[model] if model is not None else [],
        egress=sorted({host for host in map(host_of, tools) if host is not None}) if producer else [],
        secrets=sorted(secrets) if producer else [],
        paths=[f"{item.path}{':rw' if item.writable else ''}" for item in work.paths or ()] if producer else [],
        budget=_asked_budget(work),
        delegation_depth=None,
        expires_at=None,
    )


def members_of_order(held: Warrant, work: Work, role: str) -> dict[str, Any]:
    """What the work order says of authority, frozen with the session: the host believes nothing else."""
    producer = role == "producer"
    return {
        "authority": held.effective.wire(),
        "secrets": [item.wire() for item in work.secrets or ()] if producer else [],
        "paths": [item.wire() for item in work.paths or ()] if producer else [],
        "demandedAxes": sorted(axis.value for axis in held.axes),
    }


def _asked_budget(work: Work) -> Budget | None:
    """An amount that the work itself names is one it needs."""
    own = work.authority.may_use if work.authority is not None else None
    return own.budget if own is not None else None


def lacking(held: Warrant, demands: Grant) -> tuple[Refused, ...]:
    """What the demands go beyond, each with whose limit it is; a level too deep comes first."""
    found: list[Refused] = []
    for level in held.work[:-1]:
        if (deep := too_deep(level.resolved)) is not None:
            found.append(_refused(deep, level, "mayDelegate"))
            break
    for excess in beyond(demands, held.effective):
        inside = beyond_one(excess, held.work[-1].resolved.may_use) is None
        found.append(blame(excess, (held.agent if inside else ()) or held.work))
    return tuple(found)


def beyond(demands: Grant, granted: Grant) -> tuple[Excess, ...]:
    """As ``is_within``; a Tool is granted as soon as any operation of it is, for calls are checked one by one."""
    rest = [each for each in is_within(demands, granted) if each.axis is not Axis.TOOLS]
    tools = [key for key in listed(demands, Axis.TOOLS) or () if not _reached(key, granted)]
    limit = ", ".join((listed(granted, Axis.TOOLS) or ())[:5]) or "nothing"
    return (*(Excess(Axis.TOOLS, key, limit) for key in tools), *rest)


def _reached(key: str, granted: Grant) -> bool:
    return within_reach(listed(granted, Axis.TOOLS), key.partition("/")[0])


def beyond_one(excess: Excess, granted: Grant) -> Excess | None:
    """The same value held against another grant."""
    axis = excess.axis
    if axis in LISTS:
        found = beyond(Grant().model_copy(update={axis.value: [excess.value]}), granted)
    elif axis in AMOUNTS:
        limit = amount(granted, axis)
        found = (Excess(axis, excess.value, str(limit)),) if limit is not None and _more(excess.value, limit) else ()
    else:
        found = ()
    return found[0] if found else None


def _more(value: str, limit: int) -> bool:
    return not value.isdecimal() or int(value) > limit


def blame(excess: Excess, chain: Sequence[Level]) -> Refused:
    """Whose limit it is: the topmost that does not hand it on; else the lowest that chose to use less; else nobody
    has granted it yet, and the last link of the chain may."""
    if (above := _limit_above(excess, chain)) is not None:
        return above
    for level in reversed(chain):
        own = level.holder.authority.may_use if level.holder.authority is not None else None
        if excess.axis in explicit(own) and (limit := beyond_one(excess, level.resolved.may_use)) is not None:
            return _refused(limit, level, "mayUse")
    last = chain[-1]
    who = f"{_user(last)}, by spec.authority.mayUse.{excess.axis.value} of {_name(last)},"
    return Refused(excess, f"mayUse of {_name(last)}, to which nothing grants it", last.holder, who)


def _refused(excess: Excess, level: Level, which: str) -> Refused:
    return Refused(excess, f"{which} of {_name(level)}", level.holder, _user(level))


def _name(level: Level) -> str:
    return f"{level.holder.kind} {level.holder.name}".strip()


def _user(level: Level) -> str:
    if level.holder.kind == INSTALLATION:
        return "whoever runs the installation, by TRIPLANE_AUTHORITY,"
    return level.holder.requester or f"whoever applied {_name(level)}"


def too_wide(ceiling: Ceiling, above: Sequence[Holder], holder: Holder) -> tuple[Refused, ...]:
    """Where the authority that ``holder`` declares is wider than what is above hands on (admission)."""
    authority = holder.authority
    if authority is None:
        return ()
    chain = links(ceiling, above)
    parent = chain[-1]
    found: list[Refused] = []
    if (deep := too_deep(parent.resolved)) is not None:
        found.append(_refused(deep, parent, "mayDelegate"))
    own = Level(holder, resolve(parent.resolved, authority))
    for which, excess in widening(parent.resolved, authority):
        itself = which == "mayUse" and excess.axis in explicit(authority.may_delegate)
        found.append(_limit_above(excess, chain) or _refused(excess, own if itself else parent, "mayDelegate"))
    return tuple(found)


def _limit_above(excess: Excess, chain: Sequence[Level]) -> Refused | None:
    for level in chain:
        if (limit := beyond_one(excess, level.resolved.may_delegate)) is not None:
            return _refused(limit, level, "mayDelegate")
    return None
