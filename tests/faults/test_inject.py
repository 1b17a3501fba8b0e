"""The tracer does what ``strace -e inject`` does."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.inject import NOTHING, CannotTrace, Strike, Tracer
from tests.faults.victims import END, SMALL, Nursery, Outcome
from triplane.audit.digest import digest_of_bytes

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


def struck(nursery: Nursery, root: Path, strike: Strike) -> tuple[Outcome, Tracer]:
    pid = nursery.begin("store", root=str(root), content="small", opened=True)
    with Tracer(pid, strike) as tracer:
        nursery.go()
        return nursery.outcome(), tracer


def test_a_process_that_is_only_listened_to_does_its_work(nursery: Nursery, tmp_path: Path) -> None:
    outcome, tracer = struck(nursery, tmp_path, NOTHING)
    assert outcome == Outcome(done=digest_of_bytes(SMALL))
    assert tracer.struck is None
    done = tracer.calls[: tracer.calls.index(END)]
    assert [call for call in done if call in {"write", "fsync", "fchmod", "linkat", "unlinkat"}] == [
        *("write", "fsync", "fchmod"),
        *("fsync", "fsync"),  # of the two folders made
        *("linkat", "fsync", "unlinkat"),
    ]


def test_the_same_deed_makes_the_same_calls(nursery: Nursery, tmp_path: Path) -> None:
    first, second = (struck(nursery, tmp_path / name, NOTHING)[1].calls for name in ("a", "b"))
    assert first == second


@pytest.mark.parametrize(
    ("error", "says"), [("EIO", "Input/output error"), ("ENOSPC", "No space left on device")], ids=["EIO", "ENOSPC"]
)
def test_the_call_meant_fails_with_the_error_meant_and_is_not_carried_out(
    nursery: Nursery, tmp_path: Path, error: str, says: str
) -> None:
    outcome, tracer = struck(nursery, tmp_path, Strike(1, "linkat", error))
    assert tracer.struck == "linkat"
    assert says in outcome.refused
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_call_is_counted_by_its_name(nursery: Nursery, tmp_path: Path) -> None:
    _, tracer = struck(nursery, tmp_path, Strike(3, "fsync", "EIO"))
    assert tracer.calls.count("fsync") == 3
    assert tracer.calls[-1] == "fsync" or tracer.struck == "fsync"


def test_a_process_is_killed_before_the_call_is_carried_out(nursery: Nursery, tmp_path: Path) -> None:
    outcome, tracer = struck(nursery, tmp_path, Strike(1, "linkat"))
    assert (outcome, tracer.struck) == (Outcome(), "linkat")
    (left,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert (left.parent.name, left.read_bytes()) == ("tmp", SMALL)


def test_a_process_that_is_not_there_cannot_be_traced() -> None:
    gone = 2**22 - 1
    with pytest.raises(CannotTrace, match=f"process {gone} cannot be traced"), Tracer(gone):
        pass


def test_a_strike_reads_as_strace_would_be_asked_for_it() -> None:
    assert str(Strike(2, "fsync", "EIO")) == "inject=fsync:error=EIO:when=2"
    assert str(Strike(17)) == f"inject=all:signal={signal.SIGKILL.name.removeprefix('SIG')}:when=17"
