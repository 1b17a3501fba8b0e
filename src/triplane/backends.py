"""Which backend serves a contract: the scheme of a setting names it, and an installed package brings it.

Packages register factories as entry points in the groups below; the backends shipped with Triplane are registered in
the same way, in ``pyproject.toml``. So a third party's store is chosen as ours are, by ``TRIPLANE_CONTENT=mine://…``,
and nothing here or above knows its name (docs/how-to/write-a-backend.md).

A group exists only for what can be swapped end to end. The log and the sessions cannot, and a package that offers one
is refused rather than silently left unused.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from triplane.errors import InvalidInput, TriplaneError
from triplane.ports import GraphStore, KeptContent
from triplane.settings import Settings

OnQuarantine = Callable[[str, str], Awaitable[None]]
"""Called with the digest and a name for the place a damaged blob was moved to."""


class Group(StrEnum):
    """Groups of entry points. An entry point's name is the scheme, its value the factory."""

    CONTENT = "triplane.content_stores"
    GRAPH = "triplane.graph_stores"


REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "triplane.event_logs": "migrations, roles, checkpoints, the archive and backups work on the log's own tables",
        "triplane.session_stores": "a backup takes sessions and log in one snapshot of one database",
    }
)
"""Groups that look as if they should exist, and why what they would hold cannot be swapped."""


@dataclass(frozen=True, slots=True)
class ContentPlace:
    """What a content store is opened by: ``factory(place)`` is an async context manager that gives the store."""

    url: str
    """The setting as it stands; its scheme chose the factory."""
    settings: Settings = field(repr=False)
    on_quarantine: OnQuarantine | None = field(default=None, repr=False)
    """To be awaited after a damaged blob was moved aside, so that the log tells of it."""


@dataclass(frozen=True, slots=True)
class GraphPlace:
    """What a graph store is opened by: ``factory(place)`` is an async context manager that gives the store."""

    url: str
    login: str
    """``operator`` (reads and writes), ``gateway`` or ``verifier`` (only read)."""
    settings: Settings = field(repr=False)
    pool: Any = field(default=None, repr=False)
    """The process's own connections to Postgres, for the backend that is shipped."""


def content_store(place: ContentPlace) -> AbstractAsyncContextManager[KeptContent]:
    """The content store that the place's URL names. Raises ``InvalidInput``, naming what is installed, when its scheme
    is unknown, its package cannot be loaded, or what the factory gives is no content store."""
    made = _made(Group.CONTENT, place.url, place)
    return _checked(made, KeptContent, place.url)


def graph_store(place: GraphPlace) -> AbstractAsyncContextManager[GraphStore]:
    """As ``content_store``."""
    made = _made(Group.GRAPH, place.url, place)
    return _checked(made, GraphStore, place.url)


def installed(group: Group) -> Mapping[str, EntryPoint]:
    """Scheme to entry point. Raises ``InvalidInput`` when two packages bring one scheme, or one brings a contract that
    cannot be swapped."""
    for name, why in REFUSED.items():
        for offered in entry_points(group=name):
            raise InvalidInput(
                f"the package {_package(offered)} brings {offered.name!r} in the group {name}, which cannot be "
                f"swapped: {why}. Uninstall the package; groups are {', '.join(Group)}"
            )
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        other = found.setdefault(point.name, point)
        if other.value != point.value:
            raise InvalidInput(
                f"two packages bring the scheme {point.name!r} in {group}: {_package(other)} ({other.value}) and "
                f"{_package(point)} ({point.value}). Uninstall one"
            )
    return found


def _made(group: Group, url: str, place: object) -> Any:
    scheme = urlsplit(url).scheme
    known = installed(group)
    if scheme not in known:
        raise InvalidInput(
            f"{shown(url)!r}: no installed package brings the scheme {scheme!r} in {group}; known are "
            f"{', '.join(sorted(known)) or 'none: is triplane installed as a package?'}"
        )
    point = known[scheme]
    try:
        factory = point.load()
    except Exception as error:
        raise InvalidInput(
            f"the backend {scheme!r} of package {_package(point)} cannot be loaded from {point.value}: "
            f"{type(error).__name__}: {error}. Mend or uninstall the package"
        ) from error
    try:
        made = factory(place)
    except TriplaneError:
        raise
    except Exception as error:
        raise InvalidInput(
            f"the backend {scheme!r} of package {_package(point)} cannot be made by {point.value}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, AbstractAsyncContextManager):
        raise InvalidInput(
            f"the backend {scheme!r} of package {_package(point)}: {point.value} gave {type(made).__name__}, "
            "not an async context manager (docs/how-to/write-a-backend.md)"
        )
    return made


class _checked(AbstractAsyncContextManager[Any]):  # noqa: N801  # reads as the function it replaces
    """Opens the store and looks whether it has every operation: better at the start than in the middle of the work."""

    def __init__(self, inner: AbstractAsyncContextManager[Any], contract: type, url: str) -> None:
        self._inner = inner
        self._contract = contract
        self._url = url

    async def __aenter__(self) -> Any:
        store = await self._inner.__aenter__()
        lacking = [name for name in operations(self._contract) if not callable(getattr(store, name, None))]
        if lacking:
            await self._inner.__aexit__(None, None, None)
            raise InvalidInput(
                f"{shown(self._url)!r} opened a {type(store).__name__}, which lacks {', '.join(lacking)} of "
                f"{self._contract.__name__}: run `triplane conformance` on it"
            )
        return store

    async def __aexit__(self, *raised: Any) -> bool | None:
        return await self._inner.__aexit__(*raised)


def operations(contract: type) -> list[str]:
    """Names of what the Protocol asks for, inherited parts included."""
    names = {name for base in contract.__mro__ for name in vars(base) if base.__module__.startswith("triplane.")}
    return sorted(name for name in names if not name.startswith("_"))


def shown(url: str) -> str:
    """The URL without what might be a password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc="…@" + parts.netloc.rpartition("@")[2]).geturl()


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "of unknown name"
