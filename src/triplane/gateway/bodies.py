"""Request bodies: read with a cap, parsed once, checked against a model; a refusal names the place."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.requests import ClientDisconnect

from triplane.domain.session import Outcome, Usage
from triplane.errors import InvalidInput, TooLarge
from triplane.gateway.answers import Refusal, malformed
from triplane.gateway.config import BODY_LIMIT

Word = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$")]
DigestText = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Body(BaseModel):
    """camelCase on the wire, unknown members refused, no conversion of types."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class HelloBody(Body):
    instance: Word


class ClaimBody(Body):
    runner: Word
    instance: Word
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] = 0.0


class StartBody(Body):
    facts: dict[str, Any]


class UsageBody(Body):
    input_tokens: Count = 0
    output_tokens: Count = 0
    cost_minor_units: Count = 0

    def usage(self) -> Usage:
        """As the store takes it."""
        return Usage(self.input_tokens, self.output_tokens, self.cost_minor_units)


class RenewBody(Body):
    counter: Annotated[int, Field(ge=1, le=2**53 - 1)]
    usage: UsageBody | None = None


class RecordsBody(Body):
    sequence: Annotated[int, Field(ge=1, le=2**31 - 1)]
    records: list[dict[str, Any]]
    held_milliseconds: Annotated[int, Field(ge=0, le=86_400_000)] = 0


class ReportedOutput(Body):
    name: Annotated[str, Field(max_length=63)]
    path: Annotated[str | None, Field(max_length=512)] = None
    digest: DigestText
    media_type: Annotated[str | None, Field(max_length=127)] = None


class FinishBody(Body):
    outcome: Annotated[Outcome, Field(strict=False)]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=16384)] = ""
    exit_code: Annotated[int | None, Field(ge=-255, le=255)] = None
    outputs: Annotated[list[ReportedOutput], Field(max_length=64)] = []
    reflection: DigestText | None = None
    usage: UsageBody = UsageBody()


class PrincipalBody(Body):
    username: Annotated[str, Field(min_length=1, max_length=1024)]
    uid: Annotated[str, Field(max_length=1024)] = ""


class ContractBody(Body):
    digest: DigestText
    media_type: Annotated[str, Field(min_length=1, max_length=127)]
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


BodyType = TypeVar("BodyType", bound=Body)


async def read_body(request: Request, model: type[BodyType], *, limit: int = BODY_LIMIT) -> BodyType:
    """The checked body. Raises 400 (not JSON), 413 (over ``limit`` octets), 422 (wrong members, named)."""
    octets = bytearray()
    async for chunk in capped(request, limit):
        octets += chunk
    try:
        document = orjson.loads(bytes(octets))
    except orjson.JSONDecodeError as error:
        raise malformed(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise malformed("the body is not a JSON object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{place}: {first['msg']}") from error


async def capped(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives; raises ``TooLarge`` as soon as it is known to exceed ``limit`` octets."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(f"the body has {announced} octets; at most {limit}")
    total = 0
    try:
        async for chunk in request.stream():
            total += len(chunk)
            if total > limit:
                raise TooLarge(f"the body has more than {limit} octets")
            if chunk:
                yield chunk
    except ClientDisconnect as error:
        raise malformed("the caller hung up before the end of the body") from error


async def discard(request: Request, limit: int) -> None:
    """Read what is still to come of a refused body, up to ``limit`` octets: who is still sending when the connection
    closes never sees the answer, takes it for an outage and sends all of it again."""
    with suppress(Refusal, TooLarge, RuntimeError):  # the last: all of it was read already (Starlette)
        async for _ in capped(request, limit):
            pass
