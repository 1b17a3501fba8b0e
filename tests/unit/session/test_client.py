"""What the gateway answers, as errors; and where tokens may be sent."""

import json

import pytest

from triplane.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    SequenceGap,
    TooLarge,
    TriplaneError,
    Unavailable,
)
from triplane.session.client import RunEnded, _checked, _raise_for

CALL = "POST /v1/sessions/s/runs/1/renew"


def answer(reason: str, **extra: object) -> bytes:
    return json.dumps({"error": {"reason": reason, "message": "why", **extra}}).encode()


@pytest.mark.parametrize(
    ("status", "content", "call", "expected"),
    [
        pytest.param(400, answer("Malformed"), CALL, InvalidInput, id="malformed"),
        pytest.param(401, answer("Unauthorized"), CALL, RunEnded, id="a run token that is not valid any more"),
        pytest.param(401, answer("Unauthorized"), "POST /v1/claims", Forbidden, id="a service token unknown there"),
        pytest.param(403, answer("Forbidden"), CALL, Forbidden, id="forbidden"),
        pytest.param(404, answer("NotFound"), CALL, NotFound, id="not there"),
        pytest.param(409, answer("RunEnded"), CALL, RunEnded, id="the run is over"),
        pytest.param(409, answer("Conflict"), CALL, Conflict, id="a contradiction"),
        pytest.param(409, answer("SequenceGap", expected=3), CALL, SequenceGap, id="a gap"),
        pytest.param(413, answer("TooLarge"), CALL, TooLarge, id="too large"),
        pytest.param(422, answer("DigestMismatch"), CALL, InvalidInput, id="another digest"),
        pytest.param(503, answer("Unavailable"), CALL, Unavailable, id="unavailable"),
        pytest.param(502, b"<html>", CALL, Unavailable, id="a proxy's own words"),
        pytest.param(500, b"", CALL, TriplaneError, id="an internal error"),
    ],
)
def test_answers(status: int, content: bytes, call: str, expected: type[Exception]) -> None:
    with pytest.raises(expected) as caught:
        _raise_for(status, content, call)

    assert type(caught.value) is expected or expected is TriplaneError
    assert call in str(caught.value)


def test_a_gap_names_what_is_expected() -> None:
    with pytest.raises(SequenceGap) as caught:
        _raise_for(409, answer("SequenceGap", expected=3), CALL)
    assert caught.value.expected == 3


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:80", id="loopback"),
        pytest.param("http://[::1]:80/", id="loopback, version 6"),
        pytest.param("http://localhost:80", id="localhost"),
        pytest.param("https://gateway.example:443", id="elsewhere with TLS"),
    ],
)
def test_addresses_tokens_may_be_sent_to(url: str) -> None:
    assert _checked(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://gateway.example", id="plain HTTP by name"),
        pytest.param("http://192.0.2.1:80", id="plain HTTP by number"),
        pytest.param("http://127.0.0.1.example", id="a name that looks like loopback"),
        pytest.param("http://localhost@192.0.2.1", id="a user that looks like loopback"),
        pytest.param("file:///etc/passwd", id="another scheme"),
        pytest.param("", id="nothing"),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="loopback"):
        _checked(url)
