"""The batched sequencer: what queued while the last commit ran is the next batch, and everybody gets an answer."""

import asyncio
from collections.abc import Sequence

import pytest

from triplane.adapters.postgres import sequencer as module
from triplane.adapters.postgres.sequencer import LARGEST_BATCH, Call, Sent, Sequencer
from triplane.audit.entry import Prepared, prepare
from triplane.audit.model import EventBody, EventSubject, Receipt
from triplane.errors import IdReused, Unavailable


def prepared(number: int) -> Prepared:
    subject = EventSubject(kind="Task", namespace="", name="x", uid=f"u{number}")
    made = EventBody(f"resource.observed/u{number}/1", "resource.observed", "system", "system", subject)
    return prepare("localhost/abc", made)


class Commits:
    """A commit that waits to be let go and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def __call__(self, calls: list[Call], sent: Sent) -> Sequence[list[Receipt] | IdReused]:
        sent()
        self.batches.append([body.id for call in calls for body in call])
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [[Receipt(body.id, 0, "", "") for body in call] for call in calls]


async def test_what_queued_during_a_commit_is_the_next_batch() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(sequencer.submit([prepared(0)]))]
    await asyncio.sleep(0.01)
    calls += [asyncio.create_task(sequencer.submit([prepared(n)])) for n in range(1, 6)]
    await asyncio.sleep(0.01)
    assert commits.batches == [[prepared(0).id]]
    commits.gate.set()
    answers = await asyncio.gather(*calls)
    assert commits.batches[1:] == [[prepared(n).id for n in range(1, 6)]]
    assert [answer[0].id for answer in answers] == [prepared(n).id for n in range(6)]


async def test_closed_loops_share_every_batch_instead_of_alternating() -> None:
    commits = Commits()
    sequencer = Sequencer(commits)

    async def loop(writer: int) -> None:
        for n in range(20):
            await sequencer.submit([prepared(100 * writer + n)])

    await asyncio.gather(*(loop(writer) for writer in range(8)))
    assert sum(map(len, commits.batches)) == 160
    assert len(commits.batches) <= 22


async def test_many_closed_loops_take_turns_so_that_callers_and_server_are_at_work_at_the_same_time() -> None:
    """While the server has one half, the other half is answered, queues its next entries, and is prepared."""
    prepared_while_away: list[int] = []
    sizes: list[int] = []
    away = False

    async def commit(calls: list[Call], sent: Sent) -> Sequence[list[Receipt] | IdReused]:
        nonlocal away
        away = True
        sizes.append(len(calls))
        sent()
        await asyncio.sleep(0.002)
        away = False
        return [[Receipt(body.id, 0, "", "") for body in call] for call in calls]

    def ahead(calls: list[Call]) -> None:
        assert away
        prepared_while_away.append(len(calls))

    sequencer = Sequencer(commit, ahead)

    async def loop(writer: int) -> None:
        for n in range(20):
            await sequencer.submit([prepared(100 * writer + n)])

    await asyncio.gather(*(loop(writer) for writer in range(64)))
    assert sum(sizes) == 64 * 20
    assert sizes.count(32) > 30, sizes
    assert prepared_while_away.count(32) > 30, prepared_while_away


async def test_batches_are_bounded_and_calls_are_never_split() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    sizes = [1, 200, 100, 300, 5]
    numbers = iter(range(1000))
    calls = []
    for size in sizes:
        calls.append(asyncio.create_task(sequencer.submit([prepared(next(numbers)) for _ in range(size)])))
        await asyncio.sleep(0.01)
    commits.gate.set()
    assert [len(answer) for answer in await asyncio.gather(*calls)] == sizes
    assert list(map(len, commits.batches)) == [1, 200, 100, 300, 5]
    assert all(size <= LARGEST_BATCH or size == 300 for size in map(len, commits.batches))


async def test_a_failed_commit_is_told_to_each_of_its_callers_and_the_next_goes_on() -> None:
    commits = Commits()
    commits.error = Unavailable("gone")
    sequencer = Sequencer(commits)
    outcomes = await asyncio.gather(*(sequencer.submit([prepared(n)]) for n in range(3)), return_exceptions=True)
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 3
    commits.error = None
    assert len(await sequencer.submit([prepared(9)])) == 1


async def test_who_was_to_follow_a_batch_that_failed_waits_again_and_the_failed_are_told_at_once() -> None:
    commits = Commits()
    commits.gate.clear()
    commits.error = Unavailable("gone")
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(sequencer.submit([prepared(0)]))]
    await asyncio.sleep(0.01)
    calls += [asyncio.create_task(sequencer.submit([prepared(n)])) for n in range(1, 41)]
    await asyncio.sleep(0.01)
    commits.gate.set()
    with pytest.raises(Unavailable):
        await calls[0]
    commits.error = None
    await asyncio.gather(*calls[1:], return_exceptions=True)
    assert [one for batch in commits.batches for one in batch] == [prepared(n).id for n in range(41)]
    assert sequencer.load.queued_entries == 0


async def test_a_defect_reaches_the_callers_too() -> None:
    commits = Commits()
    commits.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await Sequencer(commits).submit([prepared(1)])


async def test_a_caller_that_is_cancelled_while_queued_is_left_out() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    first = asyncio.create_task(sequencer.submit([prepared(0)]))
    await asyncio.sleep(0.01)
    cancelled, last = (asyncio.create_task(sequencer.submit([prepared(n)])) for n in (1, 2))
    await asyncio.sleep(0.01)
    cancelled.cancel()
    await asyncio.sleep(0.01)
    commits.gate.set()
    await asyncio.gather(first, last)
    assert commits.batches == [[prepared(0).id], [prepared(2).id]]


async def test_closing_finishes_what_is_queued_and_refuses_the_rest() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    queued = [asyncio.create_task(sequencer.submit([prepared(n)])) for n in range(3)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(sequencer.close())
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="closed"):
        await sequencer.submit([prepared(9)])
    commits.gate.set()
    await closing
    assert [len(answer) for answer in await asyncio.gather(*queued)] == [1, 1, 1]


async def test_a_full_batch_that_waits_is_prepared_during_the_commit_and_sent_before_its_callers_are_answered() -> None:
    order: list[str] = []
    commits = Commits()
    commits.gate.clear()

    async def commit(calls: list[Call], sent: Sent) -> Sequence[list[Receipt] | IdReused]:
        order.append("sent")
        return await commits(calls, sent)

    sequencer = Sequencer(commit, lambda calls: order.append(f"prepared {len(calls)}"))
    calls = [asyncio.create_task(sequencer.submit([prepared(n)])) for n in range(3 * LARGEST_BATCH)]
    for call in calls:
        call.add_done_callback(lambda _: order.append("answered"))
    await asyncio.sleep(0.05)
    assert order == ["sent", f"prepared {LARGEST_BATCH}"]
    commits.gate.set()
    await asyncio.gather(*calls)
    assert order[2] == "sent", order[:4]
    assert order.index("answered") > 2
    assert sequencer.load.queued_entries == sequencer.load.queued_octets == 0
    assert (sequencer.load.batches, sequencer.load.entries) == (3, 3 * LARGEST_BATCH)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of four entries."""
    monkeypatch.setattr(module, "LARGEST_QUEUE", 4)


async def append(sequencer: Sequencer, number: int) -> list[Receipt]:
    """As the event log does it: a place first, then the encoding."""
    await sequencer.place()
    return await sequencer.submit([prepared(number)])


@pytest.mark.usefixtures("small")
async def test_a_full_queue_lets_callers_wait_outside_and_in_one_after_another() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(append(sequencer, n)) for n in range(50)]
    await asyncio.sleep(0.05)
    assert (sequencer.load.queued_entries, sequencer.load.outside) == (4, 46)
    commits.gate.set()
    await asyncio.gather(*calls)
    assert [one for batch in commits.batches for one in batch] == [prepared(n).id for n in range(50)], "first come"
    assert (sequencer.load.queued_entries, sequencer.load.outside) == (0, 0)


@pytest.mark.usefixtures("small")
async def test_a_caller_that_gives_up_outside_keeps_nobody_from_coming_in() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(append(sequencer, n)) for n in range(10)]
    await asyncio.sleep(0.05)
    for number in (4, 5, 7):
        calls[number].cancel()
    await asyncio.sleep(0.05)
    commits.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(one for batch in commits.batches for one in batch) == [
        prepared(n).id for n in range(10) if n not in {4, 5, 7}
    ]
    assert (sequencer.load.queued_entries, sequencer.load.outside) == (0, 0)


@pytest.mark.usefixtures("small")
async def test_patience_ends_for_those_outside_and_for_those_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.2)
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(append(sequencer, 0))]
    await asyncio.sleep(0.05)
    calls += [asyncio.create_task(append(sequencer, n)) for n in range(1, 10)]
    await asyncio.sleep(0.5)
    refused = [call for call in calls if call.done()]
    assert len(refused) == 6, "those outside are told at once"
    commits.gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert commits.batches == [[prepared(0).id]], "what waited too long is not sent any more"
    for outcome in outcomes[1:]:
        assert isinstance(outcome, Unavailable)
        assert "Nothing was appended" in str(outcome)
    assert sequencer.load.refused == 9
    assert (sequencer.load.queued_entries, sequencer.load.outside) == (0, 0)


@pytest.mark.usefixtures("small")
async def test_closing_refuses_who_waits_outside_and_finishes_the_queue() -> None:
    commits = Commits()
    commits.gate.clear()
    sequencer = Sequencer(commits)
    calls = [asyncio.create_task(append(sequencer, n)) for n in range(6)]
    await asyncio.sleep(0.05)
    closing = asyncio.create_task(sequencer.close())
    await asyncio.sleep(0.05)
    commits.gate.set()
    await closing
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False] * 4 + [True] * 2


@pytest.mark.usefixtures("small")
async def test_a_call_larger_than_the_queue_is_taken_alone() -> None:
    commits = Commits()
    sequencer = Sequencer(commits)
    await sequencer.place()
    assert len(await sequencer.submit([prepared(n) for n in range(9)])) == 9
