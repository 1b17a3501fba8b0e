"""How the log stands to what was signed of it: each standing, each message, each way out."""

import pytest
from tests.unit.audit.notary import LOG, ORIGIN, THIEF, Log

from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.dsse import load_public_key
from triplane.domain.continuity import Finding, Held, Known, Standing, judge, opened, parse_accepted, refusal
from triplane.errors import InvalidInput

TRUE = Log().grow(20)
FALSE = Log("false").grow(20)
KNOWN = Known(ORIGIN, (load_public_key(LOG.public_key).public_bytes_raw(),))
PLACE = "file:/kept"


def now(log: Log, size: int, at: int) -> Checkpoint:
    """The log of this size, with its root at the smaller size that it is compared at."""
    return Checkpoint(ORIGIN, size, log.head(at).root)


def signed(log: Log, size: int) -> Checkpoint:
    found = opened(Held(PLACE, log.signed(size)), KNOWN)
    assert isinstance(found, Checkpoint)
    return found


@pytest.mark.parametrize(
    ("held", "standing", "said"),
    [
        pytest.param(Held(PLACE), Standing.ABSENT, "holds no checkpoint yet", id="never written"),
        pytest.param(
            Held(PLACE, anchored=12), Standing.VANISHED, "one of 12 entries: somebody removed it", id="removed"
        ),
        pytest.param(Held(PLACE, problem="no route"), Standing.UNREACHABLE, "no route; what it holds", id="away"),
        pytest.param(
            Held(PLACE, problem="no route", anchored=12),
            Standing.UNREACHABLE,
            "no route",
            id="away, and written before",
        ),
        pytest.param(Held(PLACE, readable=False), Standing.WRITE_ONLY, "only takes", id="write-only"),
        pytest.param(Held(PLACE, b"hello"), Standing.UNVERIFIED, "MalformedNote", id="no note at all"),
        pytest.param(Held(PLACE, TRUE.signed(12, THIEF)), Standing.UNVERIFIED, "NotSigned", id="signed by another key"),
    ],
)
def test_a_place_without_a_checkpoint_of_ours_contradicts_nothing(held: Held, standing: Standing, said: str) -> None:
    found = opened(held, KNOWN)
    assert isinstance(found, Finding)
    assert (found.standing, found.contradicts) == (standing, False)
    assert said in found.message
    assert refusal([found]) is None


@pytest.mark.parametrize(
    ("seen", "head", "anchored", "standing", "said"),
    [
        pytest.param(12, now(TRUE, 20, 12), None, Standing.CONTINUES, "continues its 12 entries", id="a continuation"),
        pytest.param(20, now(TRUE, 20, 20), 20, Standing.CONTINUES, "continues", id="the same"),
        pytest.param(
            12, now(TRUE, 20, 12), 15, Standing.STALE, "was given one of 15: somebody put an old", id="an old one"
        ),
        pytest.param(
            12, now(TRUE, 9, 9), None, Standing.ROLLED_BACK, "entries 9 to 11 were cut off", id="a shorter log"
        ),
        pytest.param(
            12, now(FALSE, 12, 12), None, Standing.FORKED, "not the ones that were", id="as long, and another"
        ),
        pytest.param(12, now(FALSE, 20, 12), None, Standing.FORKED, "not the ones that were", id="longer, and another"),
        pytest.param(
            12,
            Checkpoint("log.example/new", 2, b""),
            None,
            Standing.OTHER_ORIGIN,
            "begun anew, or exchanged",
            id="anew",
        ),
    ],
)
def test_a_checkpoint_of_ours_is_held_against_the_log(
    seen: int, head: Checkpoint, anchored: int | None, standing: Standing, said: str
) -> None:
    found = judge(Held(PLACE, anchored=anchored), signed(TRUE, seen), head)
    assert found.standing is standing
    assert said in found.message
    assert PLACE in found.message
    error = refusal([found])
    assert (error is not None) == found.contradicts
    if error is not None:
        for words in (f"{seen} entries", TRUE.head(seen).root.hex(), "restore a newer backup", "begin a new log"):
            assert words in str(error)


def test_what_another_log_of_ours_signed_is_known_by_its_own_name() -> None:
    other = sign_checkpoint(Checkpoint("log.example/old", 3, bytes(32)), "log.example/old", [LOG])
    found = opened(Held(PLACE, other), KNOWN)
    assert isinstance(found, Checkpoint)
    assert judge(Held(PLACE), found, now(TRUE, 20, 20)).standing is Standing.OTHER_ORIGIN


def test_giving_up_covers_what_it_names_and_below_and_nothing_else() -> None:
    behind = [judge(Held(PLACE), signed(TRUE, size), now(TRUE, 9, 9)) for size in (10, 12)]
    error = refusal(behind)
    assert error is not None
    accepted = parse_accepted(str(error).rpartition("TRIPLANE_ACCEPT_ROLLBACK=")[2])
    assert (accepted.origin, accepted.size, accepted.root) == (ORIGIN, 12, TRUE.head(12).root)
    assert refusal(behind, accepted) is None
    later = judge(Held(PLACE), signed(TRUE, 15), now(TRUE, 9, 9))
    forked = judge(Held(PLACE), signed(FALSE, 12), now(TRUE, 9, 9))
    for other in (later, forked):
        assert refusal([*behind, other], accepted) is not None


@pytest.mark.parametrize(
    "text", ["", "true", "log.example/7f3a", "log.example/7f3a+12", "log.example/7f3a+12+abcd", "a+-1+" + "0" * 64]
)
def test_giving_up_needs_the_whole_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"TRIPLANE_ACCEPT_ROLLBACK=.*names no checkpoint"):
        parse_accepted(text)
