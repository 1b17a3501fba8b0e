"""Has the API server gone back in time? After a restore from backup the log is ahead of it, and halting is right:
objects the log knows are missing or old, and reconciling would act on a past that others have moved on from.

The highest resourceVersion seen is kept in the session store, per cluster (UID of ``kube-system``) and per accepted
restore, because a stored mark only ever rises.
"""

from triplane.errors import Conflict
from triplane.ports import Cluster, SessionStore


class Rewound(Conflict):
    """The API server's state is older than what was seen of it before."""


def rewound(seen: int, known: int) -> Rewound:
    """The error, with what to do about it."""
    return Rewound(
        f"the API server's resourceVersion is {seen}, but {known} was seen before: it was restored from a "
        "backup, and the log is ahead of it. Check what is missing with `triplane log query`, then start "
        "the operator once with TRIPLANE_ACCEPT_RESTORE=true to go on from the restored state"
    )


class HighWater:
    """The highest resourceVersion ever seen of this cluster, kept across restarts."""

    def __init__(self, cluster: Cluster, sessions: SessionStore, *, accept_restore: bool = False) -> None:
        """``accept_restore``: a restore found at start-up is accepted, once, as the new beginning."""
        self._cluster = cluster
        self._sessions = sessions
        self._accept = accept_restore
        self._identity = ""
        self._restores = 0
        self._mark: str | None = None

    async def check(self, seen: int) -> None:
        """Compare and raise the mark with ``seen``, the resourceVersion of a LIST.

        Raises ``Rewound`` when it lies below the mark, and what the stores raise.
        """
        mark = self._mark or await self._open()
        known = await self._sessions.cursor(mark)
        if seen < known and not self._accept:
            raise rewound(seen, known)
        if seen < known:
            mark = await self._begin_anew()
        await self._sessions.set_cursor(mark, seen)
        self._accept = False
        self._mark = mark

    async def _open(self) -> str:
        self._identity = await self._cluster_uid()
        self._restores = max(0, await self._sessions.cursor(f"api-restores/{self._identity}"))
        return self._name()

    async def _begin_anew(self) -> str:
        self._restores += 1
        await self._sessions.set_cursor(f"api-restores/{self._identity}", self._restores)
        return self._name()

    def _name(self) -> str:
        return f"api-version/{self._identity}/{self._restores}"

    async def _cluster_uid(self) -> str:
        system = await self._cluster.get("Namespace", "", "kube-system")
        return str(system["metadata"]["uid"]) if system is not None else "unknown"
