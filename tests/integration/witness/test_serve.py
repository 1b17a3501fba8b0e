"""``triplane witness serve`` as processes of its own: what it answers, remembers over a SIGKILL, and never cosigns."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.unit.audit.notary import ORIGIN, Log, log_key

from triplane.adapters.http.witness import open_witnesses
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, verify_checkpoint
from triplane.audit.notekey import KeyRing, parse_key
from triplane.audit.witness import MAX_REQUEST, make_request, origin_hash, with_cosignatures
from triplane.errors import Conflict, InvalidInput
from triplane.ports.notary import Cosignatures, OtherSize, Refusal
from triplane.witness.folder import identity, make
from triplane.witness.server import open_witness

TRUE = Log().grow(25)
COMMAND = [sys.executable, "-m", "triplane.cli.main", "witness"]


@dataclass
class Served:
    """One process."""

    url: str
    process: subprocess.Popen[str]

    def post(self, body: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/add-checkpoint", content=body, timeout=60, trust_env=False)

    def latest(self, origin: str = ORIGIN) -> httpx.Response:
        return httpx.get(f"{self.url}/{origin_hash(origin)}/checkpoint", timeout=60, trust_env=False)


def environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("TRIPLANE_")} | more


def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment()
    )


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Served]:
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", str(folder), "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(**variables),
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (folder / "log").read_text()
        yield Served(url, process)
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "witness"
    make(made, "witness.example/1")
    with (made / "logs").open("a") as logs:
        logs.write(f"{ORIGIN} {log_key()}\n")
    return made


def trust(folder: Path) -> CheckpointTrust:
    return CheckpointTrust(ORIGIN, KeyRing([log_key()]), KeyRing([identity(folder).key]), 1)


def test_it_cosigns_what_grows_and_serves_the_latest(folder: Path) -> None:
    trusted = trust(folder)
    with serving(folder) as served:
        assert served.latest().status_code == 404
        for old, new in ((0, 9), (9, 9), (9, 20)):
            answer = served.post(make_request(old, TRUE.growth(old, new) if 0 < old < new else (), TRUE.signed(new)))
            assert answer.status_code == 200, answer.text
            both = with_cosignatures(TRUE.signed(new), answer.content, trusted.witnesses)
            assert verify_checkpoint(both, trusted).checkpoint == TRUE.head(new)
            assert served.latest().content == both
        late = served.post(make_request(9, TRUE.growth(9, 12), TRUE.signed(12)))
        assert (late.status_code, late.text, late.headers["content-type"]) == (409, "20\n", "text/x.tlog.size")
        assert httpx.get(f"{served.url}/healthz", trust_env=False).text == "ok\n"
        assert httpx.get(f"{served.url}/add-checkpoint", trust_env=False).status_code == 405
    with serving(folder) as again:
        assert again.latest().content == both, "remembered over a restart"


async def test_triplanes_own_notary_understands_what_it_answers(folder: Path) -> None:
    trusted = trust(folder)
    with serving(folder) as served:
        (witness,) = open_witnesses(f"{identity(folder).key}={served.url}")
        first = await witness.add_checkpoint(0, (), TRUE.signed(9))
        assert isinstance(first, Cosignatures)
        assert with_cosignatures(TRUE.signed(9), first.body, trusted.witnesses)
        assert await witness.add_checkpoint(0, (), TRUE.signed(20)) == OtherSize(9)
        assert isinstance(await witness.add_checkpoint(9, TRUE.growth(9, 20), TRUE.signed(20)), Cosignatures)
        refused = await witness.add_checkpoint(20, (), Log("false").grow(20).signed(20))
        assert isinstance(refused, Refusal)
        assert refused.status == 422
        await witness.close()


def test_a_signed_contradiction_is_refused_and_kept_as_evidence(folder: Path) -> None:
    other = Log("false").grow(20)
    with serving(folder) as served:
        assert served.post(make_request(0, (), TRUE.signed(20))).status_code == 200
        for _ in range(2):
            answer = served.post(make_request(20, (), other.signed(20)))
            assert answer.status_code == 422
            assert "is forked" in answer.text
    kept = list((folder / "evidence").iterdir())
    assert [path.read_bytes() for path in kept] == [other.signed(20)]


def test_killed_between_writing_down_and_answering_it_remembers(folder: Path) -> None:
    """Row 20: nobody has the cosignature, and yet no other story is cosigned afterwards."""
    fork = Log("false").grow(12)
    with serving(folder, TRIPLANE_FAILPOINT="witness.recorded:1") as served:
        with pytest.raises(httpx.HTTPError):
            served.post(make_request(0, (), TRUE.signed(12)))
        assert served.process.wait(60) == -signal.SIGKILL
    with serving(folder) as again:
        assert again.post(make_request(0, (), fork.signed(12))).status_code == 409
        assert again.post(make_request(12, (), fork.signed(12))).status_code == 422
        assert verify_checkpoint(again.latest().content, trust(folder)).checkpoint == TRUE.head(12)
        assert again.post(make_request(12, (), TRUE.signed(12))).status_code == 200, "the log gets its answer"


def test_two_processes_on_one_record_never_cosign_two_stories(folder: Path) -> None:
    """Row 20: clients of both climb two stories at once."""
    fork = Log("fork")
    fork.entries = TRUE.entries[:9]
    fork.grow(25)
    with serving(folder) as one, serving(folder) as two:
        assert one.post(make_request(0, (), TRUE.signed(9))).status_code == 200
        cosigned: list[Checkpoint] = []

        def climb(served: Served, log: Log) -> None:
            size = 9
            while size < 25:
                answer = served.post(make_request(size, log.growth(size, size + 1), log.signed(size + 1)))
                if answer.status_code == 200:
                    cosigned.append(log.head(size + 1))
                elif answer.status_code == 422:
                    return
                size = int(answer.text) if answer.status_code == 409 else size + 1

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(climb, served, log) for served in (one, two) for log in (TRUE, fork)]:
                done.result(120)
        roots: dict[int, set[bytes]] = {}
        for checkpoint in cosigned:
            roots.setdefault(checkpoint.size, set()).add(checkpoint.root)
        assert sorted(roots) == list(range(10, 26))
        assert all(len(found) == 1 for found in roots.values())
        story = TRUE if roots[10] == {TRUE.head(10).root} else fork
        assert all(found == {story.head(size).root} for size, found in roots.items()), "one story, and whole"


def test_what_is_no_request_is_refused(folder: Path) -> None:
    with serving(folder) as served:
        for body, status in (
            (b"", 400),
            (b"x" * (MAX_REQUEST + 5), 400),
            (make_request(0, (), Log(origin="log.example/8").grow(2).signed()), 404),
        ):
            assert served.post(body).status_code == status


def test_a_log_is_added_without_a_restart_and_a_wrong_line_changes_nothing(folder: Path) -> None:
    other = Log(origin="log.example/8").grow(2)
    asked = make_request(0, (), other.signed())
    with serving(folder) as served:
        assert served.post(asked).status_code == 404
        logs = (folder / "logs").read_text()
        (folder / "logs").write_text(f"{logs}{other.origin} no-key\n")
        assert served.post(asked).status_code == 404
        assert served.post(make_request(0, (), TRUE.signed(9))).status_code == 200, "the others stay"
        (folder / "logs").write_text(f"{logs}{other.origin} {log_key(name=other.origin)}  # added\n")
        assert served.post(asked).status_code == 200
    assert "line 5" in (folder / "log").read_text()


@pytest.mark.parametrize(
    ("break_", "said"),
    [
        pytest.param(lambda folder: (folder / "record.sqlite").unlink(), "make a new witness", id="no record"),
        pytest.param(lambda folder: (folder / "logs").unlink(), "lists the logs", id="no list of logs"),
        pytest.param(lambda folder: (folder / "logs").write_text("a b\n"), "line 1", id="a list that is wrong"),
        pytest.param(lambda folder: (folder / "name").unlink(), "witness init", id="no name"),
        pytest.param(
            lambda folder: [path.unlink() for path in (folder / "signing").glob("*.pem")], "holds no key", id="no key"
        ),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_served(break_, said: str, folder: Path) -> None:  # type: ignore[no-untyped-def]
    break_(folder)
    with pytest.raises(InvalidInput, match=said):
        open_witness(folder)


def test_a_witness_is_made_once_and_prints_the_key_that_others_pin(folder: Path, tmp_path: Path) -> None:
    done = ran("init", str(tmp_path / "new"), "--name", "witness.example/2")
    assert done.returncode == 0, done.stderr
    assert str(parse_key(done.stdout.strip())) == str(identity(tmp_path / "new").key)
    done = ran("init", str(folder), "--name", "witness.example/2")
    assert (done.returncode, "is a witness already" in done.stderr) == (1, True)


def test_what_an_interrupted_init_left_is_finished_by_the_next(tmp_path: Path) -> None:
    first = make(tmp_path / "new", "witness.example/2")
    (tmp_path / "new" / "name").unlink()  # it is written last
    made = make(tmp_path / "new", "witness.example/2")
    assert str(made.key) == str(first.key)
    open_witness(tmp_path / "new")
    with pytest.raises(Conflict, match="is a witness already"):
        make(tmp_path / "new", "witness.example/2")


def test_a_port_that_is_taken_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = ran("serve", str(folder), "--listen", f"127.0.0.1:{port}")
    assert (done.returncode, str(port) in done.stderr) == (2, True)


def test_it_needs_no_database_cluster_or_operator(folder: Path) -> None:
    """Nor what is slow to import: a witness may run on a small machine of somebody else's."""
    code = "import sys, triplane.witness.server; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = set(done.stdout.split())
    assert not modules & {"psycopg", "kubernetes", "kopf", "fastapi", "pydantic", "httpx", "obstore", "alembic"}
