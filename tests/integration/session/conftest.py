"""A world with its gateway up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.session.world import World, make_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "home")
    async with made.serving():
        yield made
