"""Proofs for outsiders: that an entry is in the log, and that one checkpoint continues another."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from triplane.audit.keys import KEY_EVENTS
from triplane.audit.merkle import MAX_SIZE
from triplane.audit.model import EventFilter
from triplane.audit.witness import PLAIN
from triplane.controllers.proving import entry_at, entry_proof, growth, place_proof
from triplane.errors import Archived, Forbidden, NotFound
from triplane.gateway.answers import malformed
from triplane.gateway.auth import Caller, CallerDep, require_person_or_operator
from triplane.gateway.log import log_access
from triplane.gateway.state import GatewayDep
from triplane.gateway.tokens import RunClaim

router = APIRouter(prefix="/v1/log")
Place = Annotated[int | None, Query(ge=0, le=MAX_SIZE)]


@router.get("/proof")
async def proof(
    gateway: GatewayDep,
    caller: CallerDep,
    seq: Place = None,
    id: str | None = None,  # the parameter's public name
    size: Place = None,
    namespace: str | None = None,
) -> Response:
    """A ``.tlog-proof`` of one entry; with ``size`` in the checkpoint of so many entries, else in the latest."""
    _refuse_runs(caller)
    if (seq is None) == (id is None):
        raise malformed("name the entry by its seq or by its id, one of the two")
    backends = gateway.backends
    try:
        recorded = await (entry_at(backends.log, seq) if seq is not None else backends.log.get(id or ""))
    except Archived:
        await require_person_or_operator(gateway, caller, log_access(EventFilter(namespace=namespace)))
        raise
    # What the installation signs with is for everybody to know, as /v1/keys tells it.
    if recorded is None or recorded.entry["type"] not in KEY_EVENTS:
        await require_person_or_operator(gateway, caller, log_access(EventFilter(namespace=namespace)))
        if recorded is None or (namespace and recorded.entry["subject"]["namespace"] != namespace):
            what = f"entry {seq}" if seq is not None else f"entry with id {id!r}"
            raise NotFound(f"no {what} is in the log" + (f" about namespace {namespace}" if namespace else ""))
    octets = await entry_proof(backends.log, backends.checkpoints, recorded, size)
    return Response(octets, media_type=PLAIN)


@router.get("/inclusion")
async def inclusion(
    gateway: GatewayDep,
    caller: CallerDep,
    seq: Annotated[int, Query(ge=0, le=MAX_SIZE)],
    size: Place = None,
    namespace: str | None = None,
) -> Response:
    """The proof of ``/proof`` without the entry, for who has that from the archive. It holds hashes and a checkpoint:
    who may read a part of the log may know them of the whole."""
    _refuse_runs(caller)
    await require_person_or_operator(gateway, caller, log_access(EventFilter(namespace=namespace)))
    shown = await place_proof(gateway.backends.checkpoints, seq, size)
    return Response(shown.octets, media_type=PLAIN)


@router.get("/consistency")
async def consistency(
    gateway: GatewayDep,
    caller: CallerDep,
    old: Annotated[int, Query(alias="from", ge=0, le=MAX_SIZE)],
    new: Annotated[int | None, Query(alias="to", ge=0, le=MAX_SIZE)] = None,
) -> Response:
    """That the checkpoint of ``to`` entries (the latest) continues that of ``from``, as a witness is asked. It holds
    hashes and a checkpoint, of which whoever may talk to the gateway may know."""
    _refuse_runs(caller)
    return Response(await growth(gateway.backends.checkpoints, old, new), media_type=PLAIN)


def _refuse_runs(caller: Caller) -> None:
    if isinstance(caller, RunClaim):
        raise Forbidden("a run has no use for checkpoints and proofs; people and services read them")
