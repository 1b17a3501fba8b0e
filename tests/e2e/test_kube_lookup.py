"""The webhook's reader on a real API server: what is there, what is not, and what it may not see."""

import asyncio
from pathlib import Path

import pytest
import yaml
from tests.e2e.api import Api
from tests.e2e.fixtures import ControlPlane
from tests.e2e.objects import valid

from triplane.adapters.kube.lookup import Lookup
from triplane.errors import Forbidden, InvalidInput, Unavailable
from triplane.localcluster.ports import free_port

pytestmark = pytest.mark.e2e


async def test_it_reads_what_is_stored_now(control_plane: ControlPlane, namespace: str, alice: Api) -> None:
    lookup = Lookup(control_plane.kubeconfig("admission"))
    try:
        assert await lookup.get("Task", namespace, "sample") is None
        stored = alice.create(valid("Task", namespace)).raise_for_status().json()
        assert await lookup.get("Task", namespace, "sample") == stored
        assert await lookup.get("Workflow", namespace, "sample") is None
    finally:
        await lookup.close()


async def test_it_may_not_read_what_no_check_looks_at(control_plane: ControlPlane, namespace: str) -> None:
    lookup = Lookup(control_plane.kubeconfig("admission"))
    try:
        for kind in ("AgentSession", "Artifact", "Guideline", "Review"):
            with pytest.raises(Forbidden, match=r"cannot get resource"):
                await lookup.get(kind, namespace, "sample")
    finally:
        await lookup.close()


async def test_a_rotated_token_is_taken_up(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    good = control_plane.kubeconfig("admission").read_text()
    document = yaml.safe_load(good)
    document["users"][0]["user"]["token"] = "expired"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    lookup = Lookup(kubeconfig)
    try:
        with pytest.raises(Forbidden, match="answered 401"):
            await lookup.get("Task", namespace, "sample")
        await asyncio.sleep(0.01)
        kubeconfig.write_text(good)
        assert await lookup.get("Task", namespace, "sample") is None
    finally:
        await lookup.close()


async def test_no_answer_and_no_credentials_are_not_taken_for_absence(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    document = yaml.safe_load(control_plane.kubeconfig("admission").read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    lookup = Lookup(kubeconfig)
    try:
        with pytest.raises(Unavailable, match="cannot reach the API server"):
            await lookup.get("Task", "default", "sample")
    finally:
        await lookup.close()
    with pytest.raises(Unavailable, match="no Kubernetes credentials"):
        await Lookup(tmp_path / "missing").get("Task", "default", "sample")
    kubeconfig.write_text("[]")
    with pytest.raises(InvalidInput, match="not a kubeconfig"):
        await Lookup(kubeconfig).get("Task", "default", "sample")
