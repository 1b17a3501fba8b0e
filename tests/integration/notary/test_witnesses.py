"""The notary's client against the witness of ``triplane witness serve``, served on a socket, and against bad ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.unit.controllers.notary_world import NotaryWorld

from triplane.adapters.http.witness import HttpWitness, open_witnesses
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.notary import MemoryAnchor, MemoryLedger
from triplane.adapters.sqlite.witnessrecord import WitnessRecord
from triplane.audit.checkpoint import CheckpointTrust, verify_checkpoint
from triplane.audit.notekey import KeyRing, KeyType, VerifierKey
from triplane.domain.notary import BACKOFF_SECONDS
from triplane.errors import InvalidInput, Unavailable
from triplane.localcluster.ports import free_port
from triplane.witness.app import Witness, create_app
from triplane.witness.folder import KnownLogs, make

Answer = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """The app on a free port of this machine."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off"))
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def witnessed(world: NotaryWorld, folder: Path, name: str = "witness.example/1") -> AsyncIterator[HttpWitness]:
    """A witness that knows this log."""
    made = make(folder, name)
    (key,) = world.record.known(world.log.origin).trust().log.keys
    with (folder / "logs").open("a") as logs:
        logs.write(f"{world.log.origin} {key}\n")
    record = WitnessRecord(folder)
    witness = Witness(made, KnownLogs(folder), record, folder / "evidence")
    async with serving(create_app(witness)) as url:
        client = HttpWitness(made.key, url)
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture
async def world() -> NotaryWorld:
    made = NotaryWorld.in_memory()
    await made.grow(20)
    return made


def trust(world: NotaryWorld, *keys: VerifierKey) -> CheckpointTrust:
    """That of a reader who wants all of these witnesses."""
    log = world.record.known(world.log.origin).trust().log
    return CheckpointTrust(world.log.origin, log, KeyRing(keys), len(keys))


async def test_cosignatures_are_published_and_anchored_with_the_checkpoint(world: NotaryWorld, tmp_path: Path) -> None:
    async with witnessed(world, tmp_path / "a") as one, witnessed(world, tmp_path / "b", "witness.example/2") as two:
        world.witnesses = [one, two]
        notary = await world.begun()
        for size in (20, 300, 301):
            await world.grow(size)
            await world.signed(notary)
            note = await world.store.latest()
            signed = verify_checkpoint(note or b"", trust(world, one.key, two.key))
            assert signed.checkpoint.size == size
            assert notary.distribution.cosignatures == 2
        (anchor,) = world.anchors
        assert isinstance(anchor, MemoryAnchor)
        assert anchor.note == note


async def test_a_restarted_notary_asks_from_where_the_witness_stands(world: NotaryWorld, tmp_path: Path) -> None:
    async with witnessed(world, tmp_path / "a") as witness:
        world.witnesses = [witness]
        await world.signed()
        await world.grow(25)
        await world.signed()  # a new notary begins from nothing, and is told 20
        note = await world.store.latest()
        assert verify_checkpoint(note or b"", trust(world, witness.key)).checkpoint.size == 25


async def test_a_witness_that_is_down_blocks_nothing_and_gets_the_newest_when_it_is_back(
    world: NotaryWorld, tmp_path: Path
) -> None:
    async with witnessed(world, tmp_path / "a") as witness:
        down = HttpWitness(witness.key, f"http://127.0.0.1:{free_port()}")
        world.witnesses = [down]
        notary = await world.begun()
        assert (await world.signed(notary)).size == 20
        (place,) = notary.distribution.witnessed
        assert "does not answer" in place.problem
        await world.grow(25)
        assert (await world.signed(notary)).size == 25
        assert place.failures == 1, "it is not asked again at once"
        world.clock.seconds += BACKOFF_SECONDS[0] + 1
        down._url = witness._url
        await notary.distribution.deliver()
        assert (place.problem, place.delivery.size) == ("", 25)
        await down.close()


async def test_a_witness_that_does_not_know_the_log_is_told_apart_from_one_that_is_down(
    world: NotaryWorld, tmp_path: Path
) -> None:
    async with witnessed(NotaryWorld.in_memory(), tmp_path / "a") as witness:
        world.witnesses = [witness]
        notary = await world.begun()
        await world.signed(notary)
        assert notary.distribution.witnessed[0].problem.startswith("it answers 404: no such log is witnessed here")


async def test_a_witness_refuses_a_forked_log_and_the_notary_says_so(world: NotaryWorld, tmp_path: Path) -> None:
    async with witnessed(world, tmp_path / "a") as witness:
        world.witnesses = [witness]
        await world.signed()
        fork = MemoryLog(world.log.origin)
        world.log, world.store, world.ledger = MemoryEventLog(fork), MemoryCheckpointStore(fork), MemoryLedger()
        world.anchors = []
        await world.grow(30)
        notary = await world.begun()
        await world.signed(notary)
        assert notary.distribution.witnessed[0].problem.startswith("it answers 422: consistency proof")
        assert notary.distribution.cosignatures == 0


async def test_a_witness_that_has_seen_more_says_that_the_log_was_rolled_back(
    world: NotaryWorld, tmp_path: Path
) -> None:
    async with witnessed(world, tmp_path / "a") as witness:
        world.witnesses = [witness]
        await world.signed()
        assert isinstance(world.log, MemoryEventLog)
        short = MemoryLog(world.log.origin, world.log.shared.rows[:15])
        world.log, world.store, world.ledger = MemoryEventLog(short), MemoryCheckpointStore(short), MemoryLedger()
        world.anchors = []
        notary = await world.begun()
        await world.signed(notary)
        assert "it has cosigned 20 entries, the log has 15" in notary.distribution.witnessed[0].problem


def answers(status: int, body: bytes) -> Starlette:
    async def answer(request: Request) -> Response:
        await request.body()
        return Response(body, status)

    return Starlette(routes=[Route("/add-checkpoint", answer, methods=["POST"])])


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        pytest.param(200, b"no signature\n", "is no signature", id="200 without a signature"),
        pytest.param(200, b"", "signature line", id="200 with nothing"),
        pytest.param(
            200, "— other.example/w aaaabbbbccccddddeeee\n".encode(), "no cosignature by a known key", id="another's"
        ),
        pytest.param(409, b"twenty\n", "which is no size", id="409 without a size"),
        pytest.param(409, b"0\n", "another size", id="409 for ever"),
        pytest.param(403, b"unknown key", "answers 403: unknown key", id="403"),
        pytest.param(503, b"later", "answers 503: later", id="503"),
        pytest.param(302, b"", "answers 302", id="a redirect"),
        pytest.param(200, b"x" * 100_000, "over 65536 octets", id="an endless answer"),
    ],
)
async def test_a_witness_that_answers_nonsense_harms_nothing(
    world: NotaryWorld, status: int, body: bytes, said: str
) -> None:
    key = VerifierKey("witness.example/x", KeyType.COSIGNATURE_V1, bytes(range(32)))
    async with serving(answers(status, body)) as url:
        witness = HttpWitness(key, url)
        world.witnesses = [witness]
        notary = await world.begun()
        await world.signed(notary)
        await witness.close()
    assert said in notary.distribution.witnessed[0].problem
    assert (await world.published()).size == 20


async def test_a_witness_out_of_reach_is_unavailable() -> None:
    witness = HttpWitness(VerifierKey("w", KeyType.COSIGNATURE_V1, bytes(32)), f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        await witness.add_checkpoint(0, (), b"")
    await witness.close()


KEY = VerifierKey("witness.example/x", KeyType.COSIGNATURE_V1, bytes(range(32)))
OTHER = VerifierKey("witness.example/y", KeyType.COSIGNATURE_V1, bytes(range(1, 33)))


def test_the_setting_names_key_and_url_of_each() -> None:
    one, two = open_witnesses(f"{KEY}=https://one.example/path?a=b {OTHER}=http://127.0.0.1:80")
    assert (one.key, two.key) == (KEY, OTHER)
    assert open_witnesses("") == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param("https://one.example", "is no witness: write", id="no key"),
        pytest.param(f"{KEY}", "is no witness: write", id="no URL"),
        pytest.param(f"{KEY}=http://one.example", r"must be https://", id="http over a network"),
        pytest.param(f"{KEY}=https://me:secret@one.example", "no user", id="a password in the URL"),
        pytest.param(f"x{KEY}=https://one.example", "altered or renamed", id="a renamed key"),
        pytest.param(
            f"{VerifierKey('w', KeyType.ED25519, bytes(32))}=https://one.example", "must be 0x04", id="a log's key"
        ),
        pytest.param(f"{KEY}=https://one.example {KEY}=https://two.example", "one witness twice", id="one twice"),
    ],
)
def test_what_is_no_witness_is_refused_with_the_reason(setting: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_witnesses(setting)
