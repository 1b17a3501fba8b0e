"""The meter of one run."""

import asyncio

import pytest

from triplane.domain.session import Usage
from triplane.session.budget import Meter


@pytest.mark.parametrize(
    ("budget", "usage", "axis"),
    [
        pytest.param({"tokens": 10}, Usage(6, 4, 0), None, id="exactly the tokens"),
        pytest.param({"tokens": 10}, Usage(6, 5, 0), "budget.tokens", id="one token more"),
        pytest.param({"costMinorUnits": 3}, Usage(0, 0, 3), None, id="exactly the cost"),
        pytest.param({"costMinorUnits": 3}, Usage(9, 9, 4), "budget.costMinorUnits", id="one unit more"),
        pytest.param({"costMinorUnits": 0}, Usage(), None, id="nothing of nothing"),
        pytest.param({"tokens": None}, Usage(10**9, 0, 0), None, id="an amount that is null"),
        pytest.param({}, Usage(10**9, 10**9, 10**9), None, id="no limit"),
        pytest.param(None, Usage(10**9, 0, 0), None, id="no budget"),
    ],
)
async def test_what_is_left_may_be_used_and_no_more(budget: dict[str, int], usage: Usage, axis: str | None) -> None:
    meter = Meter(budget)
    meter.start()
    meter.reported(usage)
    spent = meter.overspent()
    assert (spent.axis if spent is not None else None) == axis


async def test_calls_of_tools_come_on_top_of_what_the_harness_says() -> None:
    meter = Meter({"costMinorUnits": 10})
    meter.charge(4)
    meter.reported(Usage(0, 0, 5))
    assert meter.usage == Usage(0, 0, 9)
    assert meter.left_of_cost() == 1
    meter.charge(2)
    assert meter.left_of_cost() == 0
    assert meter.overspent() is not None
    assert Meter().left_of_cost() is None


async def test_a_program_that_is_started_again_counts_from_nothing_on_top() -> None:
    meter = Meter({"tokens": 10})
    for used in (6, 5):
        meter.start()
        meter.reported(Usage(used, 0, 1))
        meter.charge(2)
    assert meter.usage == Usage(11, 0, 6)
    assert meter.overspent() is not None


async def test_waiting_ends_when_an_amount_is_spent() -> None:
    meter = Meter({"tokens": 10, "wallClockSeconds": 60})
    meter.start()
    waiting = asyncio.create_task(meter.until_spent())
    await asyncio.sleep(0)
    meter.reported(Usage(5, 0, 0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    meter.reported(Usage(5, 6, 0))
    async with asyncio.timeout(2):
        spent = await waiting
    assert (spent.axis, spent.limit, spent.used) == ("budget.tokens", 10, 11)
    assert "budget.tokens is spent: 11 used, 10 were left to this run" in str(spent)


async def test_time_is_over_when_it_is_reached_and_a_second_start_goes_on() -> None:
    meter = Meter({"wallClockSeconds": 1})
    assert meter.spent() is None, "it has not begun"
    meter.start()
    await asyncio.sleep(0.5)
    meter.start()
    async with asyncio.timeout(0.8):
        spent = await meter.until_spent()
    assert (spent.axis, spent.limit) == ("budget.wallClockSeconds", 1)
