"""Blobs over HTTP. Only the gateway writes the content store; nothing leaves it that is not what was stored."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from triplane.audit.digest import parse_digest
from triplane.controllers.erase import erase
from triplane.domain.blob import how_to_put
from triplane.domain.runorder import order_of_run, readable_digests
from triplane.domain.session import RunView, SessionView
from triplane.errors import DigestMismatch, Forbidden
from triplane.gateway.answers import Refusal, json_answer
from triplane.gateway.auth import (
    Caller,
    CallerDep,
    live_run_of,
    require_admin,
    require_person_or_operator,
    require_service,
)
from triplane.gateway.bodies import capped, discard
from triplane.gateway.people import Access
from triplane.gateway.quota import QUOTA_EXCEEDED
from triplane.gateway.state import Gateway, GatewayDep
from triplane.gateway.tokens import RunClaim
from triplane.ports import ContentStore

router = APIRouter(prefix="/v1/blobs")
_WHOLE_OCTETS: Final = 4 * 1024 * 1024
"""Blobs up to this size are verified before the first octet is sent."""
_SMALL_OCTETS: Final = 256 * 1024
"""Bodies up to this size are stored in one go."""
_OCTETS: Final = "application/octet-stream"
Namespace = Annotated[str, Query(max_length=63)]


@router.put("/{digest}")
async def put(
    digest: str, request: Request, gateway: GatewayDep, caller: CallerDep, namespace: Namespace = ""
) -> Response:
    """Store the octets under their digest: 201, or 200 when it was there (in the namespace, where one is given)."""
    parse_digest(digest)
    run = await live_run_of(gateway, caller) if isinstance(caller, RunClaim) else None
    owner = run[0].offer.namespace if run else await _may_write(gateway, caller, namespace)
    backends = gateway.backends
    there = await backends.content.exists(digest)
    if owner:  # else the status would tell what other namespaces hold
        there = there and await backends.sessions.owns_blob(owner, digest)
    if run is None or there:  # what is there already costs nothing when it is sent again
        stored, size = await _store(gateway, request, digest, owner)
    else:
        stored, size = await _store_of_run(gateway, request, digest, run)
    return json_answer({"digest": stored, "size": size}, 200 if there else 201)


@router.post("")
async def post(request: Request, gateway: GatewayDep, caller: CallerDep, namespace: Namespace = "") -> Response:
    """Store octets whose digest the caller does not know."""
    if isinstance(caller, RunClaim):
        raise Forbidden("a run stores blobs by PUT, under the digest it computed")
    owner = await _may_write(gateway, caller, namespace)
    stored, size = await _store(gateway, request, None, owner)
    return json_answer({"digest": stored, "size": size}, 201)


@router.api_route("/{digest}", methods=["GET", "HEAD"])
async def get(
    digest: str, request: Request, gateway: GatewayDep, caller: CallerDep, namespace: Namespace = ""
) -> Response:
    """The octets. A damaged blob is never delivered whole: small ones answer 500, large ones break off."""
    parse_digest(digest)
    await _may_read(gateway, caller, digest, namespace)
    content = gateway.backends.content
    size = await content.size(digest)
    headers = {"Content-Length": str(size), "ETag": f'"{digest}"', "X-Content-Type-Options": "nosniff"}
    if request.method == "HEAD":
        return Response(headers=headers, media_type=_OCTETS)
    if size <= _WHOLE_OCTETS:
        octets = b"".join([chunk async for chunk in content.resolve(digest)])
        return Response(octets, headers=headers, media_type=_OCTETS)
    return StreamingResponse(_held_back(content, digest), headers=headers, media_type=_OCTETS)


@router.get("")
async def list_all(
    gateway: GatewayDep,
    caller: CallerDep,
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Response:
    """``{digests}`` in ascending order after ``after``; for the operator."""
    require_service(caller, "operator")
    found: list[str] = []
    async for digest in gateway.backends.content.list_digests():
        if digest > after:
            found.append(digest)
            if len(found) == limit:
                break
    return json_answer({"digests": found})


@router.delete("/{digest}")
async def delete(digest: str, gateway: GatewayDep, caller: CallerDep) -> Response:
    """Erase a blob; for the operator and admins. ``blob.erased`` is in the log before the blob goes."""
    await require_admin(gateway, caller)
    parse_digest(digest)
    backends = gateway.backends
    await erase(backends.content, backends.log, backends.sessions, digest)
    gateway.metrics.erased()
    return json_answer({"digest": digest})


async def _may_write(gateway: Gateway, caller: Caller, namespace: str) -> str:
    """The operator, or whoever may create Tasks (in the namespace given, or anywhere).

    Returns the namespace the blob will belong to. Empty: to none, and only who may read in all namespaces, and the
    operator, can use it.
    """
    await require_person_or_operator(gateway, caller, Access("create", "tasks", namespace))
    return namespace


async def _may_read(gateway: Gateway, caller: Caller, digest: str, namespace: str) -> None:
    """A live run reads its inputs; people read what belongs to the namespace they name, or everything, as they may."""
    if isinstance(caller, RunClaim):
        view, run = await live_run_of(gateway, caller)
        if digest not in readable_digests(order_of_run(view.offer, run.run, run.run_inputs)):
            raise Forbidden(f"{digest} is no input of run {run.run} of session {caller.session_uid}")
        # Naming a digest is no right to it, wherever the name came from: a Task, or a Harness's program.
        if not await gateway.backends.sessions.owns_blob(view.offer.namespace, digest):
            raise _foreign(digest, view.offer.namespace)
        return
    await require_person_or_operator(gateway, caller, Access("get", "artifacts", namespace))
    if namespace and not await gateway.backends.sessions.owns_blob(namespace, digest):
        try:
            await require_person_or_operator(gateway, caller, Access("get", "artifacts"))
        except Forbidden as error:
            raise _foreign(digest, namespace) from error


def _foreign(digest: str, namespace: str) -> Forbidden:
    return Forbidden(f"{digest} does not belong to namespace {namespace}; {how_to_put(namespace)}")


async def _store(gateway: Gateway, request: Request, expect: str | None, owner: str) -> tuple[str, int]:
    """Store the body, then note whose it is: only who sent the octets has them. A crash between the two leaves a blob
    that is nobody's until it is put again. Returns the digest and how many octets it is of."""
    stored, size = await _store_body(gateway, request, expect)
    if owner:
        await gateway.backends.sessions.own_blob(owner, stored)
    return stored, size


async def _store_of_run(
    gateway: Gateway, request: Request, expect: str, run: tuple[SessionView, RunView]
) -> tuple[str, int]:
    """As ``_store``, within what the run may store, in the namespace of its session whatever it says."""
    uid = run[0].offer.session_uid
    with gateway.quotas.upload(uid, run[1]) as upload:
        try:
            stored, size = await _store_body(gateway, request, expect, upload.take)
        except Refusal as refusal:
            if refusal.reason == QUOTA_EXCEEDED:
                await discard(request, gateway.config.blob_limit)
            raise
        upload.stored(await gateway.backends.sessions.own_blob_of_run(uid, run[1].run, stored, size))
    return stored, size


async def _store_body(
    gateway: Gateway, request: Request, expect: str | None, arrived: Callable[[int], None] = lambda _: None
) -> tuple[str, int]:
    """Store the body; ``arrived`` is told how much as it comes, and may refuse. The caller's mistake about the digest
    is told apart from damage. It is hashed once, where it is stored."""
    size = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal size
        async for chunk in capped(request, gateway.config.blob_limit):
            size += len(chunk)
            arrived(len(chunk))
            yield chunk

    try:
        content = await _at_once(counted())
        stored = await gateway.backends.content.store(content, expect=expect, limit=gateway.config.blob_limit)
    except DigestMismatch as error:
        raise Refusal(
            422,
            "DigestMismatch",
            f"the body is {error.actual}, not {expect}; nothing was stored",
            expected=expect,
            actual=error.actual,
        ) from error
    return stored, size


async def _at_once(chunks: AsyncIterator[bytes]) -> bytes | AsyncIterator[bytes]:
    """The whole of a small body; of a larger one, all of it as a stream."""
    begun = bytearray()
    async for chunk in chunks:
        begun += chunk
        if len(begun) > _SMALL_OCTETS:
            return _resumed(bytes(begun), chunks)
    return bytes(begun)


async def _resumed(begun: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begun
    async for chunk in chunks:
        yield chunk


async def _held_back(content: ContentStore, digest: str) -> AsyncIterator[bytes]:
    """Each chunk one later: the last one goes out only after the store has verified the whole."""
    held = b""
    async for chunk in content.resolve(digest):
        if held:
            yield held
        held = chunk
    yield held
