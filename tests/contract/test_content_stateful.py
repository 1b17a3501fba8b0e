"""``KeptContent`` against its model, on every backend that is shipped."""

from tests.contract.content_world import opening  # noqa: F401

from triplane.conformance.content_model import *  # noqa: F403
