"""The contract of ``SessionStore``, on every backend that is shipped."""

from tests.contract.session_world import opening  # noqa: F401

from triplane.conformance.sessions import *  # noqa: F403
