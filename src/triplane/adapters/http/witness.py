"""A witness of others over HTTP (C2SP tlog-witness, "add-checkpoint")."""

import re
from collections.abc import Sequence
from typing import Final

import httpx

from triplane.adapters.anchors.url import check_url
from triplane.audit.notekey import KeyType, VerifierKey, parse_key
from triplane.audit.witness import conflicting_size, make_request
from triplane.errors import InvalidInput, InvalidNote, Unavailable
from triplane.ports.notary import Cosignatures, OtherSize, Refusal

TIMEOUT: Final = httpx.Timeout(3.0)
MAX_ANSWER: Final = 64 * 1024
_NAMED = re.compile(r"(?P<key>[^\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}?)=(?P<url>https?://\S+)")
_RETRIED: Final = frozenset({408, 429})


class HttpWitness:
    """One witness: its key, and the prefix of its URLs."""

    def __init__(self, key: VerifierKey, url: str) -> None:
        self._key = key
        self._url = url.rstrip("/")
        self._client: httpx.AsyncClient | None = None

    @property
    def key(self) -> VerifierKey:
        """See ``Witness.key``."""
        return self._key

    async def add_checkpoint(
        self, old_size: int, proof: Sequence[bytes], checkpoint: bytes
    ) -> Cosignatures | OtherSize | Refusal:
        """See ``Witness.add_checkpoint``."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, follow_redirects=False)
        body = bytearray()
        try:
            request = make_request(old_size, proof, checkpoint)
            async with self._client.stream("POST", f"{self._url}/add-checkpoint", content=request) as answer:
                status = answer.status_code
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise Unavailable(f"{self._url} answers with over {MAX_ANSWER} octets: no witness does")
        except httpx.HTTPError as error:
            raise Unavailable(f"{self._url} does not answer ({type(error).__name__}: {error})") from error
        if status == httpx.codes.OK:
            return Cosignatures(bytes(body))
        if status == httpx.codes.CONFLICT:
            return OtherSize(conflicting_size(bytes(body)))
        said = bytes(body[:300]).decode(errors="replace").strip()
        if status >= 500 or status in _RETRIED:
            raise Unavailable(f"{self._url} answers {status}: {said}")
        return Refusal(status, said)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def open_witnesses(text: str) -> list[HttpWitness]:
    """The witnesses of the setting: ``<vkey>=<url>``, separated by white space. Raises ``InvalidInput``."""
    witnesses = [_opened(item) for item in text.split()]
    names = [witness.key.name for witness in witnesses]
    if len({witness.key.public_key for witness in witnesses}) < len(names) or len(set(names)) < len(names):
        raise InvalidInput("TRIPLANE_WITNESSES names one witness twice: each has a name and a key of its own")
    return witnesses


def _opened(item: str) -> HttpWitness:
    found = _NAMED.fullmatch(item)
    if found is None:
        raise InvalidInput(
            f"TRIPLANE_WITNESSES: {item[:200]!r} is no witness: write <name>+<8 hex digits>+<base64>=https://…"
        )
    try:
        key = parse_key(found["key"])
    except InvalidNote as error:
        raise InvalidInput(f"TRIPLANE_WITNESSES: {error}") from error
    if key.type is not KeyType.COSIGNATURE_V1:
        raise InvalidInput(f"TRIPLANE_WITNESSES: {key} is no witness's key: its type must be 0x04 (cosignature/v1)")
    check_url(found["url"], "TRIPLANE_WITNESSES")
    return HttpWitness(key, found["url"])
