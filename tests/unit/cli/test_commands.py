"""The command as users start it: fast help, documented exit codes, errors in sentences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triplane.cli import reference


def triplane(*arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an environment where nothing is installed or running."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "triplane.cli.main", *arguments],
        env={**kept, "HOME": str(home), "TRIPLANE_HOME": str(home / "state"), **env},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("slow", ["httpx", "pydantic", "yaml", "kubernetes", "psycopg", "kopf", "cryptography"])
def test_help_imports_nothing_slow(slow: str) -> None:
    code = f"import sys, triplane.cli.main; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_database_that_is_down_is_told_in_one_line_with_what_starts_it(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "db_verifier").write_text("none")
    code = (
        "import triplane.adapters.postgres.connection as connection; connection.POOL_WAIT_SECONDS = 0.5;"
        "from triplane.cli.main import app; app(['log', 'verify'])"
    )
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "HOME": str(tmp_path), "TRIPLANE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: could not open the database: ")
    assert "No such file or directory" in line
    assert "`triplane up` starts" in line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(["frobnicate"], 2, "No such command", id="an unknown command is wrong usage"),
        pytest.param(["status", "-o", "xml"], 2, "xml", id="an unknown format is wrong usage"),
        pytest.param(["why", "audit"], 2, "is not KIND/NAME; kinds: graph", id="a name without a kind is wrong usage"),
        pytest.param(["why-denied"], 2, "name either KIND/NAME or a file", id="nothing to ask about is wrong usage"),
        pytest.param(["why-denied", "task/x", "-f", "y"], 2, "name either", id="asking about two is wrong usage"),
        pytest.param(["logs", "node/x"], 2, "write task/NAME or session/NAME", id="logs of a Node are wrong usage"),
        pytest.param(["tool", "calls", "x"], 2, "write task/NAME or session/NAME", id="calls of what is wrong usage"),
        pytest.param(["lineage", "x", "--up", "--down"], 2, "choose one of", id="lineage goes one way, or both"),
        pytest.param(
            ["lineage", "x", "--up", "-o", "in-toto"], 2, "takes no other choice", id="a lineage bundle is all of it"
        ),
        pytest.param(["graph", "rebuild", "--check"], 2, "error: ", id="no database leaves no graph to rebuild"),
        pytest.param(
            ["review", "reject", "x"], 2, "needs a finding", id="a rejection without a finding is wrong usage"
        ),
        pytest.param(["status"], 2, "no kubeconfig", id="no kubeconfig leaves nothing to talk to"),
        pytest.param(["log", "verify"], 2, "error: ", id="no database leaves nothing to verify"),
        pytest.param(["cluster", "status"], 1, "nothing was ever started", id="nothing running is not well"),
        pytest.param(["down"], 0, "down", id="stopping nothing is done at once"),
        pytest.param(["version"], 0, "triplane ", id="the version is told"),
    ],
)
def test_exit_codes_and_sentences(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = triplane(*arguments, home=tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    done = triplane("status", home=tmp_path, TRIPLANE_HOEM="x")
    assert done.returncode == 2
    assert "TRIPLANE_HOEM" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_an_api_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}], users: [{name: u, user: {token: t}}]}"
    )
    done = triplane("status", "--kubeconfig", str(config), home=tmp_path)
    assert done.returncode == 2
    assert "cannot reach the API server https://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(tmp_path: Path, shell: str) -> None:
    done = triplane("completion", shell, home=tmp_path)
    assert done.returncode == 0
    assert "_TRIPLANE_COMPLETE" in done.stdout


def test_bash_can_read_its_completion_script(tmp_path: Path) -> None:
    script = triplane("completion", "bash", home=tmp_path).stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_the_completion_answers_commands(tmp_path: Path) -> None:
    answer = triplane(home=tmp_path, _TRIPLANE_COMPLETE="complete_bash", COMP_WORDS="triplane st", COMP_CWORD="1")
    assert "status" in answer.stdout.split()


def test_every_command_has_help_and_the_reference_is_current() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md"
    assert page.read_text() == reference.render()
    assert "None\n" not in reference.render()
