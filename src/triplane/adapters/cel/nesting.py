"""How deeply the comprehensions of a checked CEL expression are nested, and which declared names it uses.

Each level multiplies the work by the length of a list, and CEL in C++ has no cost limit of its own. The checked
expression is read in the wire form of ``cel.expr.CheckedExpr`` (github.com/google/cel-spec, proto/cel/expr): the
syntax tree is what will be evaluated, macros expanded, so that no spelling hides a loop from the count.
"""

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ANY_VALUE: Final = 2
"""``google.protobuf.Any.value``: how the expression is wrapped."""
_CHECKED_EXPR: Final = 4
"""``CheckedExpr.expr``"""
_REFERENCES: Final = 2
"""``CheckedExpr.reference_map``: entries of (1: expression id, 2: ``Reference``, whose field 1 is the name)"""
_UNUSED: Final = b"#unused"
"""``Comprehension.iter_var`` of ``cel.bind`` and ``optMap``: they loop over nothing. No source can spell it."""
_COMPREHENSION: Final = 9
"""``Expr.comprehension_expr``"""
_LEAVES: Final = frozenset({3, 4})
"""``Expr.const_expr`` and ``Expr.ident_expr``: nothing inside them is an expression."""
_ENTRY_FIELDS: Final = (3, 4)
"""``CreateStruct.Entry.map_key`` and ``value``"""
_INNER: Final = {
    5: (1,),  # Select: operand
    6: (1, 3),  # Call: target, args
    7: (1,),  # CreateList: elements
    9: (2, 4, 5, 6, 7),  # Comprehension: range, initial value, condition, step, result
}
_STRUCT: Final = 8
"""``Expr.struct_expr``: its expressions lie in its entries (field 2)."""


class UnknownForm(ValueError):
    """The expression is not in the form this release knows; it is refused rather than guessed at."""


def nesting(checked: bytes) -> int:
    """The largest number of comprehensions inside one another. Raises ``UnknownForm``."""
    deepest = 0
    pending = [(_only(_only(checked, _ANY_VALUE), _CHECKED_EXPR), 0)]
    while pending:
        expr, depth = pending.pop()
        for field, value in _fields(expr):
            if field in _LEAVES or not isinstance(value, bytes):
                continue
            if field not in _INNER and field != _STRUCT:
                raise UnknownForm(f"field {field} of an expression is unknown")
            inside = depth + (field == _COMPREHENSION and _UNUSED not in _chosen(value, (1,)))
            deepest = max(deepest, inside)
            pending += [(child, inside) for child in _children(field, value)]
    return deepest


def names(checked: bytes) -> frozenset[str]:
    """The variables and functions' declared names that the expression uses. Raises ``UnknownForm``."""
    found: set[str] = set()
    for entry in _chosen(_only(checked, _ANY_VALUE), (_REFERENCES,)):
        for reference in _chosen(entry, (2,)):
            found.update(name.decode() for name in _chosen(reference, (1,)))
    return frozenset(found)


def _only(message: bytes, wanted: int) -> bytes:
    found = [value for field, value in _fields(message) if field == wanted]
    if len(found) != 1 or not isinstance(found[0], bytes):
        raise UnknownForm("the checked expression has no single root")
    return found[0]


def _children(field: int, value: bytes) -> Iterator[bytes]:
    if field == _STRUCT:
        for number, entry in _fields(value):
            if number == 2 and isinstance(entry, bytes):
                yield from _chosen(entry, _ENTRY_FIELDS)
    else:
        yield from _chosen(value, _INNER[field])


def _chosen(message: bytes, wanted: tuple[int, ...]) -> Iterator[bytes]:
    return (value for field, value in _fields(message) if field in wanted and isinstance(value, bytes))


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """``(field number, value)`` of a message (protobuf.dev, "Encoding")."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            size, at = _varint(message, at)
        if size is None or at + size > len(message):
            raise UnknownForm("the checked expression is cut short")
        yield field, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        octet = message[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise UnknownForm("the checked expression is cut short")
