"""The operator's public keys: for whoever may log in, and nobody else."""

import httpx
from tests.integration.gateway.fake_apiserver import ALICE
from tests.integration.gateway.world import OPERATOR, RUNNER, World

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.keys import key_created, key_retired, read_bundle


async def test_a_person_without_any_right_reads_the_public_keys(world: World) -> None:
    one, two = MemorySigner(b"one"), MemorySigner(b"two")
    log = world.backends.log
    await log.append([key_created(one.public_key), key_created(two.public_key), key_retired(one.key_id)])
    bundle = read_bundle((await world.call("GET", "/v1/keys", ALICE)).json())
    assert bundle.origin == log.origin
    assert [(key.key_id, key.retired is not None) for key in bundle.keys] == [(one.key_id, True), (two.key_id, False)]


async def test_services_runs_and_strangers_do_not(world: World) -> None:
    run = await world.started()
    for token in (OPERATOR, RUNNER, run.token):
        answer = await world.call("GET", "/v1/keys", token)
        assert answer.status_code == 403, answer.text
    async with httpx.AsyncClient(base_url=world.url) as stranger:
        assert (await stranger.get("/v1/keys")).status_code == 401
