"""The watcher's mailbox: from kopf's thread to the loop that works, bounded by objects."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.operator.objects import make

from triplane.adapters.clock import SystemClock
from triplane.operator import handlers
from triplane.operator.handlers import HANDED_OVER_AT_ONCE, Watcher, watch_settings


class Delivered:
    """A watcher whose thread is the test's, and what reached the loop."""

    def __init__(self) -> None:
        self.events: list[tuple[str | None, str, str]] = []
        self.watcher = Watcher(None, None, self._take, SystemClock())
        self.watcher._main = asyncio.get_running_loop()

    def _take(self, event: str | None, obj: Mapping[str, Any]) -> None:
        self.events.append((event, obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))

    def from_the_thread(self, *posts: tuple[str | None, dict[str, Any]]) -> None:
        """Posted while the loop is busy: it waits for the thread."""

        def post() -> None:
            for event, obj in posts:
                self.watcher._post(event, obj)

        thread = threading.Thread(target=post)
        thread.start()
        thread.join()


async def test_a_busy_loop_finds_the_newest_event_of_each_object() -> None:
    it = Delivered()
    it.from_the_thread(
        ("ADDED", make("Task", "a", rv=1)),
        ("ADDED", make("Task", "b", rv=2)),
        *(("MODIFIED", make("Task", "a", rv=number)) for number in range(3, 1000)),
    )
    assert len(it.watcher._mail) == 2
    await asyncio.sleep(0.01)
    assert sorted(it.events) == [("ADDED", "b", "2"), ("MODIFIED", "a", "999")]
    it.from_the_thread(("MODIFIED", make("Task", "a", rv=1000)))
    await asyncio.sleep(0.01)
    assert it.events[-1] == ("MODIFIED", "a", "1000")


async def test_an_end_is_never_replaced() -> None:
    it = Delivered()
    it.from_the_thread(
        ("ADDED", make("Task", "a", rv=1)), ("DELETED", make("Task", "a", rv=5)), (None, make("Task", "a", rv=4))
    )
    await asyncio.sleep(0.01)
    assert it.events == [("DELETED", "a", "5")]


async def test_thousands_of_events_leave_the_loop_time_for_other_work() -> None:
    it = Delivered()
    it.from_the_thread(*((None, make("Task", f"t-{number}", rv=1)) for number in range(5 * HANDED_OVER_AT_ONCE)))
    seen = []
    while len(it.events) < 5 * HANDED_OVER_AT_ONCE:
        seen.append(len(it.events))
        await asyncio.sleep(0)
    assert len(seen) >= 5
    assert len({name for _, name, _ in it.events}) == 5 * HANDED_OVER_AT_ONCE


def test_a_silent_watch_is_opened_again_within_75_seconds() -> None:
    settings = watch_settings()
    assert settings.watching.inactivity_timeout is not None
    longest = settings.watching.inactivity_timeout + settings.watching.reconnect_backoff
    assert 60 < longest <= 75, "longer than the minute between bookmarks"
    assert settings.watching.connect_timeout is not None
    assert longest + settings.watching.connect_timeout <= 75.1


async def test_watches_that_fail_are_begun_again_though_kopf_still_waits_for_its_stop_flag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits in a thread of the loop's executor, and asyncio.run does not return before that thread does."""
    begun: list[threading.Event] = []

    async def fail(*, stop_flag: threading.Event, **_: Any) -> None:
        begun.append(stop_flag)
        asyncio.get_running_loop().run_in_executor(None, stop_flag.wait)
        raise RuntimeError("Error in the watch-stream: code 500")

    monkeypatch.setattr(handlers.kopf, "operator", fail)
    watcher = Watcher(None, None, lambda event, obj: None, SystemClock())
    watcher.start()
    async with asyncio.timeout(10):
        while len(begun) < 3:
            await asyncio.sleep(0.05)
    await watcher.stop()
    assert all(flag.is_set() for flag in begun)
