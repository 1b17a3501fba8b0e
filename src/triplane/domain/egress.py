"""The ruling on one connection out: what is asked for, and which of its addresses may be connected to.

What patterns of the axis ``egress`` mean is ``domain.authority_egress``. Two rules decide here, on addresses that were
looked up once and will be connected to as they stand:

- a name must fit a host pattern (a host, ``*.domain``, ``*``); then its *public* addresses are granted;
- an address that is not public (private, loopback, link-local, metadata, …) is granted only by an address or block,
  whether it is asked for as such or found under a name that fits.

So nobody's name service can turn leave for a name into leave for the inside of a network.

Standards followed: RFC 9110, section 9.3.6 (CONNECT: ``host:port``); RFC 4291, section 2.5.5.2 (an IPv4-mapped address
is judged, and connected to, as the IPv4 address).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from triplane.domain.authority_egress import Egress, is_public_address
from triplane.errors import InvalidInput

Address = IPv4Address | IPv6Address

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """What a program asks for, normalised."""

    host: str
    """A name in lower case without its final dot, or an address in its one canonical spelling."""
    port: int
    address: Address | None
    """When the host is an address."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is decided about one connection."""

    addresses: tuple[Address, ...]
    """Those that may be connected to, in the order the name service gave them; empty: refused."""
    refusal: str = ""
    """Axis, value, limit and who can change it, for a model or a person to read."""


def parse_target(text: str) -> Target:
    """``host:port`` of a CONNECT request.

    Raises ``InvalidInput`` for anything but a plain name or a canonically written address, and a port: user
    information, zones, percent-encoding, characters beyond ASCII, numbers that some programs take for addresses
    (``2130706433``, ``0x7f.1``, ``127.1``).
    """
    host, colon, port = text.rpartition(":")
    if not colon or _PORT.fullmatch(port) is None or int(port) > 65535:
        raise InvalidInput(f"{text[:300]!r} is not host:port with a port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            address = canonical(IPv6Address(host[1:-1]))
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise InvalidInput(f"{host[:300]} is not an IPv6 address in brackets; zones are not accepted")
        return Target(str(address), int(port), address)
    name = _name(host)
    if name is None:
        raise InvalidInput(
            f"{host[:300]!r} is neither a host name in ASCII (names of other scripts in their xn-- form) nor an "
            "address in dotted decimal"
        )
    return Target(name, int(port), _dotted(name))


def canonical(address: Address) -> Address:
    """The address as it is judged and connected to: an IPv4-mapped one as the IPv4 address it stands for."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def worth_resolving(patterns: Sequence[str], target: Target) -> bool:
    """Whether the target's name, if it is one, may be looked up: a host pattern fits it. A name service is a way out
    too, so no other name is so much as asked for."""
    return target.address is not None or _permitted(patterns, target)


def allowed(patterns: Sequence[str], target: Target, addresses: Sequence[Address]) -> Ruling:
    """Which of the target's addresses may be connected to, under these patterns of the axis ``egress``."""
    if not _permitted(patterns, target):
        return Ruling((), refusal(patterns, target))
    found = tuple(dict.fromkeys(map(canonical, addresses)))
    rules = [Egress.parse(pattern) for pattern in patterns]
    granted = tuple(
        address
        for address in found
        if any(rule.permits_address(str(address), target.port) for rule in rules)
        or (target.address is None and is_public_address(str(address)))
    )
    return Ruling(granted, "" if granted else refusal(patterns, target, found))


def refusal(patterns: Sequence[str], target: Target, inside: Sequence[Address] = ()) -> str:
    """Why the target is refused. ``inside``: the addresses of a name that is granted, none of which is public."""
    limit = ", ".join(patterns) or "none"
    if inside:
        shown = ", ".join(map(str, inside[:4]))
        return (
            f"egress {target} is refused: it leads to {shown}, which no public host has (private, loopback, "
            f"link-local, metadata or reserved). Limit of axis egress: {limit}. Whoever sets the authority of the "
            "Task, its Node, Graph or Agent may grant that address or block itself"
        )
    return (
        f"egress {target} is refused: it is not within the authority of this session. Limit of axis egress: {limit}. "
        "Whoever sets the authority of the Task, its Node, Graph or Agent may grant it"
    )


def _permitted(patterns: Sequence[str], target: Target) -> bool:
    return any(Egress.parse(pattern).permits(target.host, target.port) for pattern in patterns)


def _name(text: str) -> str | None:
    """The name in lower case without a final dot; None if it is none."""
    name = text.lower() if text.isascii() else ""
    name = name[:-1] if name.endswith(".") else name
    if not 0 < len(name) <= 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        return None
    # A name that ends in a number is taken for an IPv4 address by many programs, by each in its own way.
    if _NUMBER.fullmatch(name.rpartition(".")[2]) is not None and _dotted(name) is None:
        return None
    return name


def _dotted(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None
