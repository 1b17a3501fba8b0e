"""The real control plane, built before the first test starts: a cold build takes longer than a test may."""

import asyncio
import sys

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
    short_home,
)

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
    "short_home",
]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build, telling how far it is; a tier that cannot run ends the whole run as failed."""
    if session.config.option.collectonly:
        return
    try:
        asyncio.run(ensure_binaries(Settings().cache, lambda line: print(line, file=sys.__stderr__, flush=True)))
    except TriplaneError as error:
        pytest.exit(f"the end-to-end tier cannot run: {error}", returncode=1)
