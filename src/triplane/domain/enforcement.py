"""What enforces each axis of authority, by the way a run is executed; ``None`` where nothing can.

The table of docs/reference/enforcement.md says the same in full; a test holds them together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from triplane.api.authority import Axis


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Who keeps a run within an axis: with a sandbox, and without one."""

    sandboxed: str
    unisolated: str | None
    self_reported: bool = False
    """It rests on what the harness says of itself."""


_LAUNCH: Final = "the launch permit"
ENFORCEMENT: Final[Mapping[Axis, Enforcement]] = MappingProxyType(
    {
        Axis.TOOLS: Enforcement("the session host's MCP endpoint, the only way to a tool", None),
        Axis.CAPABILITIES: Enforcement(_LAUNCH, _LAUNCH),
        Axis.HARNESSES: Enforcement(
            "the launch permit, and the digest of the mounted copy", "the launch permit, and the digest of the copy"
        ),
        Axis.MODELS: Enforcement(
            "the launch permit; which model really answers is the harness's word", _LAUNCH, self_reported=True
        ),
        Axis.EGRESS: Enforcement("the session host's CONNECT proxy, the only way out of the network namespace", None),
        Axis.SECRETS: Enforcement("the gateway hands out no other; namespaces hide those of other runs", None),
        Axis.PATHS: Enforcement("bind mounts: nothing else of the machine is in the mount namespace", None),
        Axis.TOKENS: Enforcement(
            "the session host kills at the limit", "the session host kills at the limit", self_reported=True
        ),
        Axis.COST: Enforcement(
            "the session host kills at the limit; calls of tools it counts itself",
            "the session host kills at the limit",
            self_reported=True,
        ),
        Axis.SECONDS: Enforcement("the session host's clock; the PID namespace dies whole", None),
        Axis.SESSIONS: Enforcement("the operator, before a session is made", "the operator, before a session is made"),
        Axis.DEPTH: Enforcement("admission, and the launch permit", "admission, and the launch permit"),
        Axis.EXPIRY: Enforcement("the launch permit; a running session is revoked", "the launch permit"),
    }
)


def unenforced(axes: Iterable[str], *, isolated: bool) -> tuple[str, ...]:
    """Those of the axes that nothing keeps such a run within, sorted; an axis nobody knows is among them."""
    found = set()
    for name in axes:
        enforcement = ENFORCEMENT.get(Axis(name)) if name in set(Axis) else None
        if enforcement is None or (not isolated and enforcement.unisolated is None):
            found.add(name)
    return tuple(sorted(found))
