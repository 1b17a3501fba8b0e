"""A filled installation, and an empty one beside it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conftest import Database, PostgresServer
from tests.integration.backup.world import Installation, installation, nothing

from triplane.settings import Settings


@pytest.fixture
async def source(postgres_server: PostgresServer, tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(postgres_server, tmp_path / "home") as made:
        yield made


@pytest.fixture
def empty(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[Settings, Database]]:
    with nothing(postgres_server, tmp_path / "elsewhere") as made:
        yield made
