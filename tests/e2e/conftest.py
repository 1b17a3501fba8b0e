"""The real control plane, built before the first test starts: a cold build takes longer than a test may."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.fixtures import (
    admin,
    alice,
    bob,
    control_plane,
    kubectl,
    make_namespace,
    namespace,
    operator,
    rules_namespace,
    short_home,
    webhook,
)
from tests.e2e.stack import Stack

from triplane.errors import TriplaneError
from triplane.localcluster.build import ensure_binaries
from triplane.settings import Settings

__all__ = [
    "admin",
    "alice",
    "bob",
    "control_plane",
    "kubectl",
    "make_namespace",
    "namespace",
    "operator",
    "rules_namespace",
    "short_home",
    "stack",
    "webhook",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes what is shown instead of comparing it; read the difference before committing."""
    parser.addoption("--update-golden", action="store_true", default=False)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A whole installation, shared by the session."""
    home = Path(tempfile.mkdtemp(prefix="tri-st-"))
    whole = Stack.start(home)
    try:
        yield whole
    finally:
        whole.stop()
        shutil.rmtree(home, ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build, telling how far it is; a tier that cannot run ends the whole run as failed."""
    if session.config.option.collectonly:
        return
    try:
        asyncio.run(ensure_binaries(Settings().cache, lambda line: print(line, file=sys.__stderr__, flush=True)))
    except TriplaneError as error:
        pytest.exit(f"the end-to-end tier cannot run: {error}", returncode=1)
