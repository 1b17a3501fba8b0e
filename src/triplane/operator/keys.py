"""Lets the operator take up a rotated key though it has nothing to sign just now."""

import asyncio
from typing import Final

import structlog

from triplane.controllers.signing import OperatorKeys
from triplane.errors import Fenced, TriplaneError

log = structlog.get_logger(__name__)

FOLLOW_SECONDS: Final = 2.0


async def follow(keys: OperatorKeys) -> None:
    """Until it is cancelled, or the operator is fenced. What cannot be done now is tried again: signing waits for it
    too, and says so."""
    trouble = ""
    while True:
        try:
            await keys.follow()
            trouble = ""
        except Fenced:
            return
        except TriplaneError as error:
            if str(error) != trouble:
                trouble = str(error)
                log.warning("the signing key cannot be taken up", error=trouble)
        await asyncio.sleep(FOLLOW_SECONDS)
