"""What the routes share: backends, keys, people, the bell, and whether the process is stopping."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from triplane.domain.session import Claim
from triplane.gateway.bell import Bell
from triplane.gateway.config import GatewayConfig
from triplane.gateway.contracts import ContractWorkers
from triplane.gateway.keeper import Keeper
from triplane.gateway.metrics import GatewayMetrics
from triplane.gateway.people import People
from triplane.gateway.quota import RunQuotas
from triplane.gateway.services import ServiceCaller
from triplane.gateway.tail import Streams, Tail
from triplane.gateway.tokens import RunTokens
from triplane.gateway.turns import LOOKS, LOOKS_EACH, WALKS, WALKS_EACH, Turns
from triplane.ports import Clock
from triplane.wiring import GatewayBackends


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one running app."""

    backends: GatewayBackends
    config: GatewayConfig
    clock: Clock
    tokens: RunTokens
    people: People
    bell: Bell
    metrics: GatewayMetrics
    keeper: Keeper
    quotas: RunQuotas
    workers: ContractWorkers = field(default_factory=ContractWorkers)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process must end: streams and long polls return at once."""
    services: dict[str, tuple[float, ServiceCaller]] = field(default_factory=dict)
    """Service tokens seen lately, by their hash: until when that holds, and whose they are."""
    tail: Tail = field(default_factory=Tail)
    streams: Streams = field(default_factory=Streams)
    tiles: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    """Tiles of the log made at a time: at most 8 × 16 MiB of entries are in memory."""
    walks: Turns = field(default_factory=lambda: Turns(WALKS, WALKS_EACH))
    """Lineages walked at a time: each takes a connection of the store, of which others need some too."""
    looks: Turns = field(default_factory=lambda: Turns(LOOKS, LOOKS_EACH))
    """Lineages of artifacts looked up at a time."""
    undelivered: dict[tuple[str, str], list[Claim]] = field(default_factory=dict)
    """Claims taken for a runner instance whose answer could not be given; the next poll gets them."""
    observations: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Per session: observation id → (run, segment) where it was first seen. A cache of the journal."""


async def gateway_of(request: Request) -> Gateway:
    """The app's shared state. A coroutine, because FastAPI sends plain functions to a thread for every request."""
    found = request.app.state.gateway
    assert isinstance(found, Gateway)
    return found


GatewayDep = Annotated[Gateway, Depends(gateway_of)]
