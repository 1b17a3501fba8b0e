"""Guidelines: which of them a session gets, and in which order.

Selection and order depend on nothing but the Guidelines and the session: highest priority first; at one priority those
of the installation's namespace, then by name. Each is pinned by the digest of exactly the text that is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from triplane.api.guideline import Guideline, GuidelineScope
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.audit.digest import digest_of_bytes
from triplane.domain.pattern import any_fits
from triplane.domain.selector import matches

MAX_OCTETS: Final = 128 * 1024
"""Of the texts that one session gets together, UTF-8."""
MAX_GUIDELINES: Final = 64
"""That one session gets."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A session, as scopes see it."""

    namespace: str
    graph: str
    agent: str
    capabilities: Sequence[str]
    """Names that the run exercises, without versions; of a reviewer the review's."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the Task."""


@dataclass(frozen=True, slots=True)
class Known:
    """A Guideline, and who controls it."""

    guideline: Guideline
    principal: str | None
    """Principal id of the user who made it."""


@dataclass(frozen=True, slots=True)
class PinnedGuideline:
    """One Guideline as a session gets it."""

    namespace: str
    name: str
    uid: str
    generation: int
    priority: int
    text: str
    digest: str
    """Of the text, UTF-8."""

    def wire(self) -> dict[str, Any]:
        """Its entry in the work order."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "priority": self.priority,
            "digest": self.digest,
            "text": self.text,
        }


def select(known: Iterable[Known], recipient: Recipient, *, distrusted: Sequence[str] | None = None) -> "Selection":
    """What the recipient gets, in order.

    ``distrusted``, for a reviewer, are the principals of the producing side: what one of them instructs the reviewer to
    do would be a review by themselves, so only Guidelines of others, and those of the installation, are given.
    """
    chosen = [
        item.guideline
        for item in known
        if _binds(item.guideline, recipient) and (distrusted is None or _independent(item, distrusted))
    ]
    return Selection(tuple(_pinned(item) for item in sorted(chosen, key=_precedence)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The Guidelines of one session, in order."""

    guidelines: tuple[PinnedGuideline, ...] = ()

    @property
    def problem(self) -> tuple[str, str] | None:
        """``(reason, message)`` when they are more than a session may be given."""
        octets = sum(len(item.text.encode()) for item in self.guidelines)
        if octets <= MAX_OCTETS and len(self.guidelines) <= MAX_GUIDELINES:
            return None
        largest = sorted(self.guidelines, key=lambda item: (-len(item.text), item.namespace, item.name))[:3]
        names = ", ".join(f"{item.namespace}/{item.name}" for item in largest)
        return (
            "GuidelinesTooLarge",
            f"{len(self.guidelines)} Guidelines of {octets} octets apply; at most {MAX_GUIDELINES} of {MAX_OCTETS} "
            f"octets together may: narrow the scope or shorten the text of some (the largest: {names})",
        )


def _binds(guideline: Guideline, recipient: Recipient) -> bool:
    """Whether the Guideline's namespace and scope take this session in."""
    home = guideline.metadata.namespace
    if guideline.metadata.deletion_timestamp or home not in (recipient.namespace, SYSTEM_NAMESPACE):
        return False
    scope = guideline.spec.scope or GuidelineScope()
    return (
        any_fits(scope.namespaces, recipient.namespace)
        and _among(scope.graphs, [recipient.graph])
        and _among(scope.agents, [recipient.agent])
        and _among(scope.capabilities, recipient.capabilities)
        and matches(scope.selector, recipient.labels)
    )


def _among(named: Sequence[str] | None, actual: Sequence[str]) -> bool:
    return named is None or any(item in named for item in actual)


def _independent(item: Known, distrusted: Sequence[str]) -> bool:
    if item.guideline.metadata.namespace == SYSTEM_NAMESPACE:
        return True
    return item.principal is not None and item.principal not in distrusted


def _precedence(item: Guideline) -> tuple[int, bool, str, str]:
    metadata = item.metadata
    return -item.spec.priority, metadata.namespace != SYSTEM_NAMESPACE, metadata.name, metadata.uid


def _pinned(item: Guideline) -> PinnedGuideline:
    metadata, text = item.metadata, item.spec.text
    return PinnedGuideline(
        metadata.namespace,
        metadata.name,
        metadata.uid,
        metadata.generation,
        item.spec.priority,
        text,
        digest_of_bytes(text.encode()),
    )
