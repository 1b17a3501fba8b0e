"""Contract checks by the gateway: it has the contents, and workers that can be killed."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx
import orjson

from triplane.errors import BlobMissing, Corrupt, Forbidden, InvalidInput, TriplaneError, Unavailable

TIMEOUT: Final = httpx.Timeout(60.0, connect=5.0)
"""Longer than the gateway gives one check."""
_BY_STATUS: Final[dict[int, type[TriplaneError]]] = {
    401: Forbidden,
    403: Forbidden,
    404: BlobMissing,
    409: BlobMissing,
    410: BlobMissing,
}


class GatewayContracts:
    """``triplane.ports.Contracts`` (``POST /v1/contracts``, docs/reference/gateway-api.md). ``url`` and ``token`` are
    asked at every call: a restarted gateway may have moved."""

    def __init__(self, url: Callable[[], str], token: Callable[[], str]) -> None:
        self._url = url
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def problem(self, digest: str, media_type: str, schema: Mapping[str, Any] | None) -> str | None:
        """See ``Contracts.problem``."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)
        try:
            answer = await self._client.post(
                f"{self._url()}/v1/contracts",
                headers={"Authorization": f"Bearer {self._token()}"},
                json={"digest": digest, "mediaType": media_type, "schema": schema},
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway does not answer ({type(error).__name__}: {error}); try again") from error
        if not answer.is_success:
            _raise_for(answer)
        found = orjson.loads(answer.content)["problem"]
        return None if found is None else str(found)


def _raise_for(answer: httpx.Response) -> None:
    try:
        said = orjson.loads(answer.content)["error"]
        reason, message = str(said["reason"]), str(said["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        reason, message = "", answer.text[:300]
    kind = Corrupt if reason == "Corrupt" else _BY_STATUS.get(answer.status_code)
    if kind is None:
        kind = Unavailable if answer.status_code >= 500 or answer.status_code == 429 else InvalidInput
    raise kind(f"the gateway cannot check a contract: {message}")
