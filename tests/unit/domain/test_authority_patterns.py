"""Patterns as sets, held against brute force: every string of a small alphabet is tried."""

import itertools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from triplane.domain.authority_egress import Egress, covers_egress, is_public_address, meet_egress
from triplane.domain.authority_patterns import (
    HOSTS,
    NAMES,
    PATHS,
    SharedPath,
    covers_name,
    covers_path,
    meet_names,
    meet_paths,
    plain,
)
from triplane.domain.pattern import fits

PATTERN = st.text(alphabet="ab*/", min_size=1, max_size=6).filter(lambda text: text.count("*") <= 3)
STRINGS = ["".join(letters) for size in range(6) for letters in itertools.product("abx/", repeat=size)]
"""``x`` occurs in no pattern: it stands for every other character."""
PATHS_TRIED = [
    "/".join(parts) for size in range(5) for parts in itertools.product(["a", "b", "ab", "ba", "x"], repeat=size)
]
"""The first is the shared folder itself."""
PATH_PATTERN = st.builds(
    lambda segments, writable: "/".join(segments) + (":rw" if writable else ""),
    st.lists(st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "**"]), min_size=1, max_size=3),
    st.booleans(),
)


def described(pattern: str) -> set[str]:
    return {text for text in STRINGS if fits(plain(pattern), text)}


@given(PATTERN, PATTERN)
@settings(max_examples=300)
def test_covering_is_exact(limit: str, pattern: str) -> None:
    # Within these strings inclusion may hold by accident of their length; never the other way round.
    if covers_name(limit, pattern):
        assert described(pattern) <= described(limit)
    elif len(pattern) < 5:
        assert not described(pattern) <= described(limit)


@given(PATTERN, PATTERN)
@settings(max_examples=300)
def test_what_two_patterns_have_in_common_is_exactly_that(one: str, other: str) -> None:
    common = set().union(*(described(each) for each in meet_names(one, other)))
    assert common == described(one) & described(other)


@given(st.lists(PATTERN, max_size=4), st.lists(PATTERN, max_size=4))
def test_a_meet_of_lists_describes_what_both_describe(one: list[str], other: list[str]) -> None:
    def union(patterns: list[str]) -> set[str]:
        return set().union(*map(described, patterns))

    assert union(NAMES.meet(one, other)) == union(one) & union(other)


@given(PATTERN)
def test_one_spelling(pattern: str) -> None:
    assert described(plain(pattern)) == described(pattern)
    assert plain(plain(pattern)) == plain(pattern)


def granted(pattern: str) -> set[tuple[str, bool]]:
    """Paths, and whether they may be written."""
    found = SharedPath.parse(pattern)
    ways = (False, True) if found.writable else (False,)
    depth = len(found.segments)
    return {
        (path, way)
        for path in PATHS_TRIED
        for way in ways
        if len(parts := path.split("/") if path else []) >= depth
        and all(fits(plain(seg), part) for seg, part in zip(found.segments, parts, strict=False))
    }


@given(PATH_PATTERN, PATH_PATTERN)
@example("*", "**")
@settings(max_examples=200)
def test_paths_cover_exactly_what_they_grant_with_all_that_is_beneath(limit: str, pattern: str) -> None:
    assert covers_path(limit, pattern) == (granted(pattern) <= granted(limit))


@given(PATH_PATTERN, PATH_PATTERN)
@settings(max_examples=200)
def test_what_two_paths_have_in_common(one: str, other: str) -> None:
    assert set().union(*map(granted, meet_paths(one, other))) == granted(one) & granted(other)


def test_a_path_grants_what_is_beneath_it_and_not_what_is_beside() -> None:
    assert covers_path("data", "data/a/b")
    assert covers_path("data/**", "data")
    assert not covers_path("data", "database")
    assert not covers_path("data/a", "data")
    assert not covers_path("data", "data:rw")
    assert PATHS.normal(["data/**", "data/a", "**"]) == ["**"]


TARGETS = [
    (host, port)
    for port in (443, 8443)
    for host in (
        "a.example", "x.a.example", "example", "b.example", "8.8.8.8", "10.1.2.3", "10.200.0.1", "127.0.0.1",
        "169.254.169.254", "100.64.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "168.63.129.16",
        "2606:4700::1", "2001:db8::1", "::1", "fe80::1", "fd00:ec2::254", "64:ff9b::a00:1", "::ffff:10.1.2.3",
    )
]  # fmt: skip
HOST = st.sampled_from(
    ["*", "*:8443", "a.example", "A.Example.", "*.example", "*.a.example", "x.a.example:8443", "10.0.0.0/8",
     "10.128.0.0/9", "10.1.2.3", "0.0.0.0/0", "8.8.0.0/16", "127.0.0.1:8443", "[::]/0", "2606:4700::/32",
     "[2001:db8::1]:8443", "[::ffff:10.0.0.0]/104", "168.63.129.16"]
)  # fmt: skip


def reached(pattern: str) -> set[tuple[str, int]]:
    return {(host, port) for host, port in TARGETS if Egress.parse(pattern).permits(host, port)}


@given(HOST, HOST)
@settings(max_examples=300)
def test_egress_covers_only_what_it_reaches(limit: str, pattern: str) -> None:
    if covers_egress(limit, pattern):
        assert reached(pattern) <= reached(limit)


@given(HOST, HOST)
@settings(max_examples=300)
def test_what_two_egress_patterns_have_in_common(one: str, other: str) -> None:
    common = set().union(*map(reached, meet_egress(one, other)))
    assert common == reached(one) & reached(other)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "::",
    ],
)  # fmt: skip
def test_a_star_reaches_no_address_that_is_not_public(address: str) -> None:
    assert not Egress.parse("*").permits(address, 443)
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_a_star_reaches_public_addresses(address: str) -> None:
    assert Egress.parse("*").permits(address, 443)
    assert is_public_address(address)
    assert not Egress.parse("*").permits(address, 80)


def test_a_private_address_is_reached_by_naming_it() -> None:
    assert Egress.parse("127.0.0.1:8443").permits("127.0.0.1", 8443)
    assert Egress.parse("127.0.0.1:8443").permits("::ffff:127.0.0.1", 8443)
    assert Egress.parse("fd00::/8").permits("[fd00:ec2::254]", 443)


@pytest.mark.parametrize(
    ("pattern", "port"),
    [
        pytest.param("example.org", 443, id="a host alone is https"),
        pytest.param("example.org:8080", 8080, id="a host with a port"),
        pytest.param("10.0.0.0/8:80", 80, id="a block with a port"),
        pytest.param("[2001:db8::]/32:80", 80, id="a block of IPv6 with a port"),
        pytest.param("::1:80", 443, id="without brackets all of it is the address"),
    ],
)
def test_ports(pattern: str, port: int) -> None:
    assert Egress.parse(pattern).port == port
    assert HOSTS.spell(HOSTS.spell(pattern)) == HOSTS.spell(pattern)


def test_neighbouring_blocks_are_the_block_they_make_up() -> None:
    assert HOSTS.normal(["10.0.0.0/9", "10.128.0.0/9", "10.0.0.1"]) == ["10.0.0.0/8"]


def test_no_pattern_makes_the_lattice_slow() -> None:
    """64 patterns of 253 characters on both sides: what an object can hold at most."""
    many = [("*a" * 126)[: 252 - len(str(n))] + str(n) + "*" for n in range(64)]
    others = [("*b" * 126)[: 252 - len(str(n))] + str(n) + "*" for n in range(64)]
    long, longer = (["*" + letter * (240 - n) + "*" + letter * n for n in range(10, 74)] for letter in ("a", "ab"))
    began = time.monotonic()
    for one, other in ((many, others), ([each[:253] for each in long], [each[:253] for each in longer])):
        NAMES.beyond(one, other)
        assert len(NAMES.meet(one, other)) <= 64
    assert time.monotonic() - began < 10
    assert not fits("*a" * 126, "a" * 125 + "b")
