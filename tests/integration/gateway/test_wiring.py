"""Each role opens what it needs on real Postgres, and no more."""

import hashlib
from pathlib import Path

import pytest
from tests.conftest import Database
from tests.integration.gateway.world import OPERATOR, running

from triplane.audit.model import EventBody, EventSubject
from triplane.errors import Forbidden, TriplaneError, Unavailable
from triplane.wiring import gateway_url, open_gateway, open_operator, open_verifier, service_token

BODY = EventBody("task.stalled/t-1/1", "task.stalled", "graph/g-1", "system", EventSubject("Task", "n", "t", "t-1"))


async def test_the_operator_reaches_blobs_only_through_the_gateway(database: Database, tmp_path: Path) -> None:
    gateway = await open_gateway(database.settings())
    try:
        async with running(gateway, tmp_path) as world:
            await gateway.accounts.put_token("operator", "operator", hashlib.sha256(OPERATOR.encode()).hexdigest())
            operator = await open_operator(database.settings(gateway_url=world.url, token=OPERATOR))
            try:
                digest = await operator.content.store(b"content")
                assert await gateway.content.exists(digest)
                assert [chunk async for chunk in operator.content.resolve(digest)] == [b"content"]
                await operator.log.begin_epoch()
                assert (await operator.log.append([BODY]))[0].id == BODY.id
            finally:
                await operator.close()
    finally:
        await gateway.close()


async def test_a_newer_gateway_fences_the_older_from_the_log(database: Database) -> None:
    older = await open_gateway(database.settings())
    newer = await open_gateway(database.settings())
    try:
        with pytest.raises(TriplaneError, match="newer"):
            await older.log.append([BODY])
        await newer.log.append([BODY])
    finally:
        await older.close()
        await newer.close()


async def test_the_verifier_verifies_and_cannot_append(database: Database) -> None:
    verifier = await open_verifier(database.settings())
    try:
        assert (await verifier.log.verify_chain()).ok
        with pytest.raises(Forbidden):
            await verifier.log.append([BODY])
    finally:
        await verifier.close()


async def test_what_is_not_there_yet_is_unavailable_and_says_what_to_do(database: Database, tmp_path: Path) -> None:
    settings = database.settings(home=tmp_path)
    for missing in (lambda: gateway_url(settings), lambda: service_token(settings, "operator")):
        with pytest.raises(Unavailable, match="triplane up"):
            missing()
    with pytest.raises(Unavailable, match="triplane up"):
        await open_gateway(settings)
