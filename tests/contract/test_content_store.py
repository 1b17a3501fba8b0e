"""The contract of ``ContentStore``, on every backend that is shipped."""

from tests.contract.content_world import opening  # noqa: F401

from triplane.conformance.content import *  # noqa: F403
from triplane.conformance.contentsubject import Subject  # noqa: F401
