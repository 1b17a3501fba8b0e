"""A client of the gateway's HTTP API (docs/reference/gateway-api.md) for people's commands."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from triplane import errors

_SECONDS = 30.0
_SILENCE_SECONDS = 60.0
"""The stream of the log says something every 15."""
_BY_REASON: dict[str, type[errors.TriplaneError]] = {
    "BlobErased": errors.BlobErased,
    "BlobLost": errors.BlobLost,
    "BlobMissing": errors.BlobMissing,
    "BlobQuarantined": errors.BlobQuarantined,
    "Conflict": errors.Conflict,
    "Corrupt": errors.Corrupt,
    "Forbidden": errors.Forbidden,
    "RolledBack": errors.Conflict,
}
"""Reasons that say more than their status."""


class Gateway:
    """One caller's connection. Raises the errors of ``triplane.errors``."""

    def __init__(self, url: str, token: str, namespace: str = "") -> None:
        self._url = url
        self.namespace = namespace  # where blobs are put, and where they are looked for
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=_SECONDS, trust_env=False
        )

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def store(self, content: Iterable[bytes], digest: str) -> None:
        """Store a blob under its digest, which the gateway checks."""
        with self._reaching():
            answer = self._client.put(
                f"/v1/blobs/{digest}", content=content, params={"namespace": self.namespace}, timeout=300
            )
        _check(answer)

    def fetch(self, digest: str) -> Iterator[bytes]:
        """A blob in chunks; ``Corrupt`` at the end if it is not what its digest says."""
        hashed = hashlib.sha256()
        with self._streaming(f"/v1/blobs/{digest}", {"namespace": self.namespace}) as answer:
            for chunk in answer.iter_bytes():
                hashed.update(chunk)
                yield chunk
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise errors.Corrupt(f"the gateway sent sha256:{hashed.hexdigest()} for {digest}: do not use it")

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """A JSON document."""
        with self._reaching():
            answer = self._client.get(path, params=_given(query))
        _check(answer)
        loaded = answer.json()
        return loaded if isinstance(loaded, dict) else {"items": loaded}

    def entries(self, **query: Any) -> list[dict[str, Any]]:
        """Entries of the log, at most ``limit`` (1,000); an answer that ended early is followed by the next."""
        found: list[dict[str, Any]] = []
        limit = query.pop("limit", 1000)
        while True:
            answer = self.get("/v1/log/entries", **query, limit=limit - len(found))
            found += answer["entries"]
            if answer.get("next") is None or len(found) >= limit:
                return found
            query["before" if query.get("newest") else "after"] = answer["next"]

    def octets(self, path: str, **query: Any) -> bytes:
        """An answer that is no JSON, whole."""
        with self._reaching():
            answer = self._client.get(path, params=_given(query))
        _check(answer)
        return answer.content

    def erase(self, digest: str) -> None:
        """Erase a blob everywhere."""
        with self._reaching():
            answer = self._client.delete(f"/v1/blobs/{digest}", timeout=300)
        _check(answer)

    def work(self, method: str, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The lines of a long answer (docs/reference/gateway-api.md#the-content-store); the last is the result. Raises
        what the answer says, and ``Unavailable`` when it breaks off."""
        ended = False
        with self._streaming(path, _given(query), method) as answer:
            for text in answer.iter_lines():
                line = json.loads(text) if text.strip() else {}
                _check_line(line)
                ended = ended or "result" in line
                if line and "working" not in line:
                    yield line
        if not ended:
            raise errors.Unavailable("the gateway stopped before the work was done; run it again")

    def lines(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The objects of an NDJSON answer as they come; a stream that breaks off is ``Unavailable``. Raises what the
        answer says ended it."""
        with self._streaming(path, _given(query)) as answer:
            for text in answer.iter_lines():
                if text.strip():
                    line = json.loads(text)
                    _check_line(line)
                    yield line

    def events(self, path: str, *, last: int, **query: Any) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Server-Sent Events behind the one numbered ``last``: their numbers and data, which an event that only tells
        how far the stream is has not. A stream that breaks off or falls silent is ``Unavailable``. Raises what the
        answer says ended it."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(last)} if last >= 0 else {})}
        number, data = last, ""
        with self._streaming(path, _given(query), headers=headers, silence=_SILENCE_SECONDS) as answer:
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    number = int(value)
                elif name == "data":
                    data = value
                elif not line:
                    found = json.loads(data) if data else None
                    _check_line(found or {})
                    yield number, found
                    data = ""

    @contextmanager
    def _streaming(
        self,
        path: str,
        query: dict[str, Any],
        method: str = "GET",
        *,
        headers: dict[str, str] | None = None,
        silence: float | None = None,  # a followed stream may be silent for hours
    ) -> Iterator[httpx.Response]:
        patient = httpx.Timeout(_SECONDS, read=silence)
        with (
            self._reaching(),
            self._client.stream(method, path, params=query, timeout=patient, headers=headers) as answer,
        ):
            if not answer.is_success:
                answer.read()
                _check(answer)
            yield answer

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise errors.Unavailable(
                f"cannot reach the gateway {self._url}: {what}; is it running (`triplane up`)?"
            ) from error


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _check(answer: httpx.Response) -> None:
    """Raise the error a refusal stands for, in the gateway's own words."""
    if answer.is_success:
        return
    try:
        error = answer.json()["error"]
        raise _error(error, answer.status_code, f"{error['message']}")
    except (ValueError, KeyError, TypeError):
        said = answer.text[:200] or answer.reason_phrase
    raise _error({}, answer.status_code, f"the gateway answered {answer.status_code}: {said}")


def _check_line(line: dict[str, Any]) -> None:
    """Raise the error with which an answer ended that had begun."""
    if "error" in line:
        raise _error(line["error"], 503, str(line["error"].get("message")))


def _error(told: dict[str, Any], status: int, message: str) -> errors.TriplaneError:
    reason = str(told.get("reason"))
    if reason == "Archived":
        return errors.Archived(message, upto=int(told["upto"]))
    by_code: dict[int, type[errors.TriplaneError]] = {
        400: errors.InvalidInput,
        401: errors.Forbidden,
        403: errors.Forbidden,
        404: errors.NotFound,
        409: errors.Conflict,
        410: errors.BlobErased,
        413: errors.TooLarge,
        422: errors.InvalidInput,
        503: errors.Unavailable,
    }
    return (_BY_REASON.get(reason) or by_code.get(status, errors.Unavailable))(message)
