"""Run tokens: what is signed, what is refused, and rotation."""

import base64
import stat
from pathlib import Path

import orjson
import pytest

from triplane.gateway.tokens import RunClaim, RunTokens, rotate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gateway_keys"


def test_a_token_names_its_run_and_is_signed(folder: Path) -> None:
    tokens = RunTokens(folder)
    token = tokens.mint("s-1", 2, issued_at=1_700_000_000)
    prefix, payload, _ = token.split(".")
    assert prefix == "trp1"
    assert orjson.loads(base64.urlsafe_b64decode(payload + "==")) == {"sub": "s-1", "run": 2, "iat": 1_700_000_000}
    assert tokens.verify(token) == RunClaim("s-1", 2)


def test_keys_are_private_and_survive_a_restart(folder: Path) -> None:
    token = RunTokens(folder).mint("s", 1, issued_at=0)
    assert RunTokens(folder).verify(token) == RunClaim("s", 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


def test_two_keys_overlap_and_a_third_ends_the_first(folder: Path) -> None:
    tokens = RunTokens(folder)
    first = tokens.mint("s", 1, issued_at=0)
    rotate(folder)
    second = tokens.mint("s", 2, issued_at=0)
    assert tokens.verify(first) == RunClaim("s", 1)
    assert tokens.verify(second) == RunClaim("s", 2)
    rotate(folder)
    assert tokens.verify(first) is None
    assert tokens.verify(second) == RunClaim("s", 2)
    assert len(list(folder.iterdir())) == 2


def test_a_token_of_other_keys_is_refused(folder: Path, tmp_path: Path) -> None:
    assert RunTokens(folder).verify(RunTokens(tmp_path / "other").mint("s", 1, issued_at=0)) is None


def test_no_altered_character_is_accepted(folder: Path) -> None:
    tokens = RunTokens(folder)
    token = tokens.mint("s", 1, issued_at=0)
    for place in range(len("trp1."), len(token)):
        for other in ("A", "_"):
            altered = token[:place] + other + token[place + 1 :]
            assert altered == token or tokens.verify(altered) is None, place


@pytest.mark.parametrize(
    "token",
    [
        "",
        "trp1.",
        "trp1..",
        "trp1.a",
        "trp1.a.b.c",
        "trp1.e30.AAAA",
        "trp2.e30.AAAA",
        "trp1.é.AAAA",
        "trp1.e30=.AAAA",
        "trp1.a.b\n",
    ],
)
def test_what_is_no_token_is_refused(folder: Path, token: str) -> None:
    assert RunTokens(folder).verify(token) is None
