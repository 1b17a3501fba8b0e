"""A gateway on memory backends for its logic, one on real Postgres and a real folder for the main path."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.gateway.fake_apiserver import FakeApiServer, serving
from tests.integration.gateway.world import World, running

from triplane.adapters.clock import SystemClock
from triplane.adapters.memory.accountstore import MemoryAccountStore
from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.wiring import GatewayBackends, quarantine_recorder


@pytest.fixture
def memory() -> GatewayBackends:
    log = MemoryEventLog(writer="gateway")
    return GatewayBackends(
        log=log,
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
