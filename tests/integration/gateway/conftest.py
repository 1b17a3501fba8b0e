"""A gateway on memory backends for its logic, one on real Postgres and a real folder for the main path."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from tests.integration.gateway.fake_apiserver import FakeApiServer, serving
from tests.integration.gateway.world import World, running

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.checkpointstore import MemoryCheckpointStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog, MemoryLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.wiring import GatewayBackends, quarantine_recorder


@pytest.fixture(autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Drawn with all local variables, megabytes among them, a traceback holds up the event loop for seconds."""
    processors = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*processors[:-1], renderer])
    yield
    structlog.configure(processors=processors)


@pytest.fixture
def memory() -> GatewayBackends:
    shared = MemoryLog.create()
    log = MemoryEventLog(shared, writer="gateway")
    return GatewayBackends(
        log=log,
        checkpoints=MemoryCheckpointStore(shared),
        content=MemoryContentStore(on_quarantine=quarantine_recorder(log)),
        sessions=MemorySessionStore(SystemClock()),
        accounts=MemoryAccountStore(),
        graph=MemoryGraphStore(),
    )


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[FakeApiServer]:
    async with serving(tmp_path) as made:
        yield made


@pytest.fixture
async def world(memory: GatewayBackends, apiserver: FakeApiServer, tmp_path: Path) -> AsyncIterator[World]:
    async with running(memory, tmp_path, kubeconfig=apiserver.kubeconfig, contract_seconds=3.0) as made:
        yield made
