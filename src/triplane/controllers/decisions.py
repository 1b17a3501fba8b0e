"""Reads what was decided of a Task back from the log."""

from triplane.audit.model import EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.domain.task_facts import Decisions
from triplane.domain.task_log import TASK_EVENTS, read_decisions
from triplane.errors import BlobMissing, Corrupt


class DecisionReader:
    """One reader serves all Tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self, uid: str) -> tuple[Decisions, list[Recorded]]:
        """What the log holds of the Task, and the entries."""
        entries = await self._context.log.query(EventFilter(uid=uid, types=TASK_EVENTS))
        texts = {}
        for entry in entries:
            data = entry.entry["data"]
            digest = data.get("findingsDigest") or data.get("messageDigest")
            if digest is not None:
                texts[digest] = await self._lines(digest)
        return read_decisions([entry.entry for entry in entries], texts), entries

    async def _lines(self, digest: str) -> tuple[str, ...]:
        """Prose may have been erased or damaged; the decision it belongs to stands all the same."""
        try:
            return await self._context.load_lines(digest)
        except (BlobMissing, Corrupt):
            return (f"(the text {digest} is no longer in the content store)",)
