"""`triplane demo` as an ordinary user; these tests step down where they are run as root.

With user namespaces everything is isolated. Without, the work is done all the same, and what is not enforced is said
in plain words before and after.
"""

import os
import re
import sys
from pathlib import Path

import pytest
from tests.attacks.demoted import ORDINARY, run_as_ordinary_user
from tests.e2e.localcluster.leftovers import processes_of

from triplane.cli.isolation import NOT_ENFORCED
from triplane.localcluster.build import ensure_binaries
from triplane.settings import Settings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


async def demo(home: Path, *, user_namespaces: bool) -> tuple[str, str]:
    """Standard output and error of a demo that stops by itself; nothing is left of it."""
    cache = Settings().cache
    await ensure_binaries(cache, print)
    if os.geteuid() == 0:
        os.chown(home, ORDINARY, ORDINARY)
    done = run_as_ordinary_user(
        [sys.executable, "-m", "triplane.cli.main", "demo"],
        shown=[cache / "bin"],
        env={"TRIPLANE_HOME": str(home), "TRIPLANE_CACHE": str(cache), "KEEP": "0"},
        user_namespaces=user_namespaces,
    )
    assert processes_of(home) == []
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Task licence-audit-audit  Succeeded" in done.stdout
    assert re.search(r"chain verified: \d+ entries", done.stdout)
    return done.stdout, done.stderr


async def test_the_demo_works_isolated_for_an_ordinary_user(short_home: Path) -> None:
    shown, _ = await demo(short_home, user_namespaces=True)
    assert re.search(r"isolation: all \d+ sessions ran in a sandbox", shown)
    assert "isolated=False" not in shown


async def test_the_demo_without_user_namespaces_says_what_is_not_enforced(short_home: Path) -> None:
    shown, told = await demo(short_home, user_namespaces=False)
    assert f"agents run NOT isolated: {NOT_ENFORCED}" in told
    assert re.search(rf"isolation: (\d+) of \1 sessions ran without a sandbox: {NOT_ENFORCED}", shown)
    assert "isolated=True" not in shown
