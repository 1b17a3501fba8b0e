"""Targets and rulings, purely; ways around them are in tests/attacks/test_egress.py."""

from ipaddress import ip_address

import pytest

from triplane.domain.egress import Target, allowed, canonical, parse_target, worth_resolving
from triplane.errors import InvalidInput

PUBLIC = ip_address("93.184.216.34")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Example.COM:443", "example.com:443", id="capitals"),
        pytest.param("example.com.:8443", "example.com:8443", id="a final dot"),
        pytest.param("_sip.example.com:1", "_sip.example.com:1", id="an underscore"),
        pytest.param("xn--mnchen-3ya.example:443", "xn--mnchen-3ya.example:443", id="a name in its ASCII form"),
        pytest.param("93.184.216.34:65535", "93.184.216.34:65535", id="an IPv4 address"),
        pytest.param("[2001:DB8:0::1]:443", "[2001:db8::1]:443", id="an IPv6 address"),
        pytest.param("[::ffff:93.184.216.34]:443", "93.184.216.34:443", id="a mapped address"),
        pytest.param("localhost:443", "localhost:443", id="one label"),
    ],
)
def test_a_target_has_one_spelling(text: str, shown: str) -> None:
    assert str(parse_target(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("granted\u2024example:443", id="a dot that is none"),
        pytest.param("\uff11\uff12\uff17.0.0.1:443", id="digits of another width"),
        pytest.param("m\xfcnchen.example:443", id="a letter beyond ASCII"),
        pytest.param("a" * 64 + ".example:443", id="a label of 64 characters"),
        pytest.param(".".join(["a" * 60] * 5) + ":443", id="a name of 304 characters"),
        pytest.param("-a.example:443", id="a leading hyphen"),
        pytest.param("a-.example:443", id="a trailing hyphen"),
        pytest.param("[2001:db8::1:443", id="a bracket that is not closed"),
        pytest.param("[example.com]:443", id="a name in brackets"),
        pytest.param("[127.0.0.1]:443", id="an IPv4 address in brackets"),
        pytest.param("2001:db8::1:443", id="an IPv6 address without brackets"),
        pytest.param("1.2.3:443", id="three numbers"),
        pytest.param("host.0x:443", id="a last label that begins like hexadecimal"),
        pytest.param(":443", id="no host"),
        pytest.param("example.com:", id="no port"),
        pytest.param("example.com:\u0664\u0664\u0663", id="digits of another script"),
    ],
)
def test_what_is_no_plain_target_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_target(text)


def test_a_mapped_address_is_the_address_it_stands_for() -> None:
    assert canonical(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert canonical(ip_address("2001:db8::1")) == ip_address("2001:db8::1")


def test_addresses_keep_the_order_of_the_name_service_and_come_once() -> None:
    found = [ip_address(each) for each in ("93.184.216.34", "10.0.0.1", "8.8.8.8", "::ffff:8.8.8.8")]
    ruling = allowed(["example.com"], parse_target("example.com:443"), found)
    assert list(map(str, ruling.addresses)) == ["93.184.216.34", "8.8.8.8"]
    assert ruling.refusal == ""


def test_a_private_address_of_a_name_needs_both_the_name_and_the_block() -> None:
    target, inside = parse_target("db.example:5432"), [ip_address("10.1.2.3")]
    assert not allowed(["db.example:5432"], target, inside).addresses
    assert not allowed(["10.0.0.0/8:5432"], target, inside).addresses
    assert allowed(["db.example:5432", "10.0.0.0/8:5432"], target, inside).addresses == (ip_address("10.1.2.3"),)
    assert not allowed(["db.example:5432", "10.0.0.0/8"], target, inside).addresses, "the block on another port"


def test_nothing_is_granted_by_nothing() -> None:
    ruling = allowed([], parse_target("example.com:443"), [PUBLIC])
    assert ruling.addresses == ()
    assert "egress example.com:443 is refused" in ruling.refusal
    assert "Limit of axis egress: none" in ruling.refusal


@pytest.mark.parametrize(
    ("patterns", "target", "worth"),
    [
        pytest.param(["*"], "any.example:443", True, id="any name"),
        pytest.param(["*"], "any.example:80", False, id="on another port"),
        pytest.param(["10.0.0.0/8"], "any.example:443", False, id="under a block alone"),
        pytest.param([], "93.184.216.34:443", True, id="an address, which is not looked up"),
    ],
)
def test_only_names_that_are_granted_are_worth_looking_up(patterns: list[str], target: str, worth: bool) -> None:
    assert worth_resolving(patterns, parse_target(target)) is worth


def test_a_target_shows_itself_as_it_is_written() -> None:
    assert str(Target("2001:db8::1", 443, ip_address("2001:db8::1"))) == "[2001:db8::1]:443"
