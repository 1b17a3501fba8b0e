"""The append protocol (decisions.md, "Log"): look the id up; what is recorded stands, what is not is appended."""

from collections.abc import Sequence

from triplane.audit.model import EventBody
from triplane.errors import IdReused
from triplane.failpoint import failpoint
from triplane.ports import EventLog


async def ensure_recorded(log: EventLog, bodies: Sequence[EventBody]) -> None:
    """All of these entries are in the log when this returns, in this order as far as they are new.

    A recorded entry stands even if today's program would word it differently, so an upgrade never wedges a run.
    """
    if not bodies:
        return
    failpoint("gateway.append.before")
    recorded = await log.get_many([body.id for body in bodies])
    if missing := [body for body in bodies if body.id not in recorded]:
        await log.append(missing)
    failpoint("gateway.append.after")


async def record_news(log: EventLog, body: EventBody) -> None:
    """As ``ensure_recorded`` of one entry that is hardly ever there already: it is appended, and looked up only if the
    log has another under its id."""
    failpoint("gateway.append.before")
    try:
        await log.append([body])
    except IdReused:
        await ensure_recorded(log, [body])
        return
    failpoint("gateway.append.after")
