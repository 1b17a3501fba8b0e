"""Sessions: offers, permits, claims, leases, records, results."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from triplane.audit.model import JsonObject
from triplane.domain.session import (
    Claim,
    LiveRun,
    Offer,
    OpenSession,
    Outstanding,
    Permit,
    Question,
    RecordReceipt,
    RunResult,
    SessionView,
    Spent,
    Usage,
)


class SessionStore(Protocol):
    """Offers, permits, claims, leases and run results: the durable truth of execution."""

    async def offer(self, offer: Offer) -> bool:
        """Make the session claimable once permitted; False if it was offered before."""
        ...

    async def permit(self, permit: Permit) -> bool:
        """Write the launch permit of one run; it expires ``permit.seconds`` after the store's clock. A new
        permit of the same run (higher counter) replaces an unclaimed one. False if that run was claimed or
        ended, or the counter is not higher. Raises ``PermitRefused`` when the session is revoked, or when
        the run is not the next (its predecessor must be finished or lost). ``permit.agent_limit`` is noted as
        by ``limit``, unless something newer is."""
        ...

    async def next_permit_counter(self, session_uid: str, run: int) -> int:
        """1 + the highest counter used for that run."""
        ...

    async def outstanding(self, graph_uid: str) -> Outstanding:
        """How many valid permits nobody has claimed, and what this Graph has of them and of live runs."""
        ...

    async def limit(self, agent_uid: str | None, most: int | None) -> None:
        """From now on at most ``most`` runs of this Agent (None: of all together) may be live; ``most`` None: as
        many as there are. Runs that are live stay so. Raises ``InvalidInput`` below 1."""
        ...

    async def claim(self, runner: str, instance: str) -> Claim | None:
        """Atomically take one run whose permit is valid now and that no limit holds: of the Graph with the fewest
        live runs, the oldest; None if there is none. Never hands out revoked sessions, expired permits, permits
        decided before a revocation among the sessions of their Task or before ``void_permits``, or a run twice.

        Sessions that only lack a valid permit are marked as wanted (see ``wanted``), in the same fair order:
        one when nothing could be taken, and more ahead of need while claims come quickly."""
        ...

    async def claim_run(self, session_uid: str, run: int, runner: str, instance: str) -> Claim:
        """As ``claim`` for one named run; raises ``PermitRefused`` naming why not."""
        ...

    async def start(self, session_uid: str, run: int, facts: JsonObject) -> bool:
        """Record that the harness process runs, with what the host measured; False if it was recorded."""
        ...

    async def renew(self, session_uid: str, run: int, counter: int) -> str | None:
        """Raise the renewal counter; returns the reason if the run has been revoked or lost, else None. ``Conflict``
        when nobody has claimed it, and when it is finished. A raised counter may be forgotten in a crash of the
        store; nothing else rests on it."""
        ...

    async def record(
        self, session_uid: str, run: int, sequence: int, digest: str, *, held_seconds: float = 0.0
    ) -> RecordReceipt:
        """Note journal segment ``sequence`` (from 1, no gaps). Same digest again: the first receipt. Other
        digest: ``Conflict``. Not the next: ``SequenceGap`` with the expected number. ``held_seconds`` ago its
        first record was heard: that gives the run's ``first_record_at``, never before its start."""
        ...

    async def finish(self, session_uid: str, run: int, result: RunResult) -> bool:
        """Record the result once; False if the same was recorded, ``Conflict`` if another was, or the run
        was lost or revoked before."""
        ...

    async def lose(self, session_uid: str, run: int, *, counter: int, reason: str) -> bool:
        """Declare a claimed run lost, if its renewal counter still is ``counter``."""
        ...

    async def lose_instances(self, runner: str, keep_instance: str) -> list[tuple[str, int]]:
        """A runner has restarted: lose every live run of its other instances; returns (session, run)s."""
        ...

    async def revoke(self, session_uid: str, reason: str) -> bool:
        """Bar every later claim of the session and end its live run; void every permit of the same Task's sessions
        that was decided before. False if it was revoked or unknown."""
        ...

    async def revocation_revision(self) -> int:
        """Counts every ``revoke`` and ``void_permits``; permits carry the revision they were decided at."""
        ...

    async def now(self) -> datetime:
        """The store's clock: what permits live by."""
        ...

    async def get(self, session_uid: str, *, records: bool = False) -> SessionView | None:
        """The session with its runs; ``record_digests`` only with ``records``."""
        ...

    async def get_many(self, session_uids: Sequence[str], *, records: bool = False) -> Mapping[str, SessionView]:
        """Those that there are; one round trip."""
        ...

    async def live(self) -> list[LiveRun]:
        """Every claimed or started run, oldest session first."""
        ...

    async def wanted(self) -> list[str]:
        """Sessions a runner has asked for that lack a valid permit; cleared by the next permit."""
        ...

    async def pass_over(self, session_uid: str) -> None:
        """It cannot go on now: the next are asked for instead. Takes out of the line what is wanted, and what was
        permitted and nobody claimed, which nobody can claim then. Its next permit puts it back, or ``line_up``. No
        change to any other."""
        ...

    async def line_up(self, session_uid: str) -> None:
        """It was passed over and can go on again: back to its place, where a runner may ask for it. No change unless
        it was passed over."""
        ...

    async def void_permits(self, namespace: str | None, reason: str) -> int:
        """Void every permit in this namespace (None: everywhere) that was decided before and nobody has claimed: a
        Policy or an authority above has changed. Returns the new revocation revision. Running sessions go on; those
        that lost a permit are marked as wanted if a runner had asked."""
        ...

    async def report(self, session_uid: str, run: int, usage: Usage) -> None:
        """What a live run has used so far, as its host counts; never lowers what was reported. Ignored when the run
        is over, or nobody has claimed it. Raises ``NotFound``, and ``InvalidInput`` for amounts below 0 or from 2^53.
        What was reported last may be forgotten in a crash of the store; the next report makes up for it."""
        ...

    async def spent(self, uids: Collection[str]) -> Mapping[str, Spent]:
        """Of these Tasks, Nodes and Graphs; one round trip. One that has spent nothing is there with zeros."""
        ...

    async def ask(self, question: Question) -> Question:
        """Note that a call waits for a person (``asked_at`` and ``until`` are set anew by the store's clock: ``until -
        asked_at`` is kept). Asked before by the same run with the same digest: what is kept, with its answer.
        ``Conflict`` with another digest or run, or when the run is not live. Raises ``NotFound`` (run),
        ``InvalidInput`` (nobody could answer)."""
        ...

    async def answer(self, session_uid: str, invocation: str, *, approved: bool, review: str, principal: str) -> bool:
        """Record the answer once; False when it was answered before, or is past its time. Raises ``NotFound``."""
        ...

    async def questions(self, session_uids: Collection[str]) -> Sequence[Question]:
        """All of these sessions, by (session, asked_at, invocation)."""
        ...

    async def open_sessions(self, task_uid: str | None = None) -> list[OpenSession]:
        """Sessions neither revoked nor closed, oldest first; of one Task, or all."""
        ...

    async def close_session(self, session_uid: str) -> None:
        """No further run will come: leave the queues, keep the record."""
        ...

    async def own_blob(self, namespace: str, digest: str) -> None:
        """Note that somebody of this namespace has put the blob, and so had its content. Again: no change.
        A blob may belong to many namespaces, or to none. Raises ``InvalidInput`` for an empty namespace."""
        ...

    async def own_blob_of_run(self, session_uid: str, run: int, digest: str, octets: int) -> int:
        """As ``own_blob``, in the namespace of the session; if it was not there yet, its octets count as the run's.
        Returns what counts as the run's then. Raises ``NotFound`` for a run nobody permitted."""
        ...

    async def owns_blob(self, namespace: str, digest: str) -> bool:
        """Whether the blob was put in this namespace; the content store says whether it is still there."""
        ...

    async def blob_owned(self, digest: str) -> bool:
        """Whether it belongs to any namespace."""
        ...

    async def disown_blob(self, digest: str) -> frozenset[str]:
        """The blob is erased: it belongs to no namespace until it is put again. The namespaces that it belonged to."""
        ...

    async def blob_references(self) -> frozenset[str]:
        """Every digest that anything kept here names, wherever it stands: owners, work orders, run inputs, facts,
        records, results, questions. More than is needed, never less: what is not in it may be collected."""
        ...

    async def cursor(self, name: str) -> int:
        """Durable position of a log consumer; -1 at first."""
        ...

    async def set_cursor(self, name: str, seq: int) -> None:
        """Move it forward; a lower value is ignored."""
        ...

    def changes(self) -> AbstractAsyncContextManager["Wakeups"]:
        """Subscribe to wake-ups (offer, permit, claim, start, finish, revoke, void, wanted, ask, answer). Only a
        hint."""
        ...

    async def close(self) -> None: ...


class Wakeups(Protocol):
    """A lossy bell: rings some time after something changed."""

    async def wait(self, timeout_seconds: float) -> bool:
        """True when it rang, False at the time-out; rings between two waits are kept as one."""
        ...
