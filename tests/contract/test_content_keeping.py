"""The contract of ``KeptContent``, on every backend that is shipped."""

from tests.contract.content_world import opening  # noqa: F401

from triplane.conformance.content_keeping import *  # noqa: F403
