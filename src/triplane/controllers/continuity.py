"""Reads what the places outside hold, and the log's roots at those sizes: ``domain.continuity`` judges.

The notary asks before it signs and before the operator acts; a restore asks before anything runs on what it restored.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from triplane.audit.checkpoint import Checkpoint
from triplane.audit.merkle import EMPTY_ROOT, CompactRange, leaf_hash, root_plan
from triplane.domain.continuity import Finding, Held, Known, judge, opened
from triplane.errors import Corrupt, TriplaneError
from triplane.ports import Anchor, CheckpointStore, EventLog, Ledger

READ_SECONDS: Final = 10.0
"""A place that has not answered by then is unreachable."""
PAGE: Final = 256
"""Entries read at once: at most 16 MiB."""
OWN_RECORD: Final = "the notary's own record"
PUBLISHED: Final = "the published checkpoints"


async def root_at(log: EventLog, checkpoints: CheckpointStore, size: int) -> bytes:
    """The root of the first ``size`` committed entries: from kept hashes, or from all the octets where those are
    missing. Raises ``Corrupt`` when entries are."""
    if size == 0:
        return EMPTY_ROOT
    plan = root_plan(size)
    try:
        return plan.fold(await checkpoints.hashes(plan.nodes))[0]
    except Corrupt:
        return await _root_of_octets(log, size)


async def examine(
    log: EventLog, checkpoints: CheckpointStore, places: Iterable[Held], known: Known
) -> Sequence[Finding]:
    """How the log stands to each of these places, in the same order. Raises what the log raises."""
    size, _ = await log.head()
    findings = []
    for held in places:
        found = opened(held, known)
        if not isinstance(found, Finding):
            comparable = found.origin == log.origin and found.size <= size
            root = await root_at(log, checkpoints, found.size) if comparable else b""
            found = judge(held, found, Checkpoint(log.origin, size, root))
        findings.append(found)
    return findings


async def look(anchor: Anchor, ledger: Ledger) -> Held:
    """What an anchor holds; that it cannot be read is part of the answer."""
    anchored = await asyncio.to_thread(ledger.anchored, anchor.uri)
    if not anchor.readable:
        return Held(anchor.uri, anchored=anchored, readable=False)
    try:
        async with asyncio.timeout(READ_SECONDS):
            return Held(anchor.uri, await anchor.read(), anchored=anchored)
    except TriplaneError as error:
        return Held(anchor.uri, problem=str(error), anchored=anchored)
    except TimeoutError:
        return Held(anchor.uri, problem=f"no answer within {READ_SECONDS:.0f} s", anchored=anchored)


async def gather_places(checkpoints: CheckpointStore, ledger: Ledger, anchors: Sequence[Anchor]) -> Sequence[Held]:
    """Every place that can speak against the log: the notary's own record, what is published beside the log, and the
    anchors."""
    own = Held(OWN_RECORD, await asyncio.to_thread(ledger.read))
    published = Held(PUBLISHED, await checkpoints.latest())
    return [own, published, *await asyncio.gather(*(look(anchor, ledger) for anchor in anchors))]


async def _root_of_octets(log: EventLog, size: int) -> bytes:
    tree = CompactRange()
    while tree.size < size:
        page = await log.query(after=tree.size - 1, limit=min(PAGE, size - tree.size))
        for recorded in page:
            if recorded.seq != tree.size:
                break
            tree.add(leaf_hash(recorded.octets))
        if not page or page[0].seq != tree.size - len(page):
            raise Corrupt(f"entry {tree.size} of {log.origin} is missing: run `triplane log verify`")
    return tree.root()
