"""Account store in memory: the twin of Postgres', for tests and for trying things out."""

from dataclasses import replace
from secrets import token_hex

from triplane.errors import Conflict
from triplane.ports import PrincipalRow


class MemoryAccountStore:
    """``triplane.ports.AccountStore`` in this process; gone with it."""

    def __init__(self) -> None:
        self._principals: dict[str, PrincipalRow] = {}
        self._tokens: dict[str, tuple[str, str]] = {}

    async def principal(self, username: str, uid: str) -> PrincipalRow:
        """See ``AccountStore.principal``."""
        row = PrincipalRow(f"p-{token_hex(16)}", username, uid, salt=token_hex(32), created=False)
        kept = self._principals.setdefault(username, row)
        return replace(kept, created=kept is row)

    async def principal_by_id(self, principal_id: str) -> PrincipalRow | None:
        """See ``AccountStore.principal_by_id``."""
        return next((row for row in self._principals.values() if row.id == principal_id), None)

    async def put_token(self, name: str, role: str, sha256: str) -> None:
        """See ``AccountStore.put_token``. Raises ``Conflict`` when another name has this very token."""
        for other, (_, held) in self._tokens.items():
            if held == sha256 and other != name:
                raise Conflict(f"the token of {name} is already that of {other}; mint another")
        self._tokens[name] = (role, sha256)

    async def token_role(self, sha256: str) -> tuple[str, str] | None:
        """See ``AccountStore.token_role``."""
        return next(((name, role) for name, (role, held) in self._tokens.items() if held == sha256), None)

    async def close(self) -> None:
        """Nothing to close."""
