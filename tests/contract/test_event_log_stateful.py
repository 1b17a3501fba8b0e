"""``EventLog`` against a model of a list, on every backend: any order of any operations, by several writers.

``LOG_HISTORIES=n`` runs n histories per backend instead of the few of CI.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.conftest import Database, PostgresServer, drop_database, new_database
from tests.contract.test_event_log import body

from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.entry import body_of, parse
from triplane.audit.merkle import CompactRange, leaf_hash
from triplane.audit.model import GENESIS_PREV, EventBody, EventFilter, Receipt, Recorded
from triplane.errors import Fenced, IdReused, InvalidEntry, TriplaneError
from triplane.ports import EventLog

T = TypeVar("T")
WRITERS = ("leader", "leader", "other")
"""Names of the writers: the first two take their name from each other by epochs."""
HISTORIES = {"memory": 25, "postgres": 4}
STEPS = 30

KINDS = ("Task", "Node")
NAMES = ("a", "b")
ACTORS = ("system", "p-bob")
NUMBERS = st.integers(0, 11)
BATCHES = st.lists(NUMBERS, min_size=1, max_size=6)
WHO = st.sampled_from(range(len(WRITERS)))


def event(number: int, *, other: bool = False) -> EventBody:
    """One of few events, so that they come again; ``other``: its id with another body."""
    made = body(number, kind=KINDS[number % 2], name=NAMES[number // 2 % 2], actor=ACTORS[number // 4 % 2])
    return replace(made, data={"count": number + 1000}) if other else made


INVALID = {
    "a float": {"cost": 0.5},
    "too large": {"text": "x" * 17_000},
    "a NUL": {"text": "\0"},
    "an integer over 2^53-1": {"count": 2**53},
}
FILTERS = st.builds(
    EventFilter,
    types=st.sampled_from([frozenset[str](), frozenset({"resource.observed"}), frozenset({"resource.gone"})]),
    kind=st.sampled_from([None, *KINDS]),
    name=st.sampled_from([None, *NAMES]),
    actor=st.sampled_from([None, *ACTORS]),
    uids=st.sets(st.sampled_from([f"uid-{number}" for number in range(12)]), max_size=3).map(frozenset),
    before=st.none() | st.integers(0, 20),
)


def matches(where: EventFilter, seq: int, made: EventBody) -> bool:
    """What a filter means, said independently of any backend."""
    return (
        (not where.types or made.type in where.types)
        and where.kind in {None, made.subject.kind}
        and where.name in {None, made.subject.name}
        and where.actor in {None, made.actor}
        and (not where.uids or made.subject.uid in where.uids)
        and (where.before is None or seq < where.before)
    )


@dataclass
class World:
    """One log: how to open a writer of it, and what to do in the end."""

    open: Callable[[str], Coroutine[Any, Any, EventLog]]
    close: Callable[[], None] = field(default=lambda: None)


def in_memory(request: pytest.FixtureRequest) -> World:
    shared = MemoryLog.create()

    async def open_log(writer: str) -> EventLog:
        return MemoryEventLog(shared, writer=writer)

    return World(open_log)


def in_postgres(request: pytest.FixtureRequest) -> World:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    database: Database = new_database(server)

    async def open_log(writer: str) -> EventLog:
        return await PostgresEventLog(database.dsn("operator"), writer=writer).open()

    return World(open_log, lambda: drop_database(database))


class LogAndModel(RuleBasedStateMachine):
    """The model: the bodies in their order, the receipts that were given, and the epochs."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.world = world
        self.logs = [self.run(world.open(writer)) for writer in WRITERS]
        self.bodies = [body_of(recorded.entry) for recorded in self.run(self.logs[0].query())]
        self.receipts: dict[str, Receipt] = {}
        self.holds = [0] * len(WRITERS)
        self.epochs = dict.fromkeys(WRITERS, 0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def teardown(self) -> None:
        for log in self.logs:
            self.run(log.close())
        self.loop.close()
        self.world.close()

    def recorded(self) -> list[tuple[int, EventBody]]:
        return list(enumerate(self.bodies))

    def fenced(self, who: int) -> bool:
        return self.holds[who] != self.epochs[WRITERS[who]]

    def expected(self, who: int, bodies: Sequence[EventBody]) -> type[TriplaneError] | None:
        """What an append must raise. A fenced writer learns of it before anything else is looked at."""
        if self.fenced(who):
            return Fenced
        known = {made.id: made for made in self.bodies}
        for made in bodies:
            if known.setdefault(made.id, made) != made:
                return IdReused
        return None

    def take(self, bodies: Sequence[EventBody], receipts: Sequence[Receipt]) -> None:
        """What was acknowledged is recorded, in its order, at the end, or was there before."""
        assert [receipt.id for receipt in receipts] == [made.id for made in bodies]
        for made, receipt in zip(bodies, receipts, strict=True):
            if made.id not in self.receipts:
                assert receipt.seq == len(self.bodies)
                self.bodies.append(made)
                self.receipts[made.id] = receipt
            assert receipt == self.receipts[made.id]

    def append(self, who: int, bodies: Sequence[EventBody]) -> None:
        refusal = self.expected(who, bodies)
        if refusal is None:
            self.take(bodies, self.run(self.logs[who].append(bodies)))
        else:
            with pytest.raises(refusal):
                self.run(self.logs[who].append(bodies))

    @rule(who=WHO, numbers=BATCHES)
    def appends(self, who: int, numbers: list[int]) -> None:
        self.append(who, [event(number) for number in numbers])

    @rule(who=WHO, numbers=BATCHES, other=NUMBERS)
    def appends_another_body_under_an_id(self, who: int, numbers: list[int], other: int) -> None:
        self.append(who, [*(event(number) for number in numbers), event(other, other=True)])

    @rule(who=WHO, number=NUMBERS, wrong=st.sampled_from(list(INVALID)))
    def appends_what_no_entry_can_hold(self, who: int, number: int, wrong: str) -> None:
        with pytest.raises(InvalidEntry):
            self.run(self.logs[who].append([event(number), replace(event(number), data=INVALID[wrong])]))

    @rule(first=BATCHES, second=BATCHES)
    def two_writers_append_at_once(self, first: list[int], second: list[int]) -> None:
        """Either order is right; which it was, the receipts say."""
        calls = [(0, [event(number) for number in first]), (2, [event(number) for number in second])]
        if any(self.expected(who, bodies) is not None for who, bodies in calls):
            return

        async def both() -> list[list[Receipt]]:
            return await asyncio.gather(*(self.logs[who].append(bodies) for who, bodies in calls))

        answers = [(bodies, receipts) for (_, bodies), receipts in zip(calls, self.run(both()), strict=True)]
        for bodies, receipts in sorted(answers, key=lambda each: self.place(each[1])):
            self.take(bodies, receipts)

    def place(self, receipts: Sequence[Receipt]) -> tuple[int, int, bool]:
        """Which of two calls came first. Where both name the newest entry, the one that came second has no new one of
        its own, and the order of the new ones is that of the first."""
        new = list(dict.fromkeys(receipt.seq for receipt in receipts if receipt.seq >= len(self.bodies)))
        return max(receipt.seq for receipt in receipts), -len(new), new != sorted(new)

    @rule(who=WHO)
    def begins_an_epoch(self, who: int) -> None:
        self.epochs[WRITERS[who]] += 1
        self.holds[who] = self.epochs[WRITERS[who]]
        assert self.run(self.logs[who].begin_epoch()) == self.holds[who]

    @rule(who=WHO)
    def checks_its_epoch(self, who: int) -> None:
        if self.fenced(who):
            with pytest.raises(Fenced):
                self.run(self.logs[who].check_epoch())
        else:
            self.run(self.logs[who].check_epoch())

    @rule(who=WHO)
    def is_closed_and_opened_again(self, who: int) -> None:
        self.run(self.logs[who].close())
        self.logs[who] = self.run(self.world.open(WRITERS[who]))
        self.holds[who] = 0

    @rule(who=WHO, where=FILTERS, after=st.integers(-1, 20), limit=st.integers(1, 8), newest_first=st.booleans())
    def queries(self, who: int, where: EventFilter, after: int, limit: int, newest_first: bool) -> None:
        found = self.run(self.logs[who].query(where, after=after, limit=limit, newest_first=newest_first))
        wanted = [seq for seq, made in self.recorded() if seq > after and matches(where, seq, made)]
        assert [recorded.seq for recorded in found] == (wanted[::-1] if newest_first else wanted)[:limit]

    @rule(who=WHO, numbers=st.lists(NUMBERS, max_size=5))
    def gets_by_ids(self, who: int, numbers: list[int]) -> None:
        ids = [event(number).id for number in numbers]
        places = {made.id: seq for seq, made in self.recorded()}
        found = self.run(self.logs[who].get_many(ids))
        assert {id_: recorded.seq for id_, recorded in found.items()} == {
            id_: places[id_] for id_ in ids if id_ in places
        }
        for id_ in ids[:1]:
            one = self.run(self.logs[who].get(id_))
            assert (None if one is None else one.seq) == places.get(id_)

    @precondition(lambda self: len(self.bodies) > 2)
    @rule(who=WHO, data=st.data())
    def streams_from_somewhere(self, who: int, data: st.DataObject) -> None:
        after = data.draw(st.integers(-1, len(self.bodies) - 2))

        async def read() -> list[int]:
            seen: list[int] = []
            async with asyncio.timeout(60):
                async for recorded in self.logs[who].stream(after=after):
                    seen.append(recorded.seq)
                    if recorded.seq == len(self.bodies) - 1:
                        break
            return seen

        assert self.run(read()) == list(range(after + 1, len(self.bodies)))

    @rule(who=WHO, data=st.data())
    def verifies_a_range(self, who: int, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, len(self.bodies) - 1))
        last = data.draw(st.integers(first, len(self.bodies) - 1))
        found = self.run(self.logs[who].verify_chain(first=first, last=last))
        assert (found.ok, found.first, found.last, found.count) == (True, first, last, last - first + 1)

    @invariant()
    def is_the_list_and_verifies(self) -> None:
        everything: list[Recorded] = self.run(self.logs[2].query())
        assert [body_of(recorded.entry) for recorded in everything] == self.bodies
        tree, prev = CompactRange(), GENESIS_PREV
        for seq, recorded in enumerate(everything):
            entry = parse(recorded.octets)
            assert (entry["seq"], entry["prev"]) == (recorded.seq, prev) == (seq, prev)
            prev = leaf_hash(recorded.octets).hex()
            assert recorded.leaf_hash == prev
            tree.add(leaf_hash(recorded.octets))
        assert self.run(self.logs[2].head()) == (len(everything), prev)
        whole = self.run(self.logs[2].verify_chain())
        assert (whole.ok, whole.count, whole.root) == (True, len(everything), tree.root().hex())


def run(world: Callable[[], World], histories: int, **more: Any) -> None:
    """Histories of one backend against the model."""
    run_state_machine_as_test(
        lambda: LogAndModel(world()),
        settings=settings(
            max_examples=int(os.environ.get("LOG_HISTORIES", histories)),
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


@pytest.mark.parametrize("backend", [in_memory, in_postgres], ids=["memory", "postgres"])
def test_any_history_is_that_of_the_model(
    backend: Callable[[pytest.FixtureRequest], World], request: pytest.FixtureRequest
) -> None:
    run(lambda: backend(request), HISTORIES[backend.__name__.removeprefix("in_")])


class Forgetful(MemoryEventLog):
    """Does not know again what it has recorded."""

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        self._log.ids.clear()
        return await super().append(bodies)


class Unfenced(MemoryEventLog):
    """Lets everybody append."""

    async def check_epoch(self) -> None:
        self._epoch = self._log.epochs.get(self._writer, 0)


class Early(MemoryEventLog):
    """Acknowledges a batch before all of it is recorded."""

    async def append(self, bodies: Sequence[EventBody]) -> list[Receipt]:
        receipts = await super().append(bodies)
        if len(set(receipts)) > 3 and receipts[-1].seq == len(self._log.rows) - 1:
            self._log.rows.pop()
        return receipts


class ShortSighted(MemoryEventLog):
    """Takes no notice of one condition of a query."""

    async def query(self, where: EventFilter = EventFilter(), **more: Any) -> list[Recorded]:
        return await super().query(replace(where, actor=None), **more)


@pytest.mark.parametrize("broken", [Forgetful, Unfenced, Early, ShortSighted], ids=lambda each: each.__doc__[:-1])
def test_a_log_that_breaks_its_promise_is_found(broken: type[MemoryEventLog]) -> None:
    def world() -> World:
        shared = MemoryLog.create()

        async def open_log(writer: str) -> EventLog:
            return broken(shared, writer=writer)

        return World(open_log)

    with pytest.raises(BaseException, match=r".") as found:  # whichever rule or invariant sees it first
        run(world, 100, phases=[Phase.generate], database=None, report_multiple_bugs=False)
    assert isinstance(found.value, AssertionError | TriplaneError | IndexError | KeyError | pytest.fail.Exception)
