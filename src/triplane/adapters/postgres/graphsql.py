"""The statements of the graph store."""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from typing import Final, LiteralString

LATEST: Final = 2**63 - 1
"""As a sequence number: everything there is."""
GONE: Final = "(r.gone OR EXISTS (SELECT 1 FROM graph.gone g WHERE g.uid = r.uid AND g.seq <= %(upto)s))"
"""What is gone stays gone, whatever generation of it was brought late."""
RESOURCE: Final = f"""
SELECT r.uid, r.kind, r.namespace, r.name, r.generation, r.labels, r.spec, r.requester, r.seq, {GONE}
FROM graph.resources r"""
NEWEST: Final = """r.seq <= %(upto)s AND NOT EXISTS (
    SELECT 1 FROM graph.resources n WHERE n.uid = r.uid AND n.generation > r.generation AND n.seq <= %(upto)s)"""

_INSERT_RECORDS: Final = """
INSERT INTO graph.{prefix}resources (uid, kind, namespace, name, generation, labels, spec, requester, seq, gone)
SELECT * FROM unnest(%(uid)s::text[], %(kind)s::text[], %(namespace)s::text[], %(name)s::text[],
    %(generation)s::bigint[], %(labels)s::jsonb[], %(spec)s::jsonb[], %(requester)s::text[], %(seq)s::bigint[],
    %(gone)s::boolean[])
ON CONFLICT DO NOTHING"""
_INSERT_EDGES: Final = """
INSERT INTO graph.{prefix}edges AS e (source, kind, target, key, seq, data)
SELECT * FROM unnest(%(e_source)s::text[], %(e_kind)s::text[], %(e_target)s::text[], %(e_key)s::text[],
    %(e_seq)s::bigint[], %(e_data)s::jsonb[])
ON CONFLICT (source, kind, target, key) DO UPDATE SET seq = excluded.seq, data = excluded.data
WHERE e.seq > excluded.seq"""
_INSERT_GONE: Final = """
INSERT INTO graph.{prefix}gone AS g (uid, seq) SELECT * FROM unnest(%(g_uid)s::text[], %(g_seq)s::bigint[])
ON CONFLICT (uid) DO UPDATE SET seq = excluded.seq WHERE g.seq > excluded.seq"""
_APPLY: Final = f"""
WITH unsynced AS (SELECT set_config('synchronous_commit', 'off', true)),
    records AS ({_INSERT_RECORDS}), edges AS ({_INSERT_EDGES}), tombstones AS ({_INSERT_GONE})
SELECT count(*) FROM unsynced"""
INSERT_RECORDS: Final = _INSERT_RECORDS.format(prefix="")
APPLY: Final = _APPLY.format(prefix="")
"""One round trip, one transaction, and no wait for the disk: what a crash of the server takes is projected from the
log again (``controllers/projection.py``); the log itself never commits like this."""
SET_ASIDE: Final = _APPLY.format(prefix="new_")
FORGET_NEW: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM graph.new_resources",
    "DELETE FROM graph.new_edges",
    "DELETE FROM graph.new_gone",
)
COUNT_NEW: Final = "SELECT (SELECT count(*) FROM graph.new_resources), (SELECT count(*) FROM graph.new_edges)"
PUT_IN_PLACE: Final[tuple[LiteralString, ...]] = (
    "LOCK TABLE graph.resources, graph.edges, graph.gone IN SHARE ROW EXCLUSIVE MODE",
    """DELETE FROM graph.resources r WHERE r.seq <= %(upto)s AND NOT r.uid = ANY (%(keep)s) AND NOT EXISTS (
        SELECT 1 FROM graph.new_resources n WHERE n.uid = r.uid AND n.generation = r.generation
        AND (n.kind, n.namespace, n.name, n.labels, n.spec, n.requester, n.seq, n.gone)
        IS NOT DISTINCT FROM (r.kind, r.namespace, r.name, r.labels, r.spec, r.requester, r.seq, r.gone))""",
    """DELETE FROM graph.edges e WHERE e.seq <= %(upto)s AND NOT e.source = ANY (%(keep)s) AND NOT EXISTS (
        SELECT 1 FROM graph.new_edges n WHERE (n.source, n.kind, n.target, n.key) = (e.source, e.kind, e.target, e.key)
        AND (n.seq, n.data) = (e.seq, e.data))""",
    """DELETE FROM graph.gone g WHERE g.seq <= %(upto)s AND NOT g.uid = ANY (%(keep)s) AND NOT EXISTS (
        SELECT 1 FROM graph.new_gone n WHERE n.uid = g.uid AND n.seq = g.seq)""",
    """INSERT INTO graph.resources (uid, kind, namespace, name, generation, labels, spec, requester, seq, gone)
    SELECT uid, kind, namespace, name, generation, labels, spec, requester, seq, gone FROM graph.new_resources
    ON CONFLICT DO NOTHING""",
    """INSERT INTO graph.edges AS e (source, kind, target, key, seq, data)
    SELECT source, kind, target, key, seq, data FROM graph.new_edges
    ON CONFLICT (source, kind, target, key) DO UPDATE SET seq = excluded.seq, data = excluded.data
    WHERE e.seq > excluded.seq""",
    """INSERT INTO graph.gone AS g (uid, seq) SELECT uid, seq FROM graph.new_gone
    ON CONFLICT (uid) DO UPDATE SET seq = excluded.seq WHERE g.seq > excluded.seq""",
)
"""Only what differs is written, so that writers wait for a moment."""
EDGE: Final = "SELECT e.source, e.kind, e.target, e.seq, e.data, e.key FROM graph.edges e"

WALK_ON: Final = """
SELECT * FROM graph.walk_on(%(first)s, %(last)s, %(depth)s, %(outward)s, %(inward)s, %(leaves)s, %(namespaces)s,
    %(upto)s, %(max_depth)s, %(limit)s, %(batch)s)"""
WALK_REST: Final = """
SELECT * FROM graph.walk_rest(%(outward)s, %(inward)s, %(leaves)s, %(namespaces)s, %(upto)s, %(max_depth)s)"""
