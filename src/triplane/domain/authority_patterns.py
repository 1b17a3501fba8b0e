"""The three pattern languages of authority, as sets: does one hold another, and what do two have in common.

Names and paths are exact: a set of patterns holds another pattern if and only if one of the set does, because a
character that occurs in none of them can stand for ``*``. So ``join`` of two normal sets is again exact.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from triplane.api.authority import MAX_PATTERNS
from triplane.domain.authority_egress import collapsed, covers_egress, meet_egress, spelled_egress
from triplane.domain.pattern import EVERYTHING, fits

MAX_LENGTH: Final = 253
MAX_STARS: Final = 6
"""Of two segments that cross, together."""
MAX_WORK: Final = 50_000
"""Characters compared to bring two lists together; patterns are other people's, and every launch asks."""
MAX_CROSSINGS: Final = 4 * MAX_PATTERNS
_ANYTHING: Final = "\0"
"""Stands for ``*``: a character no pattern has."""

Covers = Callable[[str, str], bool]


# Names: tools, capabilities, harnesses, models, secrets.


def plain(pattern: str) -> str:
    """The one spelling of a name pattern: a run of ``*`` is one, but ``**`` alone is everything."""
    if pattern == EVERYTHING or "**" not in pattern:
        return pattern
    while "**" in pattern:
        pattern = pattern.replace("**", "*")
    return pattern


def covers_name(limit: str, pattern: str) -> bool:
    """Whether every name that ``pattern`` describes is described by ``limit``; a name is a pattern too."""
    if limit == EVERYTHING:
        return True
    return pattern != EVERYTHING and fits(limit, plain(pattern).replace("*", _ANYTHING))


def meet_names(one: str, other: str) -> Collection[str]:
    """Patterns that together describe exactly the names both describe (at most ``MAX_PATTERNS`` of them)."""
    if covers_name(one, other):
        return [plain(other)]
    if covers_name(other, one):
        return [plain(one)]
    return _meet_segments(one.split("/"), other.split("/"))


def _meet_segments(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Segment by segment: ``*`` never crosses a slash."""
    if len(one) != len(other):
        return []
    found = [""]
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        common = _meet_segment(plain(left), plain(right))
        found = [f"{before}/{each}" if index else each for before in found for each in common][: MAX_PATTERNS * 4]
    return [each for each in found if len(each) <= MAX_LENGTH]


@lru_cache(maxsize=1024)
def _meet_segment(one: str, other: str) -> tuple[str, ...]:
    """The texts both describe, as patterns; built from the ends, so that nothing is asked twice. Patterns that cross
    in very many ways have only some of them in common here: less, never more."""
    if one.count("*") + other.count("*") > MAX_STARS:
        return ()
    table: list[list[tuple[str, ...]]] = [[() for _ in range(len(other) + 1)] for _ in range(len(one) + 1)]
    for i in range(len(one), -1, -1):
        for j in range(len(other), -1, -1):
            table[i][j] = _common_from(one, other, i, j, table)
    return table[0][0]


def _common_from(one: str, other: str, i: int, j: int, table: list[list[tuple[str, ...]]]) -> tuple[str, ...]:
    left, right = one[i : i + 1], other[j : j + 1]
    if not left and not right:
        return ("",)
    if left == "*" and right == "*":
        return _least({plain(f"*{rest}") for rest in (*table[i + 1][j], *table[i][j + 1])})
    if left == "*":
        taken = {f"{right}{rest}" for rest in table[i][j + 1]} if right else set()
        return _least(taken | set(table[i + 1][j]))
    if right == "*":
        taken = {f"{left}{rest}" for rest in table[i + 1][j]} if left else set()
        return _least(taken | set(table[i][j + 1]))
    return tuple(f"{left}{rest}" for rest in table[i + 1][j + 1]) if left == right else ()


def _least(patterns: set[str]) -> tuple[str, ...]:
    if len(patterns) == 1:
        return tuple(patterns)
    return tuple(prune(patterns, covers_name)[:MAX_PATTERNS])


# Paths under the shared folder.


@dataclass(frozen=True, slots=True)
class SharedPath:
    """What a path pattern grants: the files and folders it names, and everything beneath them."""

    segments: tuple[str, ...]
    """None: the whole shared folder."""
    writable: bool

    @classmethod
    def parse(cls, pattern: str) -> "SharedPath":
        """``a/**`` is ``a``: what is granted is granted with what is in it."""
        path = pattern.removesuffix(":rw")
        segments = [] if path == EVERYTHING else path.split("/")
        while segments and segments[-1] == EVERYTHING:
            segments.pop()
        return cls(tuple(map(_segment, segments)), path != pattern)

    @property
    def text(self) -> str:
        """The one spelling."""
        return ("/".join(self.segments) or EVERYTHING) + (":rw" if self.writable else "")

    def covers(self, other: "SharedPath") -> bool:
        """Whether all that ``other`` grants is granted here."""
        if other.writable and not self.writable:
            return False
        pairs = zip(self.segments, other.segments, strict=False)
        return len(self.segments) <= len(other.segments) and all(covers_name(*pair) for pair in pairs)


def _segment(segment: str) -> str:
    return "*" if segment == EVERYTHING else plain(segment)


def covers_path(limit: str, pattern: str) -> bool:
    """Whether everything that ``pattern`` grants is granted by ``limit``, and the same may be done with it."""
    return SharedPath.parse(limit).covers(SharedPath.parse(pattern))


def meet_paths(one: str, other: str) -> Collection[str]:
    """What both grant."""
    left, right = SharedPath.parse(one), SharedPath.parse(other)
    writable = left.writable and right.writable
    shorter, longer = sorted((left.segments, right.segments), key=len)
    heads = _meet_segments(shorter, longer[: len(shorter)]) if shorter else [""]
    rest = longer[len(shorter) :]
    found = (tuple(filter(None, (*head.split("/"), *rest))) for head in heads)
    return [text for each in found if len(text := SharedPath(each, writable).text) <= MAX_LENGTH]


# Sets of patterns.


@dataclass(frozen=True, slots=True)
class Language:
    """How the patterns of an axis are spelled, compared and brought together."""

    spell: Callable[[str], str]
    covers: Covers
    common: Callable[[str, str], Collection[str]]

    def normal(self, patterns: Iterable[str]) -> list[str]:
        """Each pattern in its one spelling, none that another holds, sorted."""
        spelled = {self.spell(each) for each in patterns}
        if self.covers is covers_egress:
            spelled = collapsed(spelled)
        return prune(spelled, self.covers)

    def meet(self, one: Iterable[str], other: Iterable[str]) -> list[str]:
        """What both sets hold, at most ``MAX_PATTERNS``: sets that cross in more ways have less in common here, never
        more."""
        left, right = self.normal(one), self.normal(other)
        if left == right:
            return left[:MAX_PATTERNS]
        nested: set[str] = set()
        crossing: set[tuple[str, str]] = set()
        for a, b in itertools.product(left, right):
            if self.covers(a, b):
                nested.add(b)
            elif self.covers(b, a):
                nested.add(a)
            else:
                crossing.add((min(a, b), max(a, b)))
        return self.normal(nested | self._crossings(crossing))[:MAX_PATTERNS]

    def _crossings(self, pairs: Iterable[tuple[str, str]]) -> set[str]:
        """What neither of a pair holds of the other, the simplest pairs first, until the work is enough."""
        found: set[str] = set()
        left = MAX_WORK
        for size, one, other in sorted((len(one) * len(other), one, other) for one, other in pairs):
            left -= size
            if left < 0 or len(found) > MAX_CROSSINGS:
                break
            found |= set(self.common(one, other))
        return found

    def beyond(self, patterns: Iterable[str], limits: Sequence[str]) -> list[str]:
        """Those of the patterns that none of the limits holds."""
        return [each for each in patterns if not any(self.covers(limit, each) for limit in limits)]


def prune(patterns: Iterable[str], covers: Covers) -> list[str]:
    """Without those that another one holds; sorted. Spellings must be the one spelling."""
    kept: list[str] = []
    for pattern in sorted(set(patterns)):
        if any(covers(each, pattern) for each in kept):
            continue
        kept = [each for each in kept if not covers(pattern, each)] + [pattern]
    return sorted(kept)


NAMES: Final = Language(plain, covers_name, meet_names)
PATHS: Final = Language(lambda pattern: SharedPath.parse(pattern).text, covers_path, meet_paths)
HOSTS: Final = Language(spelled_egress, covers_egress, meet_egress)
