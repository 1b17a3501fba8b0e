"""Hosts that may be reached (``api.authority.EgressPattern``), as sets of names and addresses with a port.

What a pattern permits is asked twice of one connection: of the name the client gives (``permits``), and of the
address that name has (``permits_address``, ``is_public_address``), because a name may lead anywhere.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_network
from typing import Final

HTTPS: Final = 443
"""The port of an egress pattern without one."""
Network = IPv4Network | IPv6Network

_NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/3",
            "168.63.129.16/32",  # a provider's metadata service, on a public address
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    )
)  # fmt: skip
"""IANA special-purpose address registries (RFC 6890): what is not globally reachable, and metadata services. Of
IPv6 only 2000::/3 is global unicast; the rest is not public either."""
_GLOBAL: Final = (ip_network("0.0.0.0/0"), ip_network("2000::/3"))
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True)
class Egress:
    """An egress pattern: names, or addresses, on one port."""

    port: int
    name: str | None = None
    """Lower case, without a final dot; ``*.domain`` every name beneath; ``*`` every name and every public address."""
    network: Network | None = None

    @classmethod
    def parse(cls, pattern: str) -> "Egress":
        """Total on what the API server admits. Brackets keep an IPv6 address apart from its port; without them all
        of it is the address."""
        host, port = pattern, ""
        if pattern.startswith("["):
            inner, _, after = pattern[1:].partition("]")
            block, _, port = after.partition(":")
            host = inner + block
        elif _network(pattern) is None and ":" in pattern:
            host, _, port = pattern.rpartition(":")
        network = _network(host)
        number = int(port) if port.isascii() and port.isdigit() else HTTPS
        if network is not None:
            return cls(number, network=network)
        return cls(number, name=host.lower().removesuffix("."))

    @property
    def text(self) -> str:
        """The one spelling."""
        host = self.name
        if self.network is not None:
            single = self.network.num_addresses == 1
            host = str(self.network.network_address if single else self.network)
            if self.network.version == 6:
                address, slash, length = host.partition("/")
                host = f"[{address}]{slash}{length}"
        return f"{host}" if self.port == HTTPS else f"{host}:{self.port}"

    def covers(self, other: "Egress") -> bool:
        """Whether whatever ``other`` lets reach may be reached here."""
        if self.port != other.port:
            return False
        if self.network is not None:
            return other.network is not None and _within(other.network, self.network)
        if other.network is not None:
            return self.name == "*" and is_public(other.network)
        assert self.name is not None
        assert other.name is not None
        if self.name in ("*", other.name):
            return True
        return self.name.startswith("*.") and other.name.endswith(self.name[1:])

    def permits(self, host: str, port: int) -> bool:
        """Whether a client may ask for this host: a name, or an address in any spelling. A name that is permitted
        is not yet an address that is: see ``permits_address``."""
        network = _network(host.strip("[]"))
        asked = Egress(port, network=network) if network else Egress(port, name=host.lower().removesuffix("."))
        return asked.name != "*" and not (asked.name or "").startswith("*.") and self.covers(asked)

    def permits_address(self, address: str, port: int) -> bool:
        """Whether this address may be connected to by being an address: it is in the block, or public under ``*``."""
        network = _network(address)
        return network is not None and self.covers(Egress(port, network=network))


def is_public(network: Network) -> bool:
    """Whether every address of it is globally reachable, and none a metadata service."""
    return any(_within(network, each) for each in _GLOBAL) and not any(_meets(network, each) for each in _NOT_PUBLIC)


def is_public_address(address: str) -> bool:
    """Of one address; an IPv4 address that IPv6 carries (::ffff:…) is that address."""
    network = _network(address)
    return network is not None and is_public(network)


@lru_cache(maxsize=4096)
def _network(text: str) -> Network | None:
    try:
        found = ip_network(text.partition("%")[0], strict=False)
    except ValueError:
        return None
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        inner = IPv6Address(found.network_address).ipv4_mapped
        return IPv4Network((int(inner or 0), found.prefixlen - 96))
    return found


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _meets(one: Network, other: Network) -> bool:
    return _within(one, other) or _within(other, one)


def covers_egress(limit: str, pattern: str) -> bool:
    """Whether whatever ``pattern`` lets reach may be reached under ``limit``. ``*`` holds every name, and of
    addresses the public ones alone."""
    return Egress.parse(limit).covers(Egress.parse(pattern))


def meet_egress(one: str, other: str) -> Collection[str]:
    """What both let reach."""
    left, right = Egress.parse(one), Egress.parse(other)
    if left.covers(right):
        return [right.text]
    if right.covers(left):
        return [left.text]
    if left.port != right.port or "*" not in (left.name, right.name):
        return []
    block = left.network or right.network
    return [] if block is None else [Egress(left.port, network=each).text for each in _public_parts(block)]


@lru_cache(maxsize=256)
def _public_parts(network: Network) -> tuple[Network, ...]:
    """The public addresses of a block, as blocks."""
    parts: list[Network] = [each if _within(each, network) else network for each in _GLOBAL if _meets(each, network)]
    for hole in _NOT_PUBLIC:
        parts = [piece for part in parts for piece in _without(part, hole)]
    return tuple(parts)


def _without(part: Network, hole: Network) -> Iterable[Network]:
    if _within(part, hole):
        return ()
    if not _within(hole, part):
        return (part,)
    if isinstance(part, IPv4Network) and isinstance(hole, IPv4Network):
        return part.address_exclude(hole)
    assert isinstance(part, IPv6Network)
    assert isinstance(hole, IPv6Network)
    return part.address_exclude(hole)


def spelled_egress(pattern: str) -> str:
    """The one spelling of a pattern."""
    return Egress.parse(pattern).text


def collapsed(patterns: Iterable[str]) -> set[str]:
    """Neighbouring blocks of one port as the block they make up."""
    parsed = [Egress.parse(each) for each in patterns]
    texts = {each.text for each in parsed if each.network is None}
    for port in {each.port for each in parsed}:
        blocks = [each.network for each in parsed if each.port == port]
        four = collapse_addresses(each for each in blocks if isinstance(each, IPv4Network))
        six = collapse_addresses(each for each in blocks if isinstance(each, IPv6Network))
        merged: list[Network] = [*four, *six]
        texts |= {Egress(port, network=each).text for each in merged}
    return texts
