"""Workers that check outputs are kept from one run to the next, and never carry anything over."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.domain.runresult import DeclaredOutput, Uploaded
from triplane.gateway import contracts
from triplane.gateway.contracts import ContractChecks, ContractWorkers

NUMBER = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
ENDLESS = {"type": "string", "pattern": "^(a+)+$"}


class Runs:
    """Each call is a run of its own that checks one output."""

    def __init__(self, workers: ContractWorkers) -> None:
        self.workers = workers
        self.content = MemoryContentStore()

    async def check(self, octets: bytes, schema: dict[str, object], seconds: float = 30.0) -> Uploaded:
        digest = await self.content.store(octets)
        declared = DeclaredOutput("data", path="data.json", media_type="application/json", schema=schema)
        async with ContractChecks(self.content, seconds, self.workers) as checks:
            return await checks.check(declared, digest)

    @property
    def kept(self) -> list[int]:
        """Process ids of the workers that wait."""
        return [worker.process.pid for worker in self.workers._idle]


@pytest.fixture
async def runs() -> AsyncIterator[Runs]:
    workers = ContractWorkers()
    yield Runs(workers)
    await workers.close()


async def test_one_worker_serves_run_after_run(runs: Runs) -> None:
    assert (await runs.check(b'{"total":7}', NUMBER)).problem is None
    first = runs.kept
    assert "total" in str((await runs.check(b'{"total":"7"}', NUMBER)).problem)
    assert (await runs.check(b'{"total":8}', NUMBER)).problem is None
    assert runs.kept == first
    assert len(first) == 1


async def test_runs_at_once_never_share_a_worker(runs: Runs) -> None:
    found = await asyncio.gather(*(runs.check(b'{"total":%d}' % n, NUMBER) for n in range(4)))
    assert [item.problem for item in found] == [None] * 4
    assert len(set(runs.kept)) == contracts._KEPT


async def test_a_worker_that_was_killed_for_its_time_is_not_kept(runs: Runs) -> None:
    await runs.check(b'{"total":7}', NUMBER)
    first = runs.kept
    slow = await runs.check(b'"' + b"a" * 64 + b'!"', ENDLESS, seconds=1.0)
    assert "more than 1 s" in str(slow.problem)
    assert runs.kept == []
    assert (await runs.check(b'{"total":7}', NUMBER)).problem is None
    assert runs.kept != first


async def test_a_kept_worker_that_died_meanwhile_blames_no_run(runs: Runs) -> None:
    await runs.check(b'{"total":7}', NUMBER)
    runs.workers._idle[0].process.kill()  # not waited for: it still looks alive when it is taken
    assert (await runs.check(b'{"total":7}', NUMBER)).problem is None


async def test_a_worker_is_replaced_after_its_share_of_checks(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "_CHECKS", 2)
    await runs.check(b'{"total":7}', NUMBER)
    assert len(runs.kept) == 1
    await runs.check(b'{"total":7}', NUMBER)
    assert runs.kept == []


async def test_close_ends_those_that_wait(runs: Runs) -> None:
    await runs.check(b'{"total":7}', NUMBER)
    process = runs.workers._idle[0].process
    await runs.workers.close()
    assert process.returncode is not None
