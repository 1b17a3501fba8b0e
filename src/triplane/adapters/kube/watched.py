"""All objects of one kind in memory, by LIST and WATCH (Kubernetes API concepts, "Efficient detection of changes").

For the admission webhook, which must not import the operator's client. Until the first LIST is in, and when the watch
has been away for long, it says so (``missing``): who asks then refuses rather than guess.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
import structlog

from triplane.adapters.kube.lookup import Lookup
from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION
from triplane.errors import TriplaneError, Unavailable

AWAY_SECONDS: Final = 15.0
"""How long the watch may be away before what is known counts as old."""
QUIET_SECONDS: Final = 75.0
"""A watch that says nothing for this long is begun anew: the server sends a bookmark about every minute."""
_RETRY_SECONDS: Final = (0.1, 0.5, 1.0, 2.0)
_PAGE: Final = 500
_log = structlog.get_logger()


class Watched:
    """Objects by (namespace, name). Use it in one event loop."""

    def __init__(self, lookup: Lookup, kind: str) -> None:
        self._lookup = lookup
        self._kind = kind
        self._path = f"/apis/{API_VERSION}/{KINDS[kind].info.plural}"
        self._known: dict[str, dict[str, dict[str, Any]]] = {}
        self._version = ""
        self._synced = False
        self._away_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._away_since = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._follow())

    def missing(self) -> str | None:
        """What is not known now, in words; None when it is."""
        if not self._synced:
            return f"the {self._kind} objects have not been read yet"
        away = 0.0 if self._away_since is None else asyncio.get_running_loop().time() - self._away_since
        return f"the watch of {self._kind} objects has been away for {away:.0f} s" if away > AWAY_SECONDS else None

    def within(self, *namespaces: str) -> Sequence[dict[str, Any]]:
        """The objects of these namespaces. Raises ``Unavailable`` when they are not known now."""
        if (missing := self.missing()) is not None:
            raise Unavailable(missing)
        return [obj for namespace in dict.fromkeys(namespaces) for obj in self._known.get(namespace, {}).values()]

    def find(self, namespace: str, name: str) -> dict[str, Any] | None:
        """One object; None when there is none, or when that is not known now."""
        return None if self.missing() is not None else self._known.get(namespace, {}).get(name)

    async def close(self) -> None:
        """End the watch."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                failures = 0
                await self._watch()
            except (TriplaneError, KeyError, TypeError, ValueError) as error:
                # What is no watch event (KeyError, ...) is answered with a new LIST, like what did not arrive.
                if not isinstance(error, TriplaneError):
                    self._version = ""
                if self._away_since is None:
                    self._away_since = asyncio.get_running_loop().time()
                _log.warning("cannot follow", kind=self._kind, error=repr(error))
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1

    async def _list(self) -> None:
        known: dict[str, dict[str, dict[str, Any]]] = {}
        token = ""
        while True:
            query: dict[str, str | int] = {"limit": _PAGE} | ({"continue": token} if token else {})
            page = await self._lookup.fetch(self._path, query)
            for item in page["items"]:
                metadata = item["metadata"]
                known.setdefault(metadata.get("namespace", ""), {})[metadata["name"]] = item
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._known, self._version, self._synced = known, page["metadata"]["resourceVersion"], True
        self._away_since = None

    async def _watch(self) -> None:
        """Until the server ends it. Forgets the version when that is too old to go on from."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version}
        async with self._lookup.stream(self._path, query, quiet=QUIET_SECONDS) as lines:
            if lines is None:  # 410 Gone
                self._version = ""
                return
            self._away_since = None
            async for line in lines:
                if not self._take(orjson.loads(line)):
                    return

    def _take(self, event: Mapping[str, Any]) -> bool:
        """False when the watch cannot go on from here."""
        said, obj = event["type"], event["object"]
        if said == "ERROR":
            self._version = ""  # whatever it is, a new LIST is right after it
            return False
        metadata = obj["metadata"]
        self._version = metadata["resourceVersion"]
        here = self._known.setdefault(metadata.get("namespace", ""), {})
        if said == "DELETED":
            here.pop(metadata["name"], None)
        elif said in ("ADDED", "MODIFIED"):
            here[metadata["name"]] = obj
        return True
