"""The gateway, and the commands that ask it, once the oldest entries were archived."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.integration.archiveworld import World as ArchiveWorld
from tests.integration.archiveworld import archiving
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer
from tests.integration.gateway.test_stream import EVENTS, following
from tests.integration.gateway.world import World, running

from triplane.cli.gateway import Gateway as Client
from triplane.cli.log_tail import followed
from triplane.cli.main import exit_code
from triplane.errors import Archived
from triplane.gateway.moments import sequence
from triplane.wiring import GatewayBackends


@pytest.fixture
async def archived(database: Database, tmp_path: Path) -> AsyncIterator[ArchiveWorld]:
    """600 entries about Tasks, of which the first 256 are archived."""
    async with archiving(database, tmp_path / "archive") as made:
        await made.log.append([body(n) for n in range(600)])
        await made.sign()
        await made.archive(before=300)
        yield made


@pytest.fixture
async def world(
    memory: GatewayBackends, archived: ArchiveWorld, apiserver: FakeApiServer, tmp_path: Path
) -> AsyncIterator[World]:
    for verb, resource in (("get", "graphs"), ("list", "tasks"), ("get", "artifacts"), ("list", "artifacts")):
        apiserver.grant("alice", verb, resource)
    backends = replace(memory, log=archived.log, checkpoints=archived.checkpoints)
    async with running(backends, tmp_path, kubeconfig=apiserver.kubeconfig) as made:
        yield made


async def test_a_stream_of_what_is_archived_is_refused_before_it_begins(world: World, archived: ArchiveWorld) -> None:
    for query in ("", "?after=5", "?after=5&uid=uid-7", "?after=254"):
        for headers in ({}, EVENTS):
            answer = await world.client.get(
                f"{world.url}/v1/log/stream{query}", headers={**headers, "Authorization": f"Bearer {ALICE}"}
            )
            error = answer.json()["error"]
            assert (answer.status_code, error["reason"], error["upto"]) == (410, "Archived", 256), query
            assert f"archived at {archived.folder}" in error["message"]
    async with following(world, "?after=255") as reader:
        assert (await reader.event())["seq"] == 256
    async with following(world, "?type=origin.created") as reader:  # of a type that stays
        assert (await reader.event())["seq"] == 0

    def read() -> None:
        with Client(world.url, ALICE) as opened:
            next(followed(opened, {}, 5))

    with pytest.raises(Archived, match="here the log begins at entry 256") as refused:
        await asyncio.to_thread(read)
    assert (refused.value.upto, exit_code(refused.value)) == (256, 2)


async def test_a_moment_is_found_before_at_and_behind_the_boundary(world: World, archived: ArchiveWorld) -> None:
    newest = await archived.log.append([body(9000)])
    times = [datetime.fromisoformat(await archived.log.time_at(seq)) for seq in range(newest[0].seq + 1)]
    assert times == sorted(times)
    tick = timedelta(microseconds=1)
    for seq in (0, 1, 255, 256, 300, newest[0].seq):
        last = max(place for place, time in enumerate(times) if time <= times[seq])
        assert await sequence(world.gateway, times[seq].isoformat()) == last
        assert await sequence(world.gateway, (times[seq] - tick).isoformat()) == times.index(times[seq]) - 1
    assert await sequence(world.gateway, "2020-01-01") == -1
    assert await sequence(world.gateway, "2999-01-01") == newest[0].seq
    for moment in ("2020-01-01", "2999-01-01", "41"):
        answer = await world.call("GET", f"/v1/resources?kind=Task&asOf={moment}", ALICE)
        assert answer.status_code == 200, answer.text
