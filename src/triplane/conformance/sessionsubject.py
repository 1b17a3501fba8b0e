"""What the suite of ``SessionStore`` works on: a store, its clock, and sessions in it."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from triplane.domain.session import Claim, Offer, Permit
from triplane.ports import SessionStore

SNAPSHOT: Final = "sha256:" + "5" * 64


@dataclass
class Subject:
    """A store, the same store as another process sees it, and a way to let its clock run on."""

    store: SessionStore
    """Empty when the suite gets it."""
    other: SessionStore
    elapse: Callable[[float], Awaitable[None]]
    """Lets so many seconds pass by the store's clock: ``asyncio.sleep`` for one that cannot be steered."""


Opening = Callable[[], AbstractAsyncContextManager[Subject]]
"""Each call opens another store, empty and apart from the others; it is gone behind the context."""


def offer(uid: str = "s1", *, task: str = "t1", graph: str = "g1", agent: str = "a1") -> Offer:
    return Offer(
        session_uid=uid,
        namespace="team",
        name=f"session-{uid}",
        task_uid=task,
        graph_uid=graph,
        agent_uid=agent,
        agent_name="agent",
        role="Producer",
        snapshot_digest=SNAPSHOT,
        work_order={"version": 1, "task": {"objective": "weigh 1.5 kg, ümlaut", "list": [1, None, True]}},
    )


def permit(uid: str = "s1", run: int = 1, counter: int = 1, revision: int = 0, seconds: float = 10) -> Permit:
    return Permit(
        session_uid=uid,
        run=run,
        counter=counter,
        snapshot_digest=SNAPSHOT,
        revocation_revision=revision,
        run_inputs={"findings": [f"of run {run}, counter {counter}"]},
        seconds=seconds,
    )


async def offered(store: SessionStore, uid: str = "s1") -> None:
    assert await store.offer(offer(uid))


async def permitted(store: SessionStore, uid: str = "s1", run: int = 1) -> None:
    revision = await store.revocation_revision()
    assert await store.permit(permit(uid, run, await store.next_permit_counter(uid, run), revision))


async def claimed(store: SessionStore, uid: str = "s1", run: int = 1, instance: str = "i1") -> Claim:
    if run == 1:
        await offered(store, uid)
    await permitted(store, uid, run)
    return await store.claim_run(uid, run, "runner", instance)
