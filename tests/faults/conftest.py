"""One installation for all fault tests: every test leaves it whole."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.api import Api
from tests.faults.apiproxy import ApiProxy
from tests.faults.installation import LEASE_SECONDS, Installation
from triplane.errors import TriplaneError
from triplane.localcluster.build import ensure_binaries
from triplane.settings import Settings


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Control plane, Postgres, gateway, operator and runner, kept by the test."""
    home = Path(tempfile.mkdtemp(prefix="tri-fl-"))
    made = Installation(home, lease_seconds=LEASE_SECONDS)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def api(installation: Installation) -> Iterator[Api]:
    """The API server as its administrator."""
    with installation.api("admin") as made:
        yield made


@pytest.fixture(scope="module")
def proxy(installation: Installation) -> Iterator[ApiProxy]:
    """A fault proxy through which the operator speaks to the API server while this module's tests run."""
    settings = installation.settings
    made = ApiProxy(installation.cluster.server, settings.cluster / "pki" / "ca.crt", settings.run / "proxy").start()
    try:
        through = made.kubeconfig(settings.secrets / "kubeconfig-operator", settings.run / "kubeconfig-proxy")
        with installation.given("operator", TRIPLANE_KUBECONFIG=str(through)):
            yield made
    finally:
        made.stop()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the control plane before the first test starts: a cold build takes longer than a test may."""
    if session.config.option.collectonly:
        return
    try:
        asyncio.run(ensure_binaries(Settings().cache, lambda line: print(line, file=sys.__stderr__, flush=True)))
    except TriplaneError as error:
        pytest.exit(f"the fault tier cannot run: {error}", returncode=1)
