"""JSON documents of the content store, kept in memory while they are in use: they never change."""

from collections import OrderedDict

LIMIT_OCTETS = 4 * 1024 * 1024
"""As stored; parsed, a document takes about eight times as much."""


class Documents:
    """The documents used last, by digest, within a limit of octets."""

    def __init__(self, limit: int = LIMIT_OCTETS) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, tuple[object, int]] = OrderedDict()
        self.octets = 0
        """Stored size of what is kept."""

    def get(self, digest: str) -> object | None:
        """The document, if it is kept."""
        found = self._kept.get(digest)
        if found is None:
            return None
        self._kept.move_to_end(digest)
        return found[0]

    def put(self, digest: str, document: object, octets: int) -> None:
        """Keep it, and let go of those that were used longest ago. One too large to keep is not kept."""
        if digest in self._kept or octets > self._limit:
            return
        self._kept[digest] = (document, octets)
        self.octets += octets
        while self.octets > self._limit:
            _, (_, freed) = self._kept.popitem(last=False)
            self.octets -= freed

    def __len__(self) -> int:
        return len(self._kept)
