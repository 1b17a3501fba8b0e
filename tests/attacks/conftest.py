"""The real control plane for the attacks that only an API server can show."""

from tests.e2e.fixtures import (
    admin,
    alice,
    bob,
    control_plane,
    kubectl,
    make_namespace,
    namespace,
    operator,
    rules_namespace,
    short_home,
    webhook,
)

__all__ = [
    "admin",
    "alice",
    "bob",
    "control_plane",
    "kubectl",
    "make_namespace",
    "namespace",
    "operator",
    "rules_namespace",
    "short_home",
    "webhook",
]
