"""JSON-RPC 2.0 as MCP uses it: reading a message of a peer that may be hostile, and writing our own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from triplane.errors import TriplaneError

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Octets of one message, either way."""
MAX_DEPTH: Final = 64

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603

RequestId = str | int


class BadMessage(TriplaneError):
    """What came is no JSON-RPC message."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that wants an answer, or, without an id, a notification."""

    method: str
    params: Mapping[str, Any]
    id: RequestId | None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: a result or an error."""

    id: RequestId | None
    result: Mapping[str, Any] | None = None
    code: int = 0
    message: str = ""


def read(octets: bytes) -> list[Request | Response]:
    """The messages in these octets: one, or (MCP 2025-03-26) a batch. Raises ``BadMessage``."""
    if len(octets) > MAX_MESSAGE:
        raise BadMessage(f"a message of {len(octets)} octets; at most {MAX_MESSAGE}")
    try:
        found = json.loads(octets.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {str(error)[:200]}") from error
    if _depth(found) > MAX_DEPTH:
        raise BadMessage(f"nested deeper than {MAX_DEPTH} levels")
    items = found if isinstance(found, list) else [found]
    if not items or len(items) > 100:
        raise BadMessage("a batch of 1 to 100 messages was expected")
    return [_message(item) for item in items]


def request(id_: RequestId, method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A request's octets, without a line end."""
    return _octets({"jsonrpc": "2.0", "id": id_, "method": method, **_params(params)})


def notification(method: str, params: Mapping[str, Any] | None = None) -> bytes:
    """A notification's octets."""
    return _octets({"jsonrpc": "2.0", "method": method, **_params(params)})


def result(id_: RequestId, value: Mapping[str, Any]) -> bytes:
    """A response's octets."""
    return _octets({"jsonrpc": "2.0", "id": id_, "result": value})


def error(id_: RequestId | None, code: int, message: str) -> bytes:
    """An error's octets."""
    return _octets({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message}})


def _params(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if params is None else {"params": params}


def _octets(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def _message(item: Any) -> Request | Response:
    if not isinstance(item, dict) or item.get("jsonrpc") != "2.0":
        raise BadMessage("not a JSON-RPC 2.0 message")
    id_ = item.get("id")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        raise BadMessage("an id is a string or an integer")
    if "method" in item:
        params = item.get("params", {})
        if not isinstance(item["method"], str) or not isinstance(params, dict):
            raise BadMessage("a method is a string, its params an object")
        return Request(item["method"], params, id_)
    if isinstance(item.get("result"), dict):
        return Response(id_, result=item["result"])
    failure = item.get("error")
    if isinstance(failure, dict) and isinstance(failure.get("code"), int):
        return Response(id_, code=failure["code"], message=str(failure.get("message", ""))[:2000])
    raise BadMessage("neither a request nor an answer")


def _depth(value: Any) -> int:
    """Levels of nesting, up to one more than are allowed; without recursion."""
    level, waiting = 0, [value]
    while waiting and level <= MAX_DEPTH:
        level += 1
        waiting = [
            item
            for each in waiting
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
    return level


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
