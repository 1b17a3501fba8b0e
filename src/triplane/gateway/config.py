"""What the gateway app is told at its start, apart from its backends."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

BLOB_LIMIT: Final = 256 * 1024 * 1024
"""Octets of one blob."""
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
    contract_seconds: float = CONTRACT_SECONDS
    people_cache_seconds: float = 60.0
