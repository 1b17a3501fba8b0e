"""Which key the operator signs with, and what the log tells of it.

A key is told of in the log before it signs anything, and it is retired only when nothing it has signed is still on its
way into the log: so what is logged between the two may bear its signature, and nothing else. Whoever rotates changes a
file (``triplane keys rotate``); the operator sees it at its next signature.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from triplane.audit.dsse import Signer
from triplane.audit.keys import KEY_EVENTS, TrustedKey, key_created, key_retired, keys_of
from triplane.audit.model import EventFilter
from triplane.ports import EventLog, SigningKeys

log = structlog.get_logger(__name__)

_MOST_EVENTS = 10_000


class OperatorKeys:
    """The keys of one operator process. An earlier process is fenced from the log, so nothing of it is on its way."""

    def __init__(self, keys: SigningKeys, event_log: EventLog) -> None:
        self._keys = keys
        self._log = event_log
        self._told: Signer | None = None
        self._old: set[str] = set()
        """In the log, neither retired nor current."""
        self._uses: Counter[str] = Counter()
        self._lock = asyncio.Lock()

    @property
    def origin(self) -> str:
        """Of the log that tells of them."""
        return self._log.origin

    @asynccontextmanager
    async def signer(self) -> AsyncIterator[Signer]:
        """The key that signs now. It is not retired before the block ends: append what it has signed inside.

        Raises ``Unavailable`` (the key or the log), ``InvalidInput`` (the key), ``Fenced``.
        """
        signer = await self.follow()
        self._uses[signer.key_id] += 1
        try:
            yield signer
        finally:
            self._uses[signer.key_id] -= 1

    async def follow(self) -> Signer:
        """Take up a rotation, and retire what has signed its last. Cheap while nothing has changed."""
        async with self._lock:
            current = self._keys.current()
            if self._told is None or self._told.key_id != current.key_id:
                current = await self._take_up(current)
            if done := sorted(key_id for key_id in self._old if not self._uses[key_id]):
                await self._log.append([key_retired(key_id) for key_id in done])
                self._old.difference_update(done)
                log.info("signing keys retired", keys=done)
            self._tidy(current)
            return current

    async def _take_up(self, current: Signer) -> Signer:
        entries = await self._log.query(EventFilter(types=KEY_EVENTS), limit=_MOST_EVENTS)
        known: dict[str, TrustedKey] = {key.key_id: key for key in keys_of(entries)}
        while current.key_id in known and known[current.key_id].retired is not None:
            # Secrets restored from a backup: what this key signs from now on would be worth nothing.
            log.warning("the signing key is retired: another is made", key=current.key_id)
            current = self._keys.rotate()
        if current.key_id not in known:
            await self._log.append([key_created(current.public_key)])
            log.info("a new key signs", key=current.key_id)
        self._old |= {key_id for key_id, key in known.items() if key.retired is None and key_id != current.key_id}
        self._old.discard(current.key_id)
        self._told = current
        return current

    def _tidy(self, current: Signer) -> None:
        """A private key that signs no more is a risk without a use."""
        if self._uses.total() or self._old:
            return
        for key_id in self._keys.list_ids():
            if key_id != current.key_id and not self._keys.discard(key_id):
                log.warning("a retired private key cannot be removed; remove it", key=key_id)
