"""What many writers saw of one log, checked against the log: pure, after the manner of Jepsen.

A history is what each writer wrote down before and after each append, on one clock (CLOCK_MONOTONIC is the same for
all processes of a machine). An attempt ends *ok* (a receipt), *fail* (definitely refused), or not at all that anybody
knows: *info*. Attempts with the same bodies are one operation, whoever made them. The rules, by ``Kind``:

an operation that was acknowledged is in the log once, where its receipt says, one of unknown outcome at most once and
whole, one that failed never; what was acknowledged before something else began stands before it; the chain has no gap;
a reader of the stream sees the log as it is, in its order; nobody appends under an epoch that was over when they began.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import orjson

from triplane.audit.merkle import leaf_hash
from triplane.audit.model import GENESIS_PREV

Body = tuple[str, str]
"""An event's id, and what tells it from another event of that id."""


class Result(StrEnum):
    """How an attempt ended."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Kind(StrEnum):
    """What can be wrong with a log."""

    LOST = "Lost"
    DUPLICATED = "Duplicated"
    TORN = "Torn"
    PHANTOM = "Phantom"
    FAILED = "Failed"
    REORDERED = "Reordered"
    MISREPORTED = "Misreported"
    GAP = "Gap"
    BROKEN = "Broken"
    UNFENCED = "Unfenced"
    MISREAD = "Misread"


@dataclass(frozen=True, slots=True)
class Problem:
    """One rule that does not hold."""

    kind: Kind
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One append as its writer saw it. ``ended`` is None when the writer did not live to see it."""

    writer: str
    bodies: tuple[Body, ...]
    began: float
    ended: float | None = None
    result: Result = Result.INFO
    receipts: tuple[tuple[str, int, str], ...] = ()
    """Id, sequence number and leaf hash, in the order of the bodies."""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """A writer's name was taken over; ``ended`` is when the new holder knew."""

    writer: str
    number: int
    ended: float


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log."""

    seq: int
    body: Body
    prev: str
    leaf: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was written down."""

    attempts: tuple[Attempt, ...]
    epochs: tuple[Epoch, ...] = ()
    readings: Mapping[str, tuple[tuple[int, str], ...]] | None = None
    """By reader: sequence number and leaf hash of what its stream gave, in that order, from the first entry on."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """All attempts with the same bodies."""

    bodies: tuple[Body, ...]
    attempts: tuple[Attempt, ...]

    @property
    def result(self) -> Result:
        results = {attempt.result for attempt in self.attempts}
        return next(result for result in (Result.OK, Result.INFO, Result.FAIL) if result in results)

    def __str__(self) -> str:
        return f"{self.bodies[0][0]}{f' and {len(self.bodies) - 1} more' if self.bodies[1:] else ''}"


def entry_of(octets: bytes, value: str) -> Entry:
    """The entry these octets are; ``value`` names the member of ``data`` that tells bodies of one id apart."""
    parsed = orjson.loads(octets)
    return Entry(parsed["seq"], (parsed["id"], str(parsed["data"].get(value))), parsed["prev"], leaf_hash(octets).hex())


def check(history: History, log: Sequence[Entry], *, before: int = 0) -> list[Problem]:
    """Everything wrong with ``log``, whose first ``before`` entries are older than the history."""
    operations = _operations(history.attempts)
    return [
        *_chain(log),
        *_outcomes(operations, log, before),
        *_real_time(history.attempts, log),
        *_fences(history, log),
        *_readings(history.readings or {}, log),
    ]


def _operations(attempts: Iterable[Attempt]) -> list[_Operation]:
    grouped: dict[tuple[Body, ...], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        grouped[attempt.bodies].append(attempt)
    return [_Operation(bodies, tuple(found)) for bodies, found in grouped.items()]


def _chain(log: Sequence[Entry]) -> Iterator[Problem]:
    prev = GENESIS_PREV
    for place, entry in enumerate(log):
        if entry.seq != place:
            yield Problem(Kind.GAP, f"where {place} should be stands {entry.seq}")
            return  # everything behind it would be told again
        if entry.prev != prev:
            yield Problem(Kind.BROKEN, f"entry {place} does not name its predecessor")
        prev = entry.leaf


def _outcomes(operations: Sequence[_Operation], log: Sequence[Entry], before: int) -> Iterator[Problem]:
    times = Counter(entry.body for entry in log)
    ids = Counter(entry.body[0] for entry in log)
    leaves = {entry.body: (entry.seq, entry.leaf) for entry in log}
    for id_, count in ids.items():
        if count > 1:
            yield Problem(Kind.DUPLICATED, f"{id_} is recorded {count} times")
    for operation in operations:
        there = [body for body in operation.bodies if times[body]]
        if operation.result is Result.OK and len(there) < len(operation.bodies):
            yield Problem(Kind.LOST, f"{operation} was acknowledged, {len(there)} of it are recorded")
        elif operation.result is Result.FAIL and there:
            yield Problem(Kind.FAILED, f"{operation} was refused and is recorded")
        elif 0 < len(there) < len(operation.bodies):
            yield Problem(Kind.TORN, f"{len(there)} of the {len(operation.bodies)} of {operation} are recorded")
        places = [leaves[body][0] for body in there]
        if any(later != earlier + 1 for earlier, later in pairwise(places)):
            yield Problem(Kind.REORDERED, f"{operation} is recorded at {places}")
        for attempt in operation.attempts:
            if attempt.result is Result.OK and len(there) == len(operation.bodies):
                recorded = tuple((body[0], *leaves[body]) for body in operation.bodies)
                if attempt.receipts != recorded:
                    yield Problem(
                        Kind.MISREPORTED, f"{attempt.writer} was told {attempt.receipts}, recorded is {recorded}"
                    )
    known = {body for operation in operations for body in operation.bodies}
    for entry in log[before:]:
        if entry.body not in known:
            yield Problem(Kind.PHANTOM, f"entry {entry.seq}, {entry.body[0]}, was appended by nobody")


def _real_time(attempts: Sequence[Attempt], log: Sequence[Entry]) -> Iterator[Problem]:
    """What was acknowledged before something was first begun stands before it."""
    began: dict[Body, float] = {}
    acknowledged: dict[Body, float] = {}
    for attempt in attempts:
        for body in attempt.bodies:
            began[body] = min(attempt.began, began.get(body, attempt.began))
            if attempt.result is Result.OK and attempt.ended is not None:
                acknowledged[body] = min(attempt.ended, acknowledged.get(body, attempt.ended))
    there = [entry for entry in log if entry.body in began]
    known = sorted((acknowledged[entry.body], entry.seq) for entry in there if entry.body in acknowledged)
    passed = 0
    highest = -1
    for entry in sorted(there, key=lambda each: began[each.body]):
        while passed < len(known) and known[passed][0] < began[entry.body]:
            highest = max(highest, known[passed][1])
            passed += 1
        if entry.seq < highest:
            yield Problem(
                Kind.REORDERED,
                f"{entry.body[0]} stands at {entry.seq}, before entry {highest}, "
                "which was acknowledged before it was begun",
            )


def _fences(history: History, log: Sequence[Entry]) -> Iterator[Problem]:
    """An attempt that began when a newer epoch was known to stand must have been refused."""
    fresh: set[Body] = set()
    stale: dict[Body, int] = {}
    for attempt in history.attempts:
        over = any(
            epoch.writer == attempt.writer and epoch.number > attempt.epoch and epoch.ended < attempt.began
            for epoch in history.epochs
        )
        fresh.update(() if over else attempt.bodies)
        stale.update(dict.fromkeys(attempt.bodies, attempt.epoch) if over else {})
    for entry in log:
        if entry.body in stale and entry.body not in fresh:
            yield Problem(
                Kind.UNFENCED,
                f"entry {entry.seq}, {entry.body[0]}, was appended under epoch {stale[entry.body]}, which was over",
            )


def _readings(readings: Mapping[str, tuple[tuple[int, str], ...]], log: Sequence[Entry]) -> Iterator[Problem]:
    for reader, seen in readings.items():
        for place, (seq, leaf) in enumerate(seen):
            if place >= len(log) or (seq, leaf) != (log[place].seq, log[place].leaf):
                yield Problem(Kind.MISREAD, f"{reader} was given {seq} as its {place}-th")
                break
        else:
            if len(seen) < len(log):
                yield Problem(Kind.MISREAD, f"{reader} was given {len(seen)} of {len(log)} entries")
