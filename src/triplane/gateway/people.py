"""People: the API server says who they are (TokenReview) and what they may do (SubjectAccessReview).

The gateway asks with its own account's kubeconfig and plain HTTP. Answers are kept per token for at most a minute, so
a withdrawn right binds within that time.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from triplane.adapters.kube import kubeconfig
from triplane.api.text import GROUP
from triplane.errors import Forbidden, InvalidInput, Unavailable
from triplane.gateway.answers import Refusal

_AUTHENTICATION: Final = "authentication.k8s.io/v1"
_AUTHORIZATION: Final = "authorization.k8s.io/v1"
_REFUSED_SECONDS: Final = 5.0
_MAX_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Person:
    """An authenticated user, as the API server sees them."""

    username: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, Any] = field(hash=False, compare=False)
    token_hash: str
    """Not the token: nothing here can be used to act as the person."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A user by name, as an authorizer sees them; not known by a token."""

    username: str
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A right on a ``triplane.dev`` resource. An empty namespace means all of them."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        place = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.verb} {self.resource}.{GROUP} {place}"


class ApiServerAccount:
    """The gateway's own account at the API server, from a kubeconfig; read again when it is refused."""

    def __init__(self, kubeconfig: Path) -> None:
        self._path = kubeconfig
        self._client: httpx.AsyncClient | None = None

    async def post(self, group: str, resource: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Create a review and return its status. Raises ``Unavailable`` naming the API server."""
        kind = {"tokenreviews": "TokenReview", "subjectaccessreviews": "SubjectAccessReview"}[resource]
        body = {"apiVersion": group, "kind": kind, "spec": spec}
        answer = await self._ask("POST", f"/apis/{group}/{resource}", body)
        if answer.status_code not in (200, 201):
            raise Unavailable(
                f"the API server refuses the gateway's {kind} with {answer.status_code}; "
                "check the gateway's account and its rights"
            )
        status = answer.json().get("status")
        return status if isinstance(status, dict) else {}

    async def get(self, path: str) -> dict[str, Any] | None:
        """An object as it is now; None if there is none. Raises ``Refusal`` (403) where the account may not read it,
        ``Unavailable`` otherwise."""
        answer = await self._ask("GET", path, None)
        if answer.status_code == 404:
            return None
        if answer.status_code == 403:
            raise Refusal(403, "Forbidden", f"the gateway's account may not get {path}")
        if answer.status_code != 200:
            raise Unavailable(f"the API server answers the gateway's GET {path} with {answer.status_code}; try again")
        document = answer.json()
        return document if isinstance(document, dict) else None

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        for _ in range(2):
            client = self._client or self._open()
            try:
                answer = await client.request(method, path, json=body)
            except httpx.HTTPError as error:
                raise Unavailable(
                    f"the API server at {client.base_url} does not answer ({type(error).__name__}); try again"
                ) from error
            if answer.status_code != 401:
                break
            await self.close()
        return answer

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        try:
            access = kubeconfig.load((self._path,))
            if not access.verify:
                raise InvalidInput(f"{self._path} switches certificate verification off; give it the cluster's CA")
            self._client = httpx.AsyncClient(
                base_url=access.server,
                headers={"Authorization": f"Bearer {access.token}"} if access.token else {},
                verify=access.tls(),
                timeout=10.0,
                trust_env=False,
            )
        except (OSError, ValueError, InvalidInput) as error:
            raise Unavailable(f"the gateway's kubeconfig {self._path} cannot be used: {error}") from error
        return self._client


class People:
    """Reviews tokens and access, with a small memory."""

    def __init__(self, account: ApiServerAccount | None, *, seconds: float, monotonic: Callable[[], float]) -> None:
        if seconds > 60:
            raise InvalidInput("answers about people are kept for at most 60 seconds")
        self._account = account
        self._seconds = seconds
        self._monotonic = monotonic
        self._persons: dict[str, tuple[float, Person | None]] = {}
        self._rights: dict[tuple[str, Access], tuple[float, bool]] = {}

    async def review(self, token: str) -> Person | None:
        """Whose token this is; None when the API server does not accept it, or there is none to ask."""
        if self._account is None:
            return None
        token_hash = hashlib.sha256(token.encode()).hexdigest()
        kept = self._persons.get(token_hash)
        if kept is not None and kept[0] > self._monotonic():
            return kept[1]
        status = await self._account.post(_AUTHENTICATION, "tokenreviews", {"token": token})
        person = _person(status, token_hash)
        _keep(self._persons, token_hash, (self._deadline(person is not None), person), self._monotonic())
        return person

    async def require(self, person: Person, access: Access) -> None:
        """Raise ``Forbidden`` unless the API server grants the person this access."""
        if not await self.allows(person, access):
            raise self.refusal(person, access)

    def refusal(self, person: Person, access: Access) -> Forbidden:
        """What ``require`` raises."""
        return Forbidden(f"user {person.username} may not {access}; ask an admin for that right")

    async def allows(self, person: Person, access: Access) -> bool:
        """Whether the API server grants the person this access."""
        key = (person.token_hash, access)
        kept = self._rights.get(key)
        if kept is not None and kept[0] > self._monotonic():
            return kept[1]
        allowed = await self._ask(person, access)
        _keep(self._rights, key, (self._deadline(allowed), allowed), self._monotonic())
        return allowed

    async def may(self, subject: Subject, *, verb: str, resource: str, namespace: str, name: str) -> bool:
        """Whether the API server would let them do it with this core resource now; asked anew every time."""
        if self._account is None:
            return False
        attributes = {"group": "", "verb": verb, "resource": resource, "namespace": namespace, "name": name}
        spec = {"user": subject.username, "groups": list(subject.groups), "resourceAttributes": attributes}
        return _granted(await self._account.post(_AUTHORIZATION, "subjectaccessreviews", spec))

    async def read(self, path: str) -> dict[str, Any] | None:
        """An object as ``ApiServerAccount.get`` gives it. ``Unavailable`` where the gateway has no account."""
        if self._account is None:
            raise Unavailable("the gateway has no account at the API server: set TRIPLANE_KUBECONFIG for it")
        return await self._account.get(path)

    async def close(self) -> None:
        if self._account is not None:
            await self._account.close()

    async def _ask(self, person: Person, access: Access) -> bool:
        if self._account is None:
            return False
        attributes = {"group": GROUP, "verb": access.verb, "resource": access.resource}
        if access.namespace:
            attributes["namespace"] = access.namespace
        if access.name:
            attributes["name"] = access.name
        spec = {
            "user": person.username,
            "uid": person.uid,
            "groups": list(person.groups),
            "extra": dict(person.extra),
            "resourceAttributes": attributes,
        }
        return _granted(await self._account.post(_AUTHORIZATION, "subjectaccessreviews", spec))

    def _deadline(self, granted: bool) -> float:
        return self._monotonic() + (self._seconds if granted else min(self._seconds, _REFUSED_SECONDS))


def _granted(status: Mapping[str, Any]) -> bool:
    return status.get("allowed") is True and status.get("denied") is not True


def _person(status: Mapping[str, Any], token_hash: str) -> Person | None:
    user = status.get("user") or {}
    if status.get("authenticated") is not True or not user.get("username"):
        return None
    return Person(
        user["username"],
        user.get("uid") or "",
        tuple(user.get("groups") or ()),
        user.get("extra") or {},
        token_hash,
    )


def _keep(cache: dict[Any, tuple[float, Any]], key: Any, entry: tuple[float, Any], now: float) -> None:
    """Remember, within bounds: what has expired goes first, then everything."""
    if len(cache) >= _MAX_CACHED:
        for old in [old for old, (deadline, _) in cache.items() if deadline <= now]:
            del cache[old]
        if len(cache) >= _MAX_CACHED:
            cache.clear()
    cache[key] = entry
