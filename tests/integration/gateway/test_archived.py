"""The gateway, and the commands that ask it, once the oldest entries were archived."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from tests.conftest import Database
from tests.contract.test_event_log import body
from tests.integration.archiveworld import World as ArchiveWorld
from tests.integration.archiveworld import archiving
from tests.integration.gateway.fake_apiserver import ALICE, FakeApiServer
from tests.integration.gateway.test_stream import EVENTS, following
from tests.integration.gateway.world import World, running
from tests.unit.audit.notary import LOG
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.people import to_end
from tests.unit.controllers.people import world as work
from typer.testing import CliRunner

from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.entry import body_of, parse
from triplane.audit.layout import CHECKPOINT
from triplane.audit.model import EventFilter, Recorded
from triplane.audit.tlogproof import verify_bundle
from triplane.cli.bundle import read_bundle_folder
from triplane.cli.gateway import Gateway as Client
from triplane.cli.log_tail import followed
from triplane.cli.main import app, exit_code
from triplane.errors import Archived, Conflict, Corrupt, NotFound
from triplane.gateway.moments import sequence
from triplane.wiring import GatewayBackends

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def worked() -> MemoryWorld:
    made = work()
    await to_end(made)
    return made


@pytest.fixture
async def archived(worked: MemoryWorld, database: Database, tmp_path: Path) -> AsyncIterator[ArchiveWorld]:
    """An accepted artifact and 600 more entries, of which the first 256 are archived, and the artifact with them."""
    async with archiving(database, tmp_path / "archive") as made:
        await made.log.append([body_of(item.entry) for item in await worked.log.query(after=1)])
        await made.log.append([body(n) for n in range(1000, 1600)])
        await made.sign()
        await made.archive(before=300)
        yield made


@pytest.fixture
async def world(
    memory: GatewayBackends, worked: MemoryWorld, archived: ArchiveWorld, apiserver: FakeApiServer, tmp_path: Path
) -> AsyncIterator[World]:
    for verb, resource in (("get", "graphs"), ("list", "tasks"), ("get", "artifacts"), ("list", "artifacts")):
        apiserver.grant("alice", verb, resource)
    backends = replace(
        memory,
        log=archived.log,
        checkpoints=archived.checkpoints,
        graph=worked.graph,
        content=worked.content,
        sessions=worked.sessions,
    )
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


@pytest.fixture
def run(world: World, apiserver: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command, as alice."""
    monkeypatch.setenv("TRIPLANE_GATEWAY_URL", world.url)
    monkeypatch.setenv("TRIPLANE_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("COLUMNS", "200")
    own = tmp_path / "alice.kubeconfig"
    own.write_text(apiserver.kubeconfig.read_text().replace(apiserver.own, ALICE))

    async def invoke(*arguments: object) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [*map(str, arguments), "--kubeconfig", str(own)])

    return invoke


async def artifact_of(worked: MemoryWorld) -> Recorded:
    (found,) = await worked.log.query(EventFilter(types=frozenset({"artifact.recorded"})))
    return found


async def test_an_artifact_whose_entries_are_archived_is_not_refuted(run: Run, worked: MemoryWorld) -> None:
    artifact = await artifact_of(worked)
    for command in ("verify", "show"):
        done = await run("attest", command, "-n", NAMESPACE, artifact.entry["subject"]["name"])
        assert isinstance(done.exception, Archived), done.output
        assert exit_code(done.exception) == 2
        assert "nothing is found out about artifact" in str(done.exception)
        assert "entries 0 to 255 of " in str(done.exception)


async def test_an_archived_entry_is_proven_with_its_archive(run: Run, archived: ArchiveWorld, tmp_path: Path) -> None:
    file = tmp_path / "proof"
    refused = await run("proof", "entry", "41", "-o", file)
    assert isinstance(refused.exception, Archived)
    assert "their folder with --archive" in str(refused.exception)
    for seq in (41, 300):  # archived, and not
        done = await run("proof", "entry", seq, "-o", file, "--archive", archived.folder)
        assert done.exit_code == 0, done.exception
        assert verify_bundle(file.read_bytes(), archived.trust).index == seq
    assert (await run("proof", "entry", "0", "-o", file)).exit_code == 0, "it stays"
    elsewhere = await run("proof", "entry", "41", "-o", file, "--archive", archived.folder, "-n", "elsewhere")
    assert isinstance(elsewhere.exception, NotFound)
    bundle = next(path for path in (archived.folder / "tile" / "entries").rglob("000"))
    bundle.write_bytes(bundle.read_bytes().replace(b'"v":1}', b'"v":2}'))
    altered = await run("proof", "entry", "41", "-o", file, "--archive", archived.folder)
    assert isinstance(altered.exception, Corrupt)
    assert "entry 41 of the archive is not what was logged" in str(altered.exception)


async def test_an_archived_artifact_is_proven_with_its_archive(
    run: Run, worked: MemoryWorld, archived: ArchiveWorld, tmp_path: Path
) -> None:
    artifact = await artifact_of(worked)
    asked = ("proof", "artifact", "-n", NAMESPACE, artifact.entry["subject"]["name"], "-o")
    assert isinstance((await run(*asked, tmp_path / "none")).exception, Archived)
    done = await run(*asked, tmp_path / "shown", "--archive", archived.folder)
    assert done.exit_code == 0, done.exception
    shown = read_bundle_folder(tmp_path / "shown")
    types = {parse(octets)["type"] for octets in shown.evidence.entries.values()}
    assert types >= {"artifact.recorded", "attestation.recorded", "task.accepted", "review.recorded", "key.created"}
    proofs = sorted((tmp_path / "shown" / "proofs").iterdir())
    proven = {verify_bundle(path.read_bytes(), archived.trust).index for path in proofs}
    assert proven == set(shown.evidence.entries)
    assert max(proven) < 256
    (archived.folder / CHECKPOINT).write_bytes(await older(archived))
    short = await run(*asked, tmp_path / "short", "--archive", archived.folder)
    assert isinstance(short.exception, Conflict)
    assert "holds 200 entries, but 256 are archived" in str(short.exception)


async def older(archived: ArchiveWorld) -> bytes:
    """The checkpoint of an archive that is not the whole of it."""
    return sign_checkpoint(Checkpoint(archived.log.origin, 200, b"r" * 32), archived.log.origin, [LOG])
