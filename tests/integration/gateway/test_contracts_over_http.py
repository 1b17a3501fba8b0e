"""The operator's contract checks through a real gateway."""

from collections.abc import AsyncIterator

import pytest
from tests.integration.gateway.world import OPERATOR, RUNNER, SCHEMA, World, sha256

from triplane.adapters.http.contracts import GatewayContracts
from triplane.errors import BlobMissing, Forbidden, InvalidInput, TriplaneError, Unavailable


@pytest.fixture
async def contracts(world: World) -> AsyncIterator[GatewayContracts]:
    opened = GatewayContracts(lambda: world.url, lambda: OPERATOR)
    yield opened
    await opened.close()


async def test_contents_meet_a_contract_or_break_it(world: World, contracts: GatewayContracts) -> None:
    good, bad = await world.put_in("team", b'{"total": 1}'), await world.put_in("team", b'{"total": "1"}')
    assert await contracts.problem(good, "application/json", SCHEMA) is None
    assert await contracts.problem(good, "application/json", None) is None
    said = await contracts.problem(bad, "application/json", SCHEMA)
    assert said is not None
    assert "/total" in said


@pytest.mark.parametrize(
    ("url", "token", "digest", "expected"),
    [
        pytest.param(None, OPERATOR, sha256(b"nothing"), BlobMissing, id="the blob is gone"),
        pytest.param(None, RUNNER, sha256(b"nothing"), Forbidden, id="it is not the operator"),
        pytest.param(None, "nobody", sha256(b"nothing"), Forbidden, id="it is nobody"),
        pytest.param(None, OPERATOR, "sha256:x", InvalidInput, id="it is no digest"),
        pytest.param("http://127.0.0.1:9", OPERATOR, sha256(b"nothing"), Unavailable, id="the gateway is away"),
    ],
)
async def test_errors_are_told_apart(
    world: World, url: str | None, token: str, digest: str, expected: type[TriplaneError]
) -> None:
    asking = GatewayContracts(lambda: url or world.url, lambda: token)
    try:
        with pytest.raises(expected):
            await asking.problem(digest, "text/plain", None)
    finally:
        await asking.close()
