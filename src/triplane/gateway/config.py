"""What the gateway app is told at its start, apart from its backends."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from triplane.domain.collection import Rules

BLOB_LIMIT: Final = 4 << 30
"""Octets of one blob."""
RUN_LIMIT: Final = 16 << 30
"""Octets of blobs that one run may store."""
BODY_LIMIT: Final = 256 * 1024
"""Octets of a JSON request body; journal segments may be larger."""
RECORDS_LIMIT: Final = 8 * 1024 * 1024
MAX_WAIT_SECONDS: Final = 30.0
"""Longest long poll."""
CONTRACT_SECONDS: Final = 30.0
"""Longest contract check of one run's outputs; a schema that needs more is refused."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Where the keys are, whom to ask about people, and how long a lease lasts."""

    keys: Path
    """Folder of the run-token keys, 0700."""
    kubeconfig: Path | None = None
    """The gateway's own account; without it no person is let in."""
    lease_seconds: float = 15.0
    blob_limit: int = BLOB_LIMIT
    run_limit: int = RUN_LIMIT
    collection: Rules = field(default_factory=Rules)
    collect_seconds: float = 0.0
    """Seconds between two collections; 0: only when an admin asks."""
    scrub_seconds: float = 0.0
    """Seconds between the beginnings of two scrubs; 0: only when an admin asks."""
    scrub_octets_per_second: float = 8 << 20
    contract_seconds: float = CONTRACT_SECONDS
    people_cache_seconds: float = 60.0
