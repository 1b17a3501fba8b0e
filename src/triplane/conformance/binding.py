"""A pytest plugin that gives the suites the backend named on the command line (``running``)."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from triplane.conformance.suites import factory_of


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--backend`` is for ``triplane conformance`` to give."""
    parser.addoption("--backend", help="module:function that opens the backend under test")


@pytest.fixture
def opening(request: pytest.FixtureRequest) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """What every suite asks for."""
    return factory_of(request.config.getoption("--backend"))
