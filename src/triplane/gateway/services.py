"""Services that hold an enrolled token: the operator and the runners."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceCaller:
    """A process known by the hash of its token."""

    name: str
    role: str
