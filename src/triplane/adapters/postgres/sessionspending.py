"""What runs use, and what that comes to beneath a Task, Node or Graph.

A run that is over is added once, in the transaction that ends it, to the sums of what is above it; a live one is
counted when somebody asks. So asking costs what is live, not what has ever run.
"""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from triplane.adapters.postgres.sessiondatabase import Connection, SessionDatabase, locked_run
from triplane.domain.session import Spent, Usage
from triplane.domain.spending import check_usage, spent_of

SHARDS: Final = 8

_COST = """r.input_tokens + r.output_tokens AS tokens, r.cost_minor_units AS cost_minor_units, greatest(0, coalesce(
    trunc(extract(epoch FROM coalesce(r.ended_at, clock_timestamp()) - r.started_at) * 1000000), 0)) AS microseconds,
    (r.run = 1)::integer AS sessions"""
_ABOVE = "LATERAL (SELECT s.task_uid UNION SELECT s.node_uid UNION SELECT s.graph_uid) AS above (uid)"
_SUMS = "sum(tokens), sum(cost_minor_units), sum(microseconds), sum(sessions)"

REPORT: Final = """
UPDATE sessions.runs SET input_tokens = greatest(input_tokens, %s), output_tokens = greatest(output_tokens, %s),
    cost_minor_units = greatest(cost_minor_units, %s)
WHERE session_uid = %s AND run = %s AND state IN ('claimed', 'started')
RETURNING set_config('synchronous_commit', 'off', true)
"""
"""Not worth a sync: the next report makes up for one that a crash forgot."""
# In order of the key, so that two of them never wait for each other.
SETTLE: Final = f"""
INSERT INTO sessions.spent AS t (uid, shard, tokens, cost_minor_units, microseconds, sessions)
SELECT uid, shard, {_SUMS} FROM (
    SELECT above.uid, s.position %% {SHARDS} AS shard, {_COST}
    FROM unnest(%(sessions)s::text[], %(runs)s::integer[]) AS ended (session_uid, run)
    JOIN sessions.runs r USING (session_uid, run) JOIN sessions.sessions s ON s.uid = r.session_uid, {_ABOVE}
    WHERE above.uid IS NOT NULL) AS each
GROUP BY uid, shard ORDER BY uid, shard
ON CONFLICT (uid, shard) DO UPDATE SET tokens = t.tokens + excluded.tokens,
    cost_minor_units = t.cost_minor_units + excluded.cost_minor_units,
    microseconds = t.microseconds + excluded.microseconds, sessions = t.sessions + excluded.sessions
"""
SPENT: Final = f"""
SELECT uid, {_SUMS} FROM (
    SELECT uid, tokens, cost_minor_units, microseconds, sessions FROM sessions.spent WHERE uid = ANY (%(uids)s)
    UNION ALL
    SELECT above.uid, {_COST} FROM sessions.runs r JOIN sessions.sessions s ON s.uid = r.session_uid, {_ABOVE}
    WHERE r.state IN ('claimed', 'started') AND above.uid = ANY (%(uids)s)) AS each
GROUP BY uid
"""


class Spending(SessionDatabase):
    """``SessionStore.report`` and ``spent``."""

    async def report(self, session_uid: str, run: int, usage: Usage) -> None:
        """See ``SessionStore.report``."""
        check_usage(usage)
        amounts = (usage.input_tokens, usage.output_tokens, usage.cost_minor_units)
        async with self._transaction(f"note what run {run} of session {session_uid} has used") as connection:
            if not (await connection.execute(REPORT, (*amounts, session_uid, run))).rowcount:
                await locked_run(connection, session_uid, run)

    async def spent(self, uids: Collection[str]) -> Mapping[str, Spent]:
        """See ``SessionStore.spent``."""
        rows = await self._rows(SPENT, {"uids": list(uids)}) if uids else ()
        return dict.fromkeys(uids, Spent()) | {uid: spent_of(*map(int, sums)) for uid, *sums in rows}


async def settle(connection: Connection, ended: Sequence[tuple[str, int]]) -> None:
    """Add these runs, each (session, run) just ended in this transaction, to what is spent."""
    if ended:
        values = {"sessions": [uid for uid, _ in ended], "runs": [run for _, run in ended]}
        await connection.execute(SETTLE, values)
