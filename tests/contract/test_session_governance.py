"""What governs execution, on every backend of ``SessionStore`` that is shipped."""

from tests.contract.session_world import opening  # noqa: F401

from triplane.conformance.sessions_governance import *  # noqa: F403
