"""The contract of ``ContentStore``, held by the operator's adapter over a running gateway."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.contract.test_content_store import *  # noqa: F403
from tests.contract.test_content_store import Subject
from tests.integration.gateway.world import OPERATOR, running

from triplane.adapters.clock import SystemClock
from triplane.adapters.http.contentstore import GatewayContent
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.errors import Forbidden, Unavailable
from triplane.wiring import GatewayBackends


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    reported: list[str] = []

    async def report(digest: str, _: str) -> None:
        reported.append(digest)

    async def tamper(digest: str, octets: bytes) -> None:
        content._blobs[digest] = octets

    content = MemoryContentStore(on_quarantine=report)
    shared = MemoryLog.create()
    backends = GatewayBackends(
        log=MemoryEventLog(shared),
        checkpoints=MemoryCheckpointStore(shared),
        content=content,
        sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(),
        graph=MemoryGraphStore(),
    )
    async with running(backends, tmp_path) as world:
        store = GatewayContent(lambda: world.url, lambda: OPERATOR)
        other = GatewayContent(lambda: world.url, lambda: OPERATOR)
        yield Subject(store, other, tamper, reported)  # type: ignore[arg-type]  # a client keeps nothing itself
        await other.close()
        await store.close()


async def test_without_a_gateway_the_store_is_unavailable() -> None:
    store = GatewayContent(lambda: "http://127.0.0.1:9", lambda: OPERATOR)
    with pytest.raises(Unavailable, match="does not answer"):
        await store.store(b"x")
    with pytest.raises(Unavailable, match="does not answer"):
        await store.exists("sha256:" + "0" * 64)
    await store.close()


async def test_a_wrong_token_is_forbidden(subject: Subject) -> None:
    other = GatewayContent(subject.store._url, lambda: "wrong")  # type: ignore[attr-defined]
    with pytest.raises(Forbidden):
        await other.store(b"x")
    await other.close()
