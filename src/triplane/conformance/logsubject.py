"""What the suite of ``EventLog`` works on: writers of one log, a clock that can be moved, and entries to append."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from triplane.audit.entry import event_id
from triplane.audit.model import EventBody, EventSubject
from triplane.ports import EventLog

GRAPH: Final = "3f0c9a6e-0000-4000-8000-000000000001"


def body(number: int, *, kind: str = "Task", name: str | None = None, **changes: object) -> EventBody:
    """A valid body; the same number makes the same one."""
    uid = f"uid-{number}"
    made = EventBody(
        id=event_id("resource.observed", uid, 1),
        type="resource.observed",
        stream=f"graph/{GRAPH}",
        actor="p-0123456789abcdef",
        subject=EventSubject(
            kind=kind,
            namespace="demo",
            name=name or f"thing-{number}",
            uid=uid,
            generation=1,
            labels=(("triplane.dev/graph", "g"), ("triplane.dev/node", "n")),
        ),
        data={"specDigest": "sha256:" + "ab" * 32, "count": number, "nested": {"list": [1, "zwei", None, True]}},
        blobs=("sha256:" + "cd" * 32,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class SteerableTime:
    """A clock that goes where the test wants it."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass
class Backend:
    """Opens writers of one log: new, with its first two entries."""

    open: Callable[[str], Awaitable[EventLog]]
    """Given the writer's name, which epochs fence; whoever opened the backend closes what was opened."""
    time: SteerableTime
    """What the log must take the time from."""


Opening = Callable[[], AbstractAsyncContextManager[Backend]]
"""Each call opens another log, apart from the others; it is gone behind the context."""
