"""Equal parts of objects, kept in memory once.

A Task, its sessions, artifacts and reviews repeat each other and those of every other Task: kinds, reasons, messages,
references, digests, a whole authority. Each object is parsed by itself and would bring its own copy of all that.
"""

from typing import Any, Final

REMEMBERED: Final = 8192
"""Parts that another object may share; then it begins anew, and whoever has them keeps them."""
LONGEST: Final = 512
"""Characters of a text, items of a list or mapping: what is larger is hardly ever equal to another, and what is
remembered of objects that are gone must stay small."""


class Shared:
    """Gives what is equal the same memory. Nobody may change what it returned."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._texts: dict[str, str] = {}
        # By the identity of what it holds, in order: that is nobody else's as long as the part itself is there.
        self._parts: dict[tuple[object, ...], Any] = {}
        self._apart = 0
        """Parts that were too large so far; what holds one is not remembered either."""

    def of(self, obj: dict[str, Any]) -> dict[str, Any]:
        """An equal object. It and its sections are its own; what they hold may be others' as well."""
        if len(self) > self._remembered:
            self._texts.clear()
            self._parts.clear()
        return {key: self._mapping(value) if type(value) is dict else self._part(value) for key, value in obj.items()}

    def __len__(self) -> int:
        """Parts that are remembered now."""
        return len(self._texts) + len(self._parts)

    def _part(self, value: Any) -> Any:
        kind = type(value)
        if kind is str and len(value) <= LONGEST:
            return self._texts.setdefault(value, value)
        if kind is not dict and kind is not list:
            self._apart += kind is str
            return value
        apart = self._apart
        made: Any = self._mapping(value) if kind is dict else [self._part(item) for item in value]
        if self._apart != apart or len(made) > LONGEST:
            self._apart += 1
            return made
        held = map(id, made.values()) if kind is dict else map(id, made)
        return self._parts.setdefault((kind, *(made if kind is dict else ()), *held), made)

    def _mapping(self, mapping: dict[str, Any]) -> dict[str, Any]:
        known = self._texts.setdefault
        return {known(key, key): self._part(value) for key, value in mapping.items()}
