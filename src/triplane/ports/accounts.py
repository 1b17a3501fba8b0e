"""Who is who, and the keys of the plane."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from triplane.audit.dsse import Signer


class AccountStore(Protocol):
    """Who is behind a principal id, and which service tokens are valid."""

    async def principal(self, username: str, uid: str) -> "PrincipalRow":
        """The row of this user, made at first sight (keyed by an HMAC of the username)."""
        ...

    async def principal_by_id(self, principal_id: str) -> "PrincipalRow | None": ...

    async def put_token(self, name: str, role: str, sha256: str) -> None:
        """Enrol a service token by its hash; one per name, the new one replaces the old."""
        ...

    async def token_role(self, sha256: str) -> tuple[str, str] | None:
        """``(name, role)`` of the token with this hash."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PrincipalRow:
    """A principal: the random id that stands for a user in the log."""

    id: str
    username: str
    uid: str
    salt: str
    created: bool
    """True when this call made it."""


class SigningKeys(Protocol):
    """Where the operator's private keys lie. Local and quick: no coroutines."""

    def current(self) -> Signer:
        """The key that signs from now on; looks each time, so that a rotation is seen at once. Makes the first.
        Raises ``InvalidInput`` when it is no Ed25519 key, ``Unavailable`` when it cannot be read or made."""
        ...

    def rotate(self) -> Signer:
        """Make a new key and let it sign from now on. The old one stays until it is discarded."""
        ...

    def discard(self, key_id: str) -> bool:
        """Destroy a private key that signs no more; False when it is not there, or cannot be removed. The current one
        stays: ``InvalidInput``."""
        ...

    def list_ids(self) -> Sequence[str]:
        """Ids of the keys that lie here, ascending."""
        ...
