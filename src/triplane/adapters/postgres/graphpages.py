"""Pages of resources whose labels a selector matches.

Values stand in the statement itself, quoted, so that the server plans each with what it knows of them: a label that
few have is looked up in the GIN index of all labels and sorted; one that most have, or must not have, is met soon by
reading the index in the order of the page. A plan made for any value could do only one of the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from triplane.adapters.postgres.graphsql import NEWEST, RESOURCE
from triplane.audit.plainjson import json_text
from triplane.domain.selector import LabelSelector, Operator, Requirement

_UPTO: Final = "%(upto)s"
_PLACE: Final = tuple(map(sql.SQL, ("r.kind", "r.namespace", "r.name", "r.uid")))


@dataclass(frozen=True, slots=True)
class Page:
    """Which resources, of when, and from where on."""

    selector: LabelSelector
    kind: str | None
    namespace: str | None
    after: tuple[str, str, str, str] | None
    limit: int | None
    upto: int

    def statement(self) -> sql.Composed:
        """One statement without parameters."""
        upto = sql.Literal(self.upto)
        start = sql.SQL(RESOURCE.replace(_UPTO, "{upto}")).format(upto=upto)
        newest = sql.SQL(NEWEST.replace(_UPTO, "{upto}")).format(upto=upto)
        where = sql.SQL(" AND ").join((*self._conditions(), newest))
        order = sql.SQL(" ORDER BY r.kind, r.namespace, r.name, r.uid LIMIT {}").format(sql.Literal(self.limit))
        return sql.Composed([start, sql.SQL(" WHERE "), where, order])

    def _conditions(self) -> Iterator[sql.Composable]:
        for requirement in self.selector.requirements:
            yield _condition(requirement)
        if self.kind is not None:
            yield sql.SQL("r.kind = {}").format(sql.Literal(self.kind))
        if self.namespace is not None:
            yield sql.SQL("r.namespace = {}").format(sql.Literal(self.namespace))
        if self.after is not None:
            known = self._known()
            columns, values = sql.SQL(", ").join(_PLACE[known:]), map(sql.Literal, self.after[known:])
            yield sql.SQL("({}) > ({})").format(columns, sql.SQL(", ").join(values))

    def _known(self) -> int:
        """Leading columns of the order that are the same for every row: a comparison with them in it would be estimated
        as if it left nothing."""
        assert self.after is not None
        if self.kind is None or self.kind != self.after[0]:
            return 0
        return 1 if self.namespace is None or self.namespace != self.after[1] else 2


def _condition(requirement: Requirement) -> sql.Composable:
    key, values = sql.Literal(requirement.key), sql.Literal(list(requirement.values))
    match requirement.operator:
        case Operator.IN:  # containment, for that the index answers
            pairs = sql.Literal([json_text({requirement.key: value}) for value in requirement.values])
            return sql.SQL("r.labels @> ANY ({}::jsonb[])").format(pairs)
        case Operator.NOT_IN:  # also what lacks the label, as in Kubernetes
            return sql.SQL("coalesce(r.labels ->> {} <> ALL ({}::text[]), true)").format(key, values)
        case Operator.EXISTS:
            return sql.SQL("r.labels ? {}").format(key)
        case Operator.ABSENT:
            return sql.SQL("NOT r.labels ? {}").format(key)
