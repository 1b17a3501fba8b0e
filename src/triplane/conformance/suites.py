"""Which suites a contract has, and how a backend under test is named. Needs no pytest: help and errors come at once."""

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from triplane.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract's suites."""

    protocol: str
    """The Protocol in ``triplane.ports``."""
    modules: tuple[str, ...]
    """Beside this one, in the order in which they are best mended."""
    subject: str
    """What the factory's context managers give."""
    needs: tuple[str, ...] = ("store", "other")
    """Attributes of that, without which nothing can be tried."""


CONTRACTS: Final[Mapping[str, Contract]] = MappingProxyType(
    {
        "content": Contract(
            "KeptContent",
            ("content", "content_keeping", "content_model"),
            "triplane.conformance.contentsubject.Subject",
        ),
        "sessions": Contract(
            "SessionStore",
            ("sessions", "sessions_governance"),
            "triplane.conformance.sessionsubject.Subject",
        ),
        "graph": Contract("GraphStore", ("graph",), "the store itself", ("apply", "get", "traverse")),
        "log": Contract("EventLog", ("log",), "triplane.conformance.logsubject.Backend", ("open", "time")),
    }
)


def contract_of(name: str) -> Contract:
    """Raises ``InvalidInput`` naming those there are."""
    if name not in CONTRACTS:
        raise InvalidInput(f"there is no suite for {name!r}: choose one of {', '.join(CONTRACTS)}")
    return CONTRACTS[name]


def factory_of(named: str) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """The function ``module:name``, found also in the folder one stands in. Each call must open another empty store.
    Raises ``InvalidInput``, saying what is wrong with it."""
    module, _, name = named.partition(":")
    if not module or not name:
        raise InvalidInput(f"{named!r} names no factory: write module:function, as in mypackage.testing:opened")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidInput(f"the backend {named} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidInput(f"the backend {named} is a {type(found).__name__}, not a function that opens a store")
    factory: Callable[[], AbstractAsyncContextManager[Any]] = found
    return factory
