"""The statements of the graph store, and the conditions of a label selector."""
# ruff: noqa: S608  # statements are put together from constants of this module; values are parameters

from typing import Any, Final, LiteralString

from triplane.audit.plainjson import json_text
from triplane.domain.selector import LabelSelector, Operator, Requirement

GONE: Final = "(r.gone OR EXISTS (SELECT 1 FROM graph.gone g WHERE g.uid = r.uid))"
"""What is gone stays gone, whatever generation of it was brought late."""
RESOURCE: Final = f"""
SELECT r.uid, r.kind, r.namespace, r.name, r.generation, r.labels, r.spec, r.requester, r.seq, {GONE}
FROM graph.resources r"""
NEWEST: Final = "NOT EXISTS (SELECT 1 FROM graph.resources n WHERE n.uid = r.uid AND n.generation > r.generation)"

INSERT_RECORDS: Final = """
INSERT INTO graph.resources (uid, kind, namespace, name, generation, labels, spec, requester, seq, gone)
SELECT * FROM unnest(%(uid)s::text[], %(kind)s::text[], %(namespace)s::text[], %(name)s::text[],
    %(generation)s::bigint[], %(labels)s::jsonb[], %(spec)s::jsonb[], %(requester)s::text[], %(seq)s::bigint[],
    %(gone)s::boolean[])
ON CONFLICT DO NOTHING"""
INSERT_EDGES: Final = """
INSERT INTO graph.edges AS e (source, kind, target, key, seq, data)
SELECT * FROM unnest(%(e_source)s::text[], %(e_kind)s::text[], %(e_target)s::text[], %(e_key)s::text[],
    %(e_seq)s::bigint[], %(e_data)s::jsonb[])
ON CONFLICT (source, kind, target, key) DO UPDATE SET seq = excluded.seq, data = excluded.data
WHERE e.seq > excluded.seq"""
INSERT_GONE: Final = """
INSERT INTO graph.gone AS g (uid, seq) SELECT * FROM unnest(%(g_uid)s::text[], %(g_seq)s::bigint[])
ON CONFLICT (uid) DO UPDATE SET seq = excluded.seq WHERE g.seq > excluded.seq"""
APPLY: Final = f"""
WITH unsynced AS (SELECT set_config('synchronous_commit', 'off', true)),
    records AS ({INSERT_RECORDS}), edges AS ({INSERT_EDGES}), tombstones AS ({INSERT_GONE})
SELECT count(*) FROM unsynced"""
"""One round trip, one transaction, and no wait for the disk: what a crash of the server takes is projected from the
log again (``controllers/projection.py``); the log itself never commits like this."""
FORGET: Final[tuple[LiteralString, ...]] = (
    "LOCK TABLE graph.resources, graph.edges, graph.gone IN SHARE ROW EXCLUSIVE MODE",
    "DELETE FROM graph.resources WHERE seq <= %(upto)s AND NOT uid = ANY (%(keep)s)",
    "DELETE FROM graph.edges WHERE seq <= %(upto)s AND NOT source = ANY (%(keep)s)",
    "DELETE FROM graph.gone WHERE seq <= %(upto)s AND NOT uid = ANY (%(keep)s)",
)
UPDATE: Final = """
UPDATE graph.resources SET labels = %s::jsonb, spec = %s::jsonb, requester = %s, gone = %s, seq = %s
WHERE uid = %s AND generation = %s AND seq <= %s"""
EDGE: Final = "SELECT e.source, e.kind, e.target, e.seq, e.data, e.key FROM graph.edges e"

_AHEAD: Final = """
WITH RECURSIVE reached(id) AS (
    SELECT unnest(%(ids)s::text[]) COLLATE "C"
    UNION SELECT e.{far} FROM reached CROSS JOIN LATERAL (
        SELECT {far} FROM graph.edges WHERE {near} = reached.id AND (%(any)s OR kind = ANY (%(kinds)s)) OFFSET 0) e
), near AS (SELECT id FROM reached LIMIT %(ahead)s)
SELECT near.id, e.source, e.kind, e.target, e.seq, e.data, e.key FROM near LEFT JOIN LATERAL (
    SELECT * FROM graph.edges WHERE {near} = near.id AND (%(any)s OR kind = ANY (%(kinds)s)) OFFSET 0) e ON true
"""  # OFFSET 0: look each end up in the index; joined as a whole, every level of a deep graph would read all edges
AHEAD_OUT: Final = _AHEAD.format(near="source", far="target")
"""All edges of these ends and, as far as ``ahead`` goes, of those behind them; an end without edges is a row too."""
AHEAD_IN: Final = _AHEAD.format(near="target", far="source")


def matching(selector: LabelSelector) -> tuple[list[LiteralString], list[Any]]:
    """Conditions on ``r.labels`` that all hold exactly for what the selector matches, and their parameters."""
    conditions: list[LiteralString] = []
    values: list[Any] = []
    for requirement in selector.requirements:
        condition, parameters = _condition(requirement)
        conditions.append(condition)
        values += parameters
    return conditions, values


def _condition(requirement: Requirement) -> tuple[LiteralString, list[Any]]:
    match requirement.operator:
        case Operator.IN:  # containment, for that the index answers
            pairs = [json_text({requirement.key: value}) for value in requirement.values]
            return "r.labels @> ANY (%s::jsonb[])", [pairs]
        case Operator.NOT_IN:  # also what lacks the label, as in Kubernetes
            return "coalesce(r.labels ->> %s <> ALL (%s::text[]), true)", [requirement.key, list(requirement.values)]
        case Operator.EXISTS:
            return "r.labels ? %s", [requirement.key]
        case Operator.ABSENT:
            return "NOT r.labels ? %s", [requirement.key]
