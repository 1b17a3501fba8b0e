"""The content store's upkeep in the gateway: on demand over HTTP and by the commands, by itself, and in numbers."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.contract.session_world import ManualClock
from tests.integration.gateway.fake_apiserver import ALICE, BOB, FakeApiServer
from tests.integration.gateway.world import OPERATOR, RUNNER, World, running, sha256
from typer.testing import CliRunner

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.audit.model import EventFilter
from triplane.cli import blob as commands
from triplane.cli.gateway import Gateway
from triplane.controllers.scrub import scrub as scrub_of
from triplane.domain.scrubbing import Pace
from triplane.errors import Conflict, Fenced
from triplane.wiring import GatewayBackends, quarantine_recorder

CALLS = [("GET", "blobs"), ("GET", "check"), ("POST", "collect"), ("POST", "scrub")]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def old(memory: GatewayBackends, clock: ManualClock) -> GatewayBackends:
    """Backends whose content can be made old."""
    content = MemoryContentStore(on_quarantine=quarantine_recorder(memory.log), clock=clock)
    return replace(memory, content=content)


@pytest.fixture
async def world(old: GatewayBackends, apiserver: FakeApiServer, tmp_path: Path) -> AsyncIterator[World]:
    async with running(old, tmp_path, kubeconfig=apiserver.kubeconfig) as made:
        yield made


@pytest.fixture
def triplane(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command, as the operator's service, in a thread: it blocks."""

    @contextmanager
    def opened(kubeconfig: Any, context: Any, namespace: str | None = None) -> Iterator[Gateway]:
        with Gateway(world.url, OPERATOR, namespace or "team") as found:
            yield found

    monkeypatch.setattr(commands, "gateway", opened)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(functools.partial(CliRunner().invoke, commands.app, arguments))

    return run


async def work(world: World, method: str, call: str, token: str = OPERATOR) -> httpx.Response:
    return await world.call(method, f"/v1/content/{call}", token)


@pytest.mark.parametrize(("method", "call"), CALLS, ids=[call for _, call in CALLS])
async def test_only_the_operator_and_admins_may(world: World, apiserver: FakeApiServer, method: str, call: str) -> None:
    apiserver.grant("alice", "delete", "artifacts")
    apiserver.grant("bob", "delete", "artifacts", "team")
    apiserver.grant("bob", "get", "artifacts")
    run = await world.claimed()
    for token in (RUNNER, run.token, BOB):
        assert (await work(world, method, call, token)).status_code == 403, token
    assert (await world.client.request(method, f"{world.url}/v1/content/{call}")).status_code == 401
    for token in (OPERATOR, ALICE):
        answer = await work(world, method, call, token)
        assert answer.status_code == 200
        assert '"result"' in answer.text.splitlines()[-1]


async def test_an_admin_erases_and_others_do_not(world: World, apiserver: FakeApiServer) -> None:
    apiserver.grant("alice", "delete", "artifacts")
    digest = await world.put_in("team", b"content")
    assert (await world.call("DELETE", f"/v1/blobs/{digest}", BOB)).status_code == 403
    assert (await world.call("DELETE", f"/v1/blobs/{digest}", ALICE)).status_code == 200


async def test_what_nothing_names_is_listed_announced_and_collected(
    world: World, clock: ManualClock, triplane: Callable[..., Any]
) -> None:
    kept, waste = await world.put_in("team", b"kept"), await world.backends.content.store(b"waste")
    clock.time += timedelta(days=8)
    young = await world.backends.content.store(b"young")
    listed = await triplane("list")
    assert all(digest in listed.stdout for digest in (kept, waste, young))
    assert "3 blobs of 14 octets" in listed.stderr
    announced = await triplane("collect", "--dry-run")
    assert "3 blobs: 1 young, 1 referenced, 0 held; 1 are named by nothing" in announced.stdout
    assert announced.stdout.splitlines()[-1] == waste
    assert await world.backends.content.exists(waste)
    collected = await triplane("collect")
    assert "1 removed, 5 octets" in collected.stdout
    assert not await world.backends.content.exists(waste)
    assert await world.backends.content.exists(kept)
    assert await world.backends.content.exists(young)


async def test_a_second_collector_is_told_that_there_is_one(world: World, triplane: Callable[..., Any]) -> None:
    async with world.backends.content.lease(60):
        refused = await triplane("collect")
    assert isinstance(refused.exception, Conflict)
    assert "another collector is at work" in str(refused.exception)


async def test_a_scrub_names_everything_that_is_bad(world: World, triplane: Callable[..., Any]) -> None:
    bad = [await world.backends.content.store(bytes([number]) * 9) for number in range(3)]
    await world.backends.content.store(b"good")
    for digest in bad[:2]:
        world.backends.content._blobs[digest] = b"altered"  # type: ignore[attr-defined]
    found = await triplane("scrub")
    assert found.exit_code == 1
    assert "4 blobs of" in found.stdout
    assert all(f"altered, moved to quarantine: {digest}" in found.stdout for digest in bad[:2])
    assert bad[2] not in found.stdout
    assert (await triplane("scrub")).exit_code == 0


async def test_of_a_blob_that_is_not_known_nothing_is_claimed(world: World, triplane: Callable[..., Any]) -> None:
    """An archived entry may name it: `blob check` knows."""
    answer = await world.call("GET", f"/v1/blobs/{sha256(b'unknown')}", OPERATOR)
    assert answer.status_code == 404
    assert "never stored" not in answer.text
    assert "`triplane blob check` names it if the log needs it, archived entries included" in answer.text


async def moved_aside_unlogged(backends: GatewayBackends, content: bytes) -> str:
    """As a gateway that is fenced leaves it: moved aside, and no entry."""

    async def refuse(digest: str, place: str) -> None:
        raise Fenced("a newer gateway has taken over")

    store: Any = backends.content
    digest = await backends.content.store(content)
    await backends.sessions.own_blob("team", digest)
    store._blobs[digest] = b"altered"
    record, store._on_quarantine = store._on_quarantine, refuse
    with pytest.raises(Fenced):
        [chunk async for chunk in backends.content.resolve(digest)]
    store._on_quarantine = record
    return digest


async def quarantines(backends: GatewayBackends) -> list[str]:
    found = await backends.log.query(EventFilter(types=frozenset({"blob.quarantined"})))
    return [item.entry["data"]["digest"] for item in found]


async def test_what_was_moved_aside_and_not_logged_is_logged_by_the_next_scrub_which_counts_it(
    world: World, triplane: Callable[..., Any]
) -> None:
    digest = await moved_aside_unlogged(world.backends, b"content")
    read = await world.call("GET", f"/v1/blobs/{digest}?namespace=team", OPERATOR)
    assert (read.status_code, read.json()["error"]["reason"]) == (409, "BlobQuarantined")
    found = await triplane("scrub")
    assert found.exit_code == 1
    assert f"altered, moved to quarantine: {digest}" in found.stdout
    assert await quarantines(world.backends) == [digest]
    read = await world.call("GET", f"/v1/blobs/{digest}?namespace=team", OPERATOR)
    assert (read.status_code, read.json()["error"]["reason"]) == (409, "BlobQuarantined")
    assert (await triplane("scrub")).exit_code == 0
    assert await quarantines(world.backends) == [digest], "once"


async def test_a_blob_that_was_quarantined_erased_and_put_again_and_is_gone_is_lost(
    world: World, triplane: Callable[..., Any]
) -> None:
    """What lies in quarantine is an old story, and logged."""
    digest = await world.put_in("team", b"content")
    world.backends.content._blobs[digest] = b"altered"  # type: ignore[attr-defined]
    await triplane("scrub")
    await world.put_in("team", b"content")
    await triplane("erase", "--yes", digest)
    await world.put_in("team", b"content")
    await world.backends.content.delete(digest)
    read = await world.call("GET", f"/v1/blobs/{digest}?namespace=team", OPERATOR)
    assert read.json()["error"]["reason"] == "BlobLost"


async def test_what_was_moved_aside_and_not_logged_is_logged_when_the_gateway_starts(
    old: GatewayBackends, tmp_path: Path
) -> None:
    digest = await moved_aside_unlogged(old, b"content")
    async with running(old, tmp_path, collect_seconds=0, scrub_seconds=0), asyncio.timeout(60):
        while not await quarantines(old):
            await asyncio.sleep(0.02)
    assert await quarantines(old) == [digest]


async def test_every_blob_that_the_log_names_is_looked_up(world: World, triplane: Callable[..., Any]) -> None:
    run = await world.started()
    await run.finish(report=b"# Report\n")
    report = sha256(b"# Report\n")
    assert (await triplane("check")).exit_code == 0
    await triplane("erase", "--yes", report)
    erased = await triplane("check", "-o", "json")
    assert erased.exit_code == 0
    assert f'"digest": "{report}"' in erased.stdout
    assert '"absence": "erased"' in erased.stdout
    # By somebody with the disk: the log needs it, and knows of nothing.
    [journal, *_] = [
        entry.entry["blobs"][0] for entry in await world.backends.log.query() if entry.entry["type"] == "run.started"
    ]
    await world.backends.content.delete(journal)
    lost = await triplane("check")
    assert lost.exit_code == 1
    assert f"{journal} is lost" in lost.stderr
    assert "restore it from a backup" in lost.stderr


async def test_erasing_asks_first(world: World, triplane: Callable[..., Any]) -> None:
    digest = await world.put_in("team", b"content")
    assert (await triplane("erase", digest)).exit_code != 0
    assert await world.backends.content.exists(digest)


async def test_an_erasure_that_was_broken_off_is_ended_by_the_next_collection(
    world: World, clock: ManualClock, triplane: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says that it was erased, the process died, and another entry keeps naming it."""
    digest = await world.backends.content.store(b"personal")
    delete = MemoryContentStore.delete

    async def dies(*_: object) -> bool:
        raise RuntimeError("killed")

    monkeypatch.setattr(MemoryContentStore, "delete", dies)
    clock.time -= timedelta(days=400)  # the memory log tells real time
    world.backends.content._stored_at[digest] = clock.time  # type: ignore[attr-defined]
    assert (await world.call("DELETE", f"/v1/blobs/{digest}")).status_code == 500
    monkeypatch.setattr(MemoryContentStore, "delete", delete)
    assert await world.backends.content.exists(digest)
    await triplane("collect")
    assert not await world.backends.content.exists(digest)


async def test_what_is_exported_is_imported_again(world: World, triplane: Callable[..., Any], tmp_path: Path) -> None:
    contents = [b"", b"{}", b"one", bytes(range(256)) * 9000]
    digests = [await world.put_in("team", content) for content in contents]
    target = tmp_path / "layout"
    exported = await triplane("export", str(target))
    assert exported.exit_code == 0, exported.exception
    assert "4 blobs of" in exported.stderr
    for digest in digests:
        await world.call("DELETE", f"/v1/blobs/{digest}")
    imported = await triplane("import", str(target), "-n", "other")
    assert imported.exit_code == 0, imported.exception
    for digest, content in zip(digests, contents, strict=True):
        assert await world.blob(digest) == content
        assert await world.backends.sessions.owns_blob("other", digest)
    some = tmp_path / "some"
    await triplane("export", str(some), "--digest", digests[2])
    assert (some / "blobs" / "sha256" / digests[2][7:]).read_bytes() == b"one"
    assert not (some / "blobs" / "sha256" / digests[3][7:]).exists()


async def test_the_gateway_collects_and_scrubs_by_itself(
    old: GatewayBackends, clock: ManualClock, tmp_path: Path
) -> None:
    waste = await old.content.store(b"waste")
    clock.time += timedelta(days=8)
    bad = await old.content.store(b"bad")
    old.content._blobs[bad] = b"altered"  # type: ignore[attr-defined]
    async with running(old, tmp_path, collect_seconds=0.05, scrub_seconds=0.05) as world, asyncio.timeout(60):
        while await old.content.exists(waste) or await old.content.exists(bad):
            await asyncio.sleep(0.02)
        while "triplane_gateway_scrub_ended_seconds 0.0" in (text := (await world.call("GET", "/metrics", None)).text):
            await asyncio.sleep(0.02)
    assert "triplane_gateway_blobs_collected_total 1.0" in text
    assert "triplane_gateway_blob_collected_bytes_total 5.0" in text
    assert [item.entry["type"] for item in await old.log.query()].count("blob.quarantined") == 1


async def test_with_intervals_of_nought_it_does_neither(
    old: GatewayBackends, clock: ManualClock, tmp_path: Path
) -> None:
    waste = await old.content.store(b"waste")
    clock.time += timedelta(days=8)
    async with running(old, tmp_path, collect_seconds=0, scrub_seconds=0):
        await asyncio.sleep(0.2)
    assert await old.content.exists(waste)


async def test_a_scrub_ends_when_another_gateway_has_taken_over() -> None:
    store = MemoryContentStore()
    for number in range(5):
        await store.store(bytes([number]))
    told = 0

    def seen(_: int) -> None:
        nonlocal told
        told += 1
        if told == 2:
            raise Fenced("another scrubber has taken over")

    with pytest.raises(Fenced):
        await scrub_of(store, Pace(1e9), ManualClock(), seen=seen)
    assert told == 2


async def test_stored_and_read_octets_requests_and_reasons_are_counted(world: World) -> None:
    digest = await world.put_in("team", b"content")
    await world.call("PUT", f"/v1/blobs/{digest}", content=b"content")
    await world.call("GET", f"/v1/blobs/{digest}")
    await world.call("GET", f"/v1/blobs/{sha256(b'nowhere')}")
    await world.call("GET", "/v1/nonsense-of-a-caller")
    answer = await world.call("GET", "/metrics", None)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        "triplane_gateway_blob_stored_bytes_total 7.0",
        "triplane_gateway_blob_resolved_bytes_total 7.0",
        'triplane_gateway_blobs_absent_total{reason="BlobMissing"} 1.0',
        'triplane_gateway_requests_total{code="200",method="PUT",part="blobs"} 1.0',
        'triplane_gateway_requests_total{code="404",method="GET",part="other"} 1.0',
    ):
        assert line in answer.text.splitlines(), line


# The quota of a run


async def test_a_run_stores_no_more_than_its_quota(old: GatewayBackends, tmp_path: Path) -> None:
    async with running(old, tmp_path, run_limit=1000) as world:
        run = await world.started()
        await run.put(b"a" * 600)
        await run.put(b"a" * 600)  # the same again costs nothing
        refused = await world.call("PUT", f"/v1/blobs/{sha256(b'b' * 401)}", run.token, content=b"b" * 401)
        assert refused.status_code == 413
        error = refused.json()["error"]
        assert (error["reason"], error["limit"], error["stored"]) == ("RunQuotaExceeded", 1000, 600)
        assert "TRIPLANE_RUN_OCTETS" in error["message"]
        assert not await old.content.exists(sha256(b"b" * 401))
        await run.put(b"c" * 400)


async def test_uploads_at_once_do_not_pass_the_quota_together(old: GatewayBackends, tmp_path: Path) -> None:
    async with running(old, tmp_path, run_limit=1000) as world:
        run = await world.started()
        go_on = asyncio.Event()

        async def slow(first: bytes) -> httpx.Response:
            async def body() -> AsyncIterator[bytes]:
                yield first * 400
                await go_on.wait()
                yield first * 10

            digest = sha256(first * 410)
            return await world.call("PUT", f"/v1/blobs/{digest}", run.token, content=body())

        sending = [asyncio.create_task(slow(letter)) for letter in (b"a", b"b", b"c")]
        quotas = world.gateway.quotas
        async with asyncio.timeout(60):
            while sum(each.uploads for each in quotas._runs.values()) < 3:
                await asyncio.sleep(0.01)
        go_on.set()
        answers = sorted([(await each).status_code for each in sending])
        assert answers == [201, 201, 413]
        view = await old.sessions.get(run.uid)
        assert view is not None
        assert view.runs[0].blob_octets == 820


async def test_the_quota_outlives_the_gateway(old: GatewayBackends, tmp_path: Path) -> None:
    async with running(old, tmp_path, run_limit=1000) as world:
        run = await world.started()
        await run.put(b"a" * 600)
    async with running(old, tmp_path, run_limit=1000) as again:
        answer = await again.call("PUT", f"/v1/blobs/{sha256(b'b' * 600)}", run.token, content=b"b" * 600)
        assert answer.json()["error"]["reason"] == "RunQuotaExceeded"
