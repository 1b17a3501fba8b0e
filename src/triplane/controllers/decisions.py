"""Reads what was decided of Tasks back from the log."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from triplane.audit.model import EventFilter, Recorded
from triplane.controllers.context import Context
from triplane.domain.task_facts import Decisions
from triplane.domain.task_log import TASK_EVENTS, read_decisions
from triplane.errors import BlobMissing, Corrupt

PAGE: Final = 5000
"""Entries read at once."""


class DecisionReader:
    """One reader serves all Tasks. What is final is read once."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self, uid: str) -> tuple[Decisions, list[Recorded]]:
        """What the log holds of the Task, and the entries: none of a Task that is over and was read before."""
        if (final := self._context.decided.get(uid)) is not None:
            return final, []
        entries = await self._context.log.query(EventFilter(uid=uid, types=TASK_EVENTS))
        return await self._decisions(uid, entries), entries

    async def read_many(self, uids: Iterable[str]) -> Mapping[str, Decisions]:
        """What the log holds of each of these Tasks; at most one query, none for those that are over and known."""
        wanted = set(uids)
        found = {uid: final for uid in wanted if (final := self._context.decided.get(uid)) is not None}
        unknown = frozenset(wanted - found.keys())
        by_uid: defaultdict[str, list[Recorded]] = defaultdict(list)
        after = -1
        while unknown:
            page = await self._context.log.query(EventFilter(uids=unknown, types=TASK_EVENTS), after=after, limit=PAGE)
            for entry in page:
                by_uid[entry.entry["subject"]["uid"]].append(entry)
            if len(page) < PAGE:
                break
            after = page[-1].seq
        for uid in unknown:
            found[uid] = await self._decisions(uid, by_uid[uid])
        return found

    async def _decisions(self, uid: str, entries: Sequence[Recorded]) -> Decisions:
        texts = {}
        for entry in entries:
            data = entry.entry["data"]
            digest = data.get("findingsDigest") or data.get("messageDigest")
            if digest is not None:
                texts[digest] = await self._lines(digest)
        decisions = read_decisions([entry.entry for entry in entries], texts)
        self._context.decided.note(uid, decisions)
        return decisions

    async def _lines(self, digest: str) -> tuple[str, ...]:
        """Prose may have been erased or damaged; the decision it belongs to stands all the same."""
        try:
            return await self._context.load_lines(digest)
        except (BlobMissing, Corrupt):
            return (f"(the text {digest} is no longer in the content store)",)
