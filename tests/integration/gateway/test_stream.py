"""The stream of the log over HTTP: nothing is lost, whoever reads slowly, late, or again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.contract.test_event_log import body
from tests.integration.gateway.fake_apiserver import ALICE, BOB, FakeApiServer
from tests.integration.gateway.world import World, running

from triplane.audit.model import EventFilter, Recorded
from triplane.cli.gateway import Gateway as Client
from triplane.cli.log_tail import followed
from triplane.errors import Archived
from triplane.gateway import stream, tail
from triplane.wiring import GatewayBackends

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def rights(apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "get", "graphs")
    apiserver.grant("bob", "get", "graphs", "team")


class Reader:
    """Reads Server-Sent Events as a browser does: keeps the last id."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()
        self.last_id = ""

    async def event(self) -> dict[str, Any]:
        """The next event with data."""
        data = ""
        async for line in self._lines:
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
            elif not line and data:
                return dict(orjson.loads(data))
        raise EOFError


@asynccontextmanager
async def following(
    world: World, query: str = "", token: str = ALICE, last: str | None = None
) -> AsyncIterator[Reader]:
    headers = {**EVENTS, "Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
    async with (
        asyncio.timeout(60),
        world.client.stream("GET", f"{world.url}/v1/log/stream{query}", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Reader(answer)


async def append(world: World, first: int, count: int, **changes: Any) -> None:
    await world.backends.log.append([body(n, **changes) for n in range(first, first + count)])


async def test_events_carry_their_number_and_all_that_is_needed_to_check_them(world: World) -> None:
    await append(world, 0, 3)
    async with following(world) as reader:
        found = [await reader.event() for _ in range(5)]
        await append(world, 10, 1)
        found.append(await reader.event())
    assert [item["seq"] for item in found] == list(range(6))
    assert reader.last_id == "5"
    assert found[-1]["entry"]["id"] == body(10).id


async def test_readers_of_concurrent_writers_miss_nothing_and_get_nothing_twice(world: World) -> None:
    async def read(after: int, count: int) -> list[int]:
        async with following(world, f"?after={after}") as reader:
            return [(await reader.event())["seq"] for _ in range(count)]

    readers = [asyncio.create_task(read(after, 301 - after)) for after in (-1, 0, 1, 1, 1)]
    for first in range(0, 300, 10):
        await append(world, first, 10)
        await asyncio.sleep(0)
    for after, found in zip((-1, 0, 1, 1, 1), await asyncio.gather(*readers), strict=True):
        assert found == list(range(after + 1, 302))


async def test_a_reader_resumes_behind_what_it_saw_though_the_gateway_began_anew(
    memory: GatewayBackends, apiserver: FakeApiServer, tmp_path: Path
) -> None:
    async with running(memory, tmp_path, kubeconfig=apiserver.kubeconfig) as first:
        await append(first, 0, 5)
        async with following(first) as reader:
            for _ in range(4):
                await reader.event()
    await memory.log.append([body(n) for n in range(5, 8)])
    async with (
        running(memory, tmp_path, kubeconfig=apiserver.kubeconfig) as second,
        following(second, "?after=0", last=reader.last_id) as again,
    ):
        found = [(await again.event())["seq"] for _ in range(6)]
    assert found == list(range(4, 10))


@pytest.mark.parametrize("last", ["-1", "x", "1e3", "9" * 20])
async def test_a_last_event_id_that_is_no_number_is_400(world: World, last: str) -> None:
    answer = await world.client.get(
        f"{world.url}/v1/log/stream", headers={**EVENTS, "Authorization": f"Bearer {ALICE}", "Last-Event-ID": last}
    )
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "Malformed")


async def test_what_does_not_match_is_passed_and_its_number_sent_in_the_silence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    await append(world, 0, 20)
    headers = {**EVENTS, "Authorization": f"Bearer {ALICE}"}
    url = f"{world.url}/v1/log/stream?kind=Graph&type=resource.observed,resource.gone"
    async with asyncio.timeout(60), world.client.stream("GET", url, headers=headers) as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != "id: 21":
            pass
        await append(world, 20, 1)
        await append(world, 30, 1, kind="Graph")
        while not (line := await anext(lines)).startswith("data: "):
            pass
    assert orjson.loads(line.removeprefix("data: "))["seq"] == 23


async def test_a_reader_far_behind_is_served_from_the_store(world: World) -> None:
    world.gateway.tail._most = (4, 1 << 20)
    async with following(world) as ahead, following(world) as behind:
        await ahead.event()
        for first in range(0, 200, 20):
            await append(world, first, 20)
        assert [(await ahead.event())["seq"] for _ in range(201)] == list(range(1, 202))
        assert [(await behind.event())["seq"] for _ in range(202)] == list(range(202))


async def test_a_reader_that_stops_reading_harms_nobody_and_is_let_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SEND_SECONDS", 1.0)
    big = {"text": "x" * 15_000}
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = world.url.removeprefix("http://").split(":")
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, (host, int(port)))
        asked = ("GET /v1/log/stream HTTP/1.1", "Host: x", f"Authorization: Bearer {ALICE}", f"Accept: {stream.EVENTS}")
        await loop.sock_sendall(deaf, "\r\n".join([*asked, "", ""]).encode())
        async with following(world) as reader:
            await reader.event()
            async with asyncio.timeout(60):
                while world.gateway.streams.of["alice"] < 2:
                    await asyncio.sleep(0.01)
            seen = 1
            for first in range(0, 600, 20):  # some 12 MiB: more than all buffers between hold
                await append(world, first, 20, data=big)
                for _ in range(20):
                    assert (await reader.event())["seq"] == seen
                    seen += 1
            async with asyncio.timeout(60):
                while world.gateway.streams.of["alice"] > 1:
                    await asyncio.sleep(0.05)
            await append(world, 9000, 1)
            while seen < 602:
                seen = (await reader.event())["seq"]
    async with asyncio.timeout(60):
        while world.gateway.streams.of:
            await asyncio.sleep(0.05)


async def test_there_are_only_so_many_streams_and_an_ended_one_makes_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "MOST_EACH", 2)
    headers = {**EVENTS, "Authorization": f"Bearer {ALICE}"}
    async with following(world) as first:
        await first.event()
        async with following(world) as second:
            await second.event()
            refused = await world.client.get(f"{world.url}/v1/log/stream", headers=headers)
            assert (refused.status_code, refused.json()["error"]["reason"]) == (429, "TooManyStreams")
            async with following(world, "?namespace=team", token=BOB):
                pass
    async with asyncio.timeout(60):
        while world.gateway.streams.of:
            await asyncio.sleep(0.01)
    assert world.gateway.tail._task is None
    async with following(world) as again:
        assert (await again.event())["seq"] == 0


async def test_who_may_read_one_namespace_streams_that_and_no_other(world: World) -> None:
    headers = {**EVENTS, "Authorization": f"Bearer {BOB}"}
    for query in ("", "?namespace=demo", "?kind=Task"):
        answer = await world.client.get(f"{world.url}/v1/log/stream{query}", headers=headers)
        assert answer.status_code == 403, query
    await append(world, 0, 3)
    await world.started()
    async with following(world, "?namespace=team", token=BOB) as reader:
        found = await reader.event()
    assert found["entry"]["subject"]["namespace"] == "team"


async def test_a_stream_ends_when_the_right_to_it_is_taken_away(
    memory: GatewayBackends, apiserver: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ALLOWED_SECONDS", 0.0)
    async with (
        running(memory, tmp_path, kubeconfig=apiserver.kubeconfig, people_cache_seconds=0.0) as world,
        following(world) as reader,
    ):
        await reader.event()
        await reader.event()
        apiserver.rights.clear()
        await append(world, 0, 1)
        with pytest.raises(EOFError):
            while True:
                await reader.event()


@pytest.mark.parametrize("headers", [{}, EVENTS], ids=["NDJSON", "events"])
@pytest.mark.parametrize("where", ["after", "last-event-id"])
async def test_a_reader_that_has_seen_more_than_there_is_is_refused(
    world: World, headers: dict[str, str], where: str
) -> None:
    await append(world, 0, 3)
    asked = {**headers, **({"Last-Event-ID": "5"} if where == "last-event-id" else {})}
    query = "?after=5" if where == "after" else ""
    answer = await world.client.get(
        f"{world.url}/v1/log/stream{query}", headers={**asked, "Authorization": f"Bearer {ALICE}"}
    )
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "RolledBack")
    assert "you have seen 6 entries, the log" in answer.json()["error"]["message"]
    assert "has 5" in answer.json()["error"]["message"]
    async with following(world, "?after=4") as reader:  # all there is, and no more
        await append(world, 3, 1)
        assert (await reader.event())["seq"] == 5


async def test_a_log_that_is_rolled_back_under_its_readers_is_told_to_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.05)
    await append(world, 0, 5)
    async with following(world) as reader:
        for _ in range(7):
            await reader.event()
        del world.backends.log.shared.rows[4:]  # type: ignore[attr-defined]
        said = await reader.event()
        assert said["error"]["reason"] == "RolledBack"
        with pytest.raises(EOFError):
            await reader.event()


async def test_what_ends_a_stream_is_its_last_line_and_the_commands_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(world, 0, 200)
    log = world.backends.log
    query = log.query

    async def overtaken(where: EventFilter = EventFilter(), *, after: int = -1, **options: Any) -> list[Recorded]:
        if after >= stream.PAGE - 1:
            raise Archived("entries 0 to 127 are archived at /archive", upto=128)
        return await query(where, after=after, **options)

    monkeypatch.setattr(log, "query", overtaken)
    monkeypatch.setattr(world.gateway.tail, "since", lambda _after: None)

    def read(*, events: bool) -> list[int]:
        found: list[int] = []
        with Client(world.url, ALICE) as opened:
            items = followed(opened, {}, -1) if events else opened.lines("/v1/log/stream")
            with pytest.raises(Archived, match="archived at /archive") as ended:
                found.extend(item["seq"] for item in items)
        assert ended.value.upto == 128
        return found

    for events in (True, False):
        assert await asyncio.to_thread(read, events=events) == list(range(stream.PAGE))


async def test_the_command_line_follows_from_the_last_entry_it_saw(world: World) -> None:
    await append(world, 0, 5)

    def read(after: int, count: int) -> list[int]:
        with Client(world.url, ALICE) as opened:
            return [item["seq"] for item in islice(followed(opened, {"kind": "Task"}, after), count)]

    assert await asyncio.to_thread(read, -1, 5) == [2, 3, 4, 5, 6]
    reading = asyncio.create_task(asyncio.to_thread(read, 5, 3))
    await append(world, 5, 2)
    assert await reading == [6, 7, 8]
