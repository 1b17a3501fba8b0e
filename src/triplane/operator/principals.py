"""Who is behind a username, as the gateway answers: the operator keeps the random id, never the name.

An id never changes, so an answer is kept for the life of the process.
"""

from collections.abc import Callable

import httpx
import orjson

from triplane.errors import Forbidden, InvalidInput, Unavailable

TIMEOUT = httpx.Timeout(10.0, connect=5.0)
KEPT = 10_000
"""Users remembered; more are asked for again."""


class Principals:
    """``POST /v1/principals`` (docs/reference/gateway-api.md). ``url`` and ``token`` are asked at every call: a
    restarted gateway may have moved."""

    def __init__(self, url: Callable[[], str], token: Callable[[], str]) -> None:
        self._url = url
        self._token = token
        self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False)
        self._known: dict[tuple[str, str], str] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def principal(self, username: str, uid: str) -> str:
        """The principal id of this user, made at first sight.

        Raises ``Unavailable`` while the gateway is away, ``Forbidden`` when it does not take our token,
        ``InvalidInput`` when it refuses the name.
        """
        if found := self._known.get((username, uid)):
            return found
        try:
            answer = await self._client.post(
                f"{self._url()}/v1/principals",
                headers={"Authorization": f"Bearer {self._token()}"},
                json={"username": username, "uid": uid},
            )
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway does not answer ({type(error).__name__}: {error}); try again") from error
        _refuse(answer)
        found = str(orjson.loads(answer.content)["id"])
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[username, uid] = found
        return found

    async def answers(self) -> bool:
        """Whether the gateway is there at all: runners renew their leases through it."""
        try:
            return (await self._client.get(f"{self._url()}/healthz")).is_success
        except (httpx.HTTPError, Unavailable):
            return False


def _refuse(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    what = f"the gateway refuses to name a principal: HTTP {answer.status_code} {answer.text[:300]}"
    if answer.status_code in (401, 403):
        raise Forbidden(f"{what}; the token secrets/token_operator must be enrolled: run `triplane up`")
    if answer.status_code in (400, 422):
        raise InvalidInput(what)
    raise Unavailable(what)
