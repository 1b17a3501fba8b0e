"""The log as C2SP tlog-tiles below ``/log``: its checkpoint, its hash tiles, its entries in bundles.

Tiles and bundles show every tenant, so they are for those who may read all Graphs, as the whole log is. A checkpoint
shows a size and a root, and is there to be shown around: whoever may talk to the gateway may have it.
"""

from typing import Final

from fastapi import APIRouter, Response

from triplane.audit.model import EventFilter
from triplane.audit.tiles import Tile, parse_path
from triplane.audit.witness import PLAIN
from triplane.controllers.proving import latest_checkpoint, tile_octets
from triplane.errors import Forbidden, InvalidInput, NotFound
from triplane.gateway.auth import CallerDep, require_person_or_operator
from triplane.gateway.log import log_access
from triplane.gateway.state import GatewayDep
from triplane.gateway.tokens import RunClaim

router = APIRouter(prefix="/log")
_IMMUTABLE: Final = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


@router.get("/checkpoint")
async def checkpoint(gateway: GatewayDep, caller: CallerDep) -> Response:
    """The latest signed note; the only file that changes."""
    if isinstance(caller, RunClaim):
        raise Forbidden("a run has no use for checkpoints; people and services read them")
    found = await latest_checkpoint(gateway.backends.checkpoints)
    return Response(found, media_type=PLAIN, headers={"Cache-Control": "no-cache"})


@router.get("/tile/{path:path}")
async def tile(path: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """A tile of hashes or a bundle of entries."""
    await require_person_or_operator(gateway, caller, log_access(EventFilter()))
    async with gateway.tiles:
        octets = await tile_octets(gateway.backends.log, gateway.backends.checkpoints, _parsed(f"tile/{path}"))
    return Response(octets, media_type="application/octet-stream", headers=_IMMUTABLE)


def _parsed(path: str) -> Tile:
    try:
        return parse_path(path)
    except InvalidInput as error:
        raise NotFound(str(error)) from error
