"""The event log over HTTP: head and entries. The stream is in ``stream``."""

import base64
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response

from triplane.audit.model import EventFilter, Recorded
from triplane.gateway.answers import json_answer, malformed
from triplane.gateway.auth import CallerDep, require_person, require_person_or_operator
from triplane.gateway.people import Access
from triplane.gateway.state import GatewayDep

router = APIRouter(prefix="/v1/log")
ANSWER_OCTETS: Final = 8 << 20
"""Of entries, after which an answer ends: each has up to 64 KiB, and comes twice."""
STEP: Final = 128
"""Entries read from the store at a time: at most 128 × 64 KiB."""


def event_filter(
    type: Annotated[list[str] | None, Query()] = None,  # the parameter's public name
    kind: str | None = None,
    namespace: str | None = None,
    name: str | None = None,
    uid: str | None = None,
    stream: str | None = None,
    actor: str | None = None,
) -> EventFilter:
    """The conditions of a query; ``type`` may be repeated, or list several with commas."""
    if kind is not None and not kind[:1].isupper():
        raise malformed(f"query.kind: {kind[:64]!r} is no kind: one begins with a capital letter, as Task does")
    types = frozenset(item for given in type or () for item in given.split(",") if item)
    return EventFilter(types=types, kind=kind, namespace=namespace, name=name, uid=uid, stream=stream, actor=actor)


Where = Annotated[EventFilter, Depends(event_filter)]
_CONDITIONS: Final = frozenset(signature(event_filter).parameters)


def only_with(*others: str) -> Callable[[Request], None]:
    """What refuses every parameter but these and the conditions of a query: a misspelt one would choose other entries
    than were meant."""
    known = _CONDITIONS | set(others)

    def refuse(request: Request) -> None:
        unknown = sorted(set(request.query_params) - known)
        if unknown:
            raise malformed(f"query.{unknown[0]}: there is no such parameter; there are {', '.join(sorted(known))}")

    return refuse


After = Annotated[int, Query(ge=-1, le=2**53 - 1)]


def log_access(where: EventFilter) -> Access:
    """Reading the log is reading the Graphs it is about: of one namespace, or of all."""
    return Access("get", "graphs", where.namespace or "")


@router.get("/head")
async def head(gateway: GatewayDep, caller: CallerDep) -> Response:
    """``{origin, size, head}``."""
    await require_person_or_operator(gateway, caller, log_access(EventFilter()))
    size, last = await gateway.backends.log.head()
    return json_answer({"origin": gateway.backends.log.origin, "size": size, "head": last})


@router.get("/entries", dependencies=[Depends(only_with("after", "before", "limit", "newest"))])
async def entries(
    gateway: GatewayDep,
    caller: CallerDep,
    where: Where,
    after: After = -1,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    newest: bool = False,
    before: Annotated[int | None, Query(ge=0, le=2**53 - 1)] = None,
) -> Response:
    """Matching entries between ``after`` and ``before``, oldest first; with ``newest`` the last ones, newest first.

    An answer that grows too large ends early, with ``next``: ask again with it as ``after``, with ``newest`` as
    ``before``."""
    await require_person(gateway, caller, log_access(where))
    found, octets = list[Recorded](), 0
    while len(found) < limit:
        step = min(STEP, limit - len(found))
        page = await gateway.backends.log.query(
            replace(where, before=before), after=after, limit=step, newest_first=newest
        )
        for item in page:
            if octets >= ANSWER_OCTETS:
                return json_answer({"entries": [entry_document(item) for item in found], "next": found[-1].seq})
            found.append(item)
            octets += len(item.octets)
        if len(page) < step:
            break
        after, before = (after, page[-1].seq) if newest else (page[-1].seq, before)
    return json_answer({"entries": [entry_document(item) for item in found]})


def entry_document(item: Recorded) -> dict[str, Any]:
    """An entry with its octets: whoever receives it can hash them."""
    return {
        "seq": item.seq,
        "leafHash": item.leaf_hash,
        "octets": base64.b64encode(item.octets).decode(),
        "entry": dict(item.entry),
    }
