"""A demo that is interrupted before its summary, as a terminal, make(1) or a closed window does it: nothing is left.

The command runs in a process group of its own and the signal goes to the whole group, as the terminal sends it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.e2e.localcluster.leftovers import processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def start_demo(home: Path) -> subprocess.Popen[str]:
    """``triplane demo`` as the leader of a group, standard input closed, all it says in one pipe."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    for name in ("CI", "KEEP", "CLUSTER", "KUBECONFIG"):
        kept.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-m", "triplane.cli.main", "demo"],
        env={**kept, "TRIPLANE_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def interrupted_demo(home: Path, when: str, *signals: signal.Signals) -> str:
    """Run it until it says ``when``, send the signals a moment apart; returns all it said."""
    said = []
    command = start_demo(home)
    assert command.stdout is not None
    with command, contextlib.closing(command.stdout):
        for line in command.stdout:
            said.append(line)
            if when in line:
                break
        else:
            pytest.fail("it ended before it could be interrupted:\n" + "".join(said))
        assert processes_of(home), "the probe must be able to see them"
        for number in signals:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, number)
            time.sleep(0.3)
        said.append(command.stdout.read())
        assert command.wait(120) == 130
    return "".join(said)


@pytest.mark.parametrize(
    ("when", "signals"),
    [
        pytest.param(
            "postgres started",
            [signal.SIGINT, signal.SIGINT, signal.SIGHUP],
            id="an impatient Ctrl-C and a closed window",
        ),
        pytest.param(
            "licence-audit: Running", [signal.SIGTERM] * 2, id="termination, told twice, while an agent works"
        ),
    ],
)
def test_an_interrupted_demo_leaves_nothing(when: str, signals: list[signal.Signals], short_home: Path) -> None:
    said = interrupted_demo(short_home, when, *signals)
    assert processes_of(short_home) == []
    assert "What was done" not in said
    assert "Traceback" not in said
