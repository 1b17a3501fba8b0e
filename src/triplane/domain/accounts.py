"""Whose an account is: several accounts of one person are one, wherever independence is asked.

The API server knows accounts, not people: somebody who may make ServiceAccounts has as many names as they like. Only
whoever runs the installation can say which of them belong together, so that stands in its settings and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from triplane.domain.pattern import fits


@dataclass(frozen=True, slots=True)
class Owned:
    """Accounts that belong to one person."""

    accounts: str
    """An authenticated user name. ``*`` stands for any characters but ``/``: the ServiceAccounts of a namespace are
    ``system:serviceaccount:team-a:*``."""
    person: str
    """Their own user name."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The first line that fits says it; an account of no line is its own person."""

    owned: Sequence[Owned] = ()

    def person(self, username: str) -> str:
        """The user name that stands for whoever is behind this one."""
        return next((item.person for item in self.owned if fits(item.accounts, username)), username)
