"""A whole installation checked from outside: its log fetched through the gateway and verified by the auditor's file, an
accepted artifact shown with proofs, and both held against a checkpoint that was kept."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.stack import Stack, agent, graph, has, task
from tests.unit.audit.exports import VERIFY_PY

from triplane.wiring import gateway_url

pytestmark = pytest.mark.e2e

NAMESPACE = "outside"


@pytest.fixture(scope="module")
def artifact(stack: Stack) -> str:
    """The name of an accepted Artifact."""
    stack.people(NAMESPACE)
    stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]))
    stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
    stack.apply(task(NAMESPACE, "shown"))
    stack.wait("Task", NAMESPACE, "shown", has("Succeeded", "True"))
    return str(stack.list("Artifact", NAMESPACE)[0]["metadata"]["name"])


def test_an_outsider_checks_the_log_and_an_artifact_with_one_key(stack: Stack, artifact: str, tmp_path: Path) -> None:
    key = stack.triplane("log", "keys", "list").splitlines()[1].split()[-1]
    bundle, folder, growth = tmp_path / "bundle", tmp_path / "log", tmp_path / "growth"
    stack.triplane("proof", "artifact", "-n", NAMESPACE, artifact, "-o", str(bundle), "--content")
    stack.triplane("verify", str(bundle), "--key", key)

    stack.triplane("log", "export", str(folder), "--from", f"{gateway_url(stack.settings)}/log", "--key", key)
    audited = subprocess.run(
        [sys.executable, "-I", str(VERIFY_PY), str(folder), "--key", key],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert audited.returncode == 0, audited.stderr

    # The bundle is older than the export, or as old: what leads from one to the other comes from the log.
    proof = next((bundle / "proofs").iterdir())
    size = proof.read_text().partition("\n\n")[2].split("\n")[1]
    later = (folder / "checkpoint").read_text().split("\n")[1]
    stack.triplane("proof", "consistency", size, "--to", later, "-o", str(growth))
    earlier = ("--earlier", str(folder / "checkpoint"), "--consistency", str(growth))
    assert "consistent with" in stack.triplane("verify", str(bundle), "--key", key, *earlier)

    (bundle / "content").write_bytes(b"something else")
    stack.triplane("verify", str(bundle), "--key", key, code=1)
    (bundle / "content").unlink()
    (bundle / "proofs" / proof.name).unlink()
    stack.triplane("verify", str(bundle), "--key", key, code=1)
