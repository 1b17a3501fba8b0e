"""Guards taken out, one at a time: the simulation must notice, or it would not notice their absence either.

Each entry takes one protection out of the product, as long as the context lasts, and names the checks that must speak
up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from unittest.mock import patch

Patch = tuple[str, Any]


@dataclass(frozen=True)
class Mutant:
    """What is removed, and which checks must catch it."""

    removes: str
    caught_by: tuple[str, ...]
    patches: Callable[[], Sequence[Patch]]
    from_seed: int = 0
    """Where the hunt begins: the first seeds of some take minutes without showing anything."""


async def _confirm_nothing(*_: Any) -> None:
    """No ancestor is read again before a permit."""


async def _forget(*_: Any, **__: Any) -> bool:
    """Says that it revoked."""
    return True


async def _not_fenced(_: Any) -> None:
    """Any writer may write."""


def _fresh_ids() -> Callable[..., str]:
    from triplane.audit.entry import event_id

    number = count(1)

    def fresh(type_: str, uid: str, n: int, key: str | None = None) -> str:
        return event_id(type_, uid, n, f"{key or 'x'}.{next(number)}")

    return fresh


def _lost_is_agents() -> Any:
    from triplane.domain import retry

    original = retry.failure_of

    def failure_of(run: Any, *, void: bool) -> Any:
        found = original(run, void=void)
        return None if found is None else retry.Failure.AGENT

    return failure_of


def _unlimited() -> Any:
    from triplane.api.authority import Authority
    from triplane.controllers.warrants import holder_of

    def taken_at_its_word(obj: Any) -> Any:
        """What the first Graph said holds for ever."""
        holder = holder_of(obj)
        wide = Authority.model_validate({"mayUse": {"egress": ["*"]}})
        return replace(holder, authority=wide) if holder.kind == "Graph" else holder

    return taken_at_its_word


def _orphans() -> Sequence[Patch]:
    from triplane.controllers import task_children

    original = task_children._child

    def ownerless(*args: Any) -> Any:
        child = original(*args)
        return {**child, "metadata": {k: v for k, v in child["metadata"].items() if k != "ownerReferences"}}

    return [("triplane.controllers.task_children._child", ownerless)]


def _restless() -> Sequence[Patch]:
    number = count(1)
    return [("triplane.controllers.status._cleaned", lambda status: {**status, "retries": next(number)})]


def _no_dependencies(_: Any) -> None:
    """Whatever came first or not."""


def _unbroken(sealed: Callable[..., Any]) -> Callable[..., Any]:
    def seal(bodies: Any, size: int, prev: Any, moment: str) -> Any:
        return sealed(bodies, size, "0" * 64 if isinstance(prev, str) else bytes(32), moment)

    return seal


def _chain() -> Sequence[Patch]:
    from triplane.adapters.memory import eventlog

    return [("triplane.adapters.memory.eventlog.seal_all", _unbroken(eventlog.seal_all))]


MUTANTS: Mapping[str, Mutant] = {
    "expired-permits": Mutant(
        "the ten seconds a permit lives",
        ("permits_before_claims", "launched_on_the_truth"),
        lambda: [("triplane.domain.launch.StoredPermit.valid_at", lambda self, now: True)],
    ),
    "stale-launch": Mutant(
        "the uncached look at every ancestor before a permit",
        ("launched_on_the_truth",),
        lambda: [("triplane.controllers.launch.confirm", _confirm_nothing)],
    ),
    "deaf-to-revocation": Mutant(
        "the revocation of what is withdrawn",
        ("what_is_withdrawn_is_stopped", "nothing_runs_after_its_end"),
        lambda: [("triplane.adapters.memory.sessionstore.MemorySessionStore.revoke", _forget)],
    ),
    "any-reviewer": Mutant(
        "the independence of reviewers",
        ("reviewers_are_independent",),
        lambda: [("triplane.domain.eligibility.dependent", lambda agent, producer: None)],
    ),
    "half-a-quorum": Mutant(
        "that all who were asked for must approve",
        ("reviewers_are_independent",),
        lambda: [("triplane.domain.quorum.Quorum._enough", lambda self, agents, people: agents + people > 0)],
    ),
    "unsigned": Mutant(
        "the statements beside verdicts and acceptances",
        ("accepted_is_attested",),
        lambda: [("triplane.controllers.attest._stated", lambda body: False)],
    ),
    "any-digest": Mutant(
        "the digests a verdict is bound to",
        ("accepted_is_what_was_reviewed", "ends_as_expected"),
        lambda: [("triplane.domain.verdict.subjects_differ", lambda subjects, produced: None)],
    ),
    "fresh-ids": Mutant(
        "deterministic ids of decisions, and the fence between operators",
        ("decided_once",),
        lambda: [
            ("triplane.domain.task_log.event_id", _fresh_ids()),
            ("triplane.adapters.memory.eventlog.MemoryEventLog.check_epoch", _not_fenced),
        ],
        from_seed=50,
    ),
    "authority-at-its-word": Mutant(
        "that a session has no more authority than what is above its Task",
        ("authority_is_not_wider_than_above",),
        lambda: [("triplane.controllers.warrants.holder_of", _unlimited())],
    ),
    "work-twice": Mutant(
        "that a session at work is gone on with, whatever was edited meanwhile",
        ("one_at_a_time",),
        lambda: [("triplane.domain.task_runs.in_force", lambda sessions, placement: None)],
    ),
    "no-limits": Mutant(
        "the limit of an Agent",
        ("limits_hold",),
        lambda: [("triplane.adapters.memory.sessionline.held_by", lambda *_: None)],
    ),
    "no-dependencies": Mutant(
        "the wait for what comes first",
        ("dependencies_come_first", "ends_as_expected", "KeyError", "AssertionError"),
        lambda: [("triplane.domain.task_readiness._dependencies", _no_dependencies)],
    ),
    "no-backoff": Mutant(
        "the wait between runs",
        ("retries_are_counted",),
        lambda: [("triplane.domain.retry.due", lambda *_: None)],
    ),
    "endless-retries": Mutant(
        "the number of retries",
        ("retries_are_counted", "ends_as_expected"),
        lambda: [("triplane.domain.retry.allowance", lambda failure, retries: 50)],
    ),
    "lost-is-failed": Mutant(
        "the difference between an agent's failure and a lost runner",
        ("ends_as_expected",),
        lambda: [("triplane.domain.retry.failure_of", _lost_is_agents())],
    ),
    "silent-status": Mutant(
        "writing status at all",
        ("status_is_honest", "ends_as_expected"),
        lambda: [("triplane.controllers.status._cleaned", lambda status: {})],
    ),
    "restless-status": Mutant("writing only what is new", ("AssertionError", "StuckError"), _restless),
    "orphans": Mutant("owner references of children", ("nothing_is_left",), _orphans),
    "unobserved": Mutant(
        "observing every generation",
        ("everything_was_observed",),
        lambda: [("triplane.controllers.observe.Observer.has_seen", lambda self, obj: True)],
    ),
    "unchained": Mutant("the hash of the entry before", ("chain_verifies",), _chain),
}


@contextmanager
def without(name: str) -> Iterator[None]:
    """The product with that guard removed."""
    with ExitStack() as stack:
        for target, replacement in MUTANTS[name].patches():
            stack.enter_context(patch(target, replacement))
        yield
