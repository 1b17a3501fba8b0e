"""Policies as the webhook has them, on a real API server: known within moments, and known to be unknown."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml
from tests.e2e.api import Api
from tests.e2e.fixtures import ControlPlane
from tests.e2e.objects import valid

from triplane.adapters.kube import watched as module
from triplane.adapters.kube.lookup import Lookup
from triplane.adapters.kube.watched import Watched
from triplane.errors import Unavailable
from triplane.localcluster.ports import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
async def policies(control_plane: ControlPlane) -> AsyncIterator[Watched]:
    lookup = Lookup(control_plane.kubeconfig("admission"))
    made = Watched(lookup, "Policy")
    await made.start()
    yield made
    await made.close()
    await lookup.close()


async def eventually(said: Callable[[], bool], seconds: float = 5.0) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not said():
            await asyncio.sleep(0.005)
    return time.monotonic() - began


def names(policies: Watched, namespace: str) -> list[str]:
    return sorted(each["metadata"]["name"] for each in policies.within(namespace))


async def test_before_the_first_list_it_says_so(control_plane: ControlPlane) -> None:
    unread = Watched(Lookup(control_plane.kubeconfig("admission")), "Policy")
    assert unread.missing() is not None
    with pytest.raises(Unavailable, match="have not been read yet"):
        unread.within("anywhere")


async def test_what_is_made_edited_and_deleted_is_known(policies: Watched, namespace: str, admin: Api) -> None:
    await eventually(lambda: policies.missing() is None)
    made = valid("Policy", namespace)
    stored = (await asyncio.to_thread(admin.create, made)).raise_for_status().json()
    assert await eventually(lambda: names(policies, namespace) == [stored["metadata"]["name"]]) < 2.0
    stored["spec"]["title"] = "Another title"
    (await asyncio.to_thread(admin.replace, stored)).raise_for_status()
    await eventually(lambda: policies.within(namespace)[0]["spec"].get("title") == "Another title")
    (await asyncio.to_thread(admin.delete, stored)).raise_for_status()
    await eventually(lambda: names(policies, namespace) == [])


async def test_what_was_there_before_is_known_too(control_plane: ControlPlane, namespace: str, admin: Api) -> None:
    (await asyncio.to_thread(admin.create, valid("Policy", namespace))).raise_for_status()
    lookup = Lookup(control_plane.kubeconfig("admission"))
    late = Watched(lookup, "Policy")
    await late.start()
    try:
        await eventually(lambda: late.missing() is None)
        assert len(late.within(namespace)) == 1
    finally:
        await late.close()
        await lookup.close()


async def test_a_version_that_is_too_old_leads_to_a_new_list(policies: Watched, namespace: str, admin: Api) -> None:
    await eventually(lambda: policies.missing() is None)
    await policies.close()
    policies._version = "1"
    (await asyncio.to_thread(admin.create, valid("Policy", namespace))).raise_for_status()
    await policies.start()
    await eventually(lambda: len(policies.within(namespace)) == 1)


async def test_a_server_that_is_away_for_long_makes_it_say_so(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.3)
    good = control_plane.kubeconfig("admission").read_text()
    document = yaml.safe_load(good)
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(good)
    lookup = Lookup(kubeconfig)
    policies = Watched(lookup, "Policy")
    await policies.start()
    try:
        await eventually(lambda: policies.missing() is None)
        kubeconfig.write_text(yaml.safe_dump(document))
        async with asyncio.timeout(5):
            while policies.missing() is None:  # as a server that goes away, to whoever asks
                await lookup.close()
                await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="has been away for"):
            policies.within("anywhere")
        kubeconfig.write_text(good)
        await eventually(lambda: policies.missing() is None)
    finally:
        await policies.close()
        await lookup.close()
