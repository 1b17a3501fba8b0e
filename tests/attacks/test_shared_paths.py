"""Ways from a shared path to the rest of the machine: each leads there when links are followed or a path is opened
twice, and none does now.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.world import Done, World, make_world

from triplane.session import sharing
from triplane.session.beneath import NotBeneath
from triplane.session.refusal import RunEndsEarly
from triplane.session.sharing import SharedPath, open_shared

pytestmark = pytest.mark.attacks
SECRET = "what lies outside\n"
LOOKS = """
found = {}
for folder, folders, files in os.walk(os.environ.get("TRIPLANE_SHARED", "/work/shared"), followlinks=True):
    for name in files:
        path = os.path.join(folder, name)
        try:
            found[os.path.relpath(path, os.environ["TRIPLANE_SHARED"])] = open(path).read()
        except OSError as error:
            found[path] = error.strerror
for path in sys.argv[1:]:
    try:
        with open(path, "w") as file:
            file.write("changed")
        found[path] = "written"
    except OSError as error:
        found[path] = error.strerror
leave(text=json.dumps(found)); reflect()
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "home")
    async with made.serving():
        yield made


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared folder, and beside it what is not shared."""
    folder = tmp_path / "shared"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "data" / "a.txt").write_text("a\n")
    (folder / "data" / "deep" / "b.txt").write_text("b\n")
    (folder / "scratch").mkdir(mode=0o777)
    (folder / "scratch").chmod(0o777)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    for path in (folder, folder / "data", folder / "data" / "deep", tmp_path / "outside"):
        path.chmod(0o755)
    return folder


async def run(world: World, shared: Path | None, *uses: dict[str, Any], granted: Sequence[str], args: Sequence[str] = ()
              ) -> Done:  # fmt: skip
    kit = replace(await world.kit(), shared=shared)
    harness = {"program": "agent.py", "interpreter": "python3", "args": list(args), "env": []}
    return await world.carry_out(LOOKS, kit=kit, harness=harness, paths=list(uses), authority={"paths": list(granted)})


async def seen(world: World, done: Done) -> dict[str, str]:
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.result is not None
    found: dict[str, str] = json.loads(await world.read(done.run.result.outputs[0].digest))
    return found


def following(root: Path, relative: str) -> tuple[int, os.stat_result]:
    """The weakened check: a path is opened as it is, wherever it leads."""
    descriptor = os.open(root / relative, os.O_RDONLY)
    return descriptor, os.fstat(descriptor)


async def test_a_run_sees_what_it_is_granted_and_may_write_where_it_may(world: World, shared: Path) -> None:
    done = await run(
        world,
        shared,
        {"path": "data/deep"},
        {"path": "scratch", "writable": True},
        granted=["data/**", "scratch:rw"],
        args=["/work/shared/data/deep/b.txt", "/work/shared/scratch/new.txt", "/work/shared/data/a.txt"],
    )
    found = await seen(world, done)
    assert found["data/deep/b.txt"] == "b\n"
    assert "data/a.txt" not in found
    assert found["/work/shared/data/deep/b.txt"] == "Read-only file system"
    assert found["/work/shared/data/a.txt"] in ("Read-only file system", "No such file or directory")
    assert found["/work/shared/scratch/new.txt"] == "written"
    assert (shared / "scratch" / "new.txt").read_text() == "changed"
    assert (shared / "data" / "deep" / "b.txt").read_text() == "b\n"
    assert done.run.facts["paths"] == [
        {"path": "data/deep", "writable": False},
        {"path": "scratch", "writable": True},
    ]


@pytest.mark.parametrize(
    ("link", "path", "says"),
    [
        pytest.param("away", "away", "a symbolic link", id="a link in place of the folder"),
        pytest.param("away", "away/secret.txt", "a symbolic link", id="a link on the way"),
        pytest.param("data/away", "data/away/secret.txt", "a symbolic link", id="a link further down"),
    ],
)
async def test_a_link_in_the_shared_folder_leads_nowhere(
    world: World, shared: Path, link: str, path: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shared / link).symlink_to("../" * (link.count("/") + 1) + "outside")
    with monkeypatch.context() as weakened:
        weakened.setattr(sharing, "open_beneath", following)
        found = await seen(world, await run(world, shared, {"path": path}, granted=["**"]))
        assert SECRET in found.values()
    done = await run(world, shared, {"path": path}, granted=["**"])
    assert done.ending == ("refused", "PathUnavailable")
    assert says in done.message


async def test_a_link_within_what_is_shared_leads_out_of_nothing(world: World, shared: Path) -> None:
    """It is followed in the sandbox, where its end is not."""
    (shared / "data" / "away").symlink_to(shared.parent / "outside" / "secret.txt")
    (shared / "data" / "up").symlink_to("../../outside")
    found = await seen(world, await run(world, shared, {"path": "data"}, granted=["data"]))
    assert SECRET not in found.values()


async def test_a_folder_swapped_after_the_look_is_still_the_one_that_was_looked_at(
    world: World, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may write in the shared folder meanwhile."""
    opened = sharing._open_one

    def swapped(*args: Any) -> SharedPath:
        found = opened(*args)
        (shared / "data").rename(shared / "moved")
        (shared / "data").symlink_to(shared.parent / "outside")
        return found

    monkeypatch.setattr(sharing, "_open_one", swapped)
    with monkeypatch.context() as weakened:

        def by_path(self: SharedPath) -> sharing.Mount:
            os.close(self.descriptor)
            return sharing.Mount(shared / self.path, f"/work/shared/{self.path}", self.writable)

        weakened.setattr(SharedPath, "mount", by_path)
        found = await seen(world, await run(world, shared, {"path": "data"}, granted=["data"]))
        assert SECRET in found.values()
    (shared / "data").unlink()
    (shared / "moved").rename(shared / "data")
    found = await seen(world, await run(world, shared, {"path": "data"}, granted=["data"]))
    assert found["data/a.txt"] == "a\n"
    assert SECRET not in found.values()


@pytest.mark.parametrize(
    ("use", "granted"),
    [
        pytest.param({"path": "data"}, [], id="nothing"),
        pytest.param({"path": "data"}, ["dat"], id="another path"),
        pytest.param({"path": "data"}, ["data/deep"], id="only a part of it"),
        pytest.param({"path": "data", "writable": True}, ["data/**"], id="reading alone"),
        pytest.param({"path": "../outside"}, ["**:rw"], id="everything shared, which this is not"),
        pytest.param({"path": "/etc/passwd"}, ["**:rw"], id="everything shared, and no absolute path"),
    ],
)
async def test_authority_that_was_frozen_bounds_it(
    world: World, shared: Path, use: dict[str, Any], granted: list[str]
) -> None:
    done = await run(world, shared, use, granted=granted)
    assert done.ending[0] == "refused"
    assert done.ending[1] in ("PathForbidden", "PathUnavailable")
    assert "paths" in done.message or "plain relative path" in done.message


@pytest.mark.parametrize("special", ["pipe", "socket", "device"])
async def test_what_is_no_file_or_folder_is_not_shared(shared: Path, special: str) -> None:
    path = shared / "special"
    match special:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            server = socket.socket(socket.AF_UNIX)
            here = os.getcwd()
            os.chdir(shared)
            try:
                server.bind("special")
            finally:
                os.chdir(here)
                server.close()
        case _:
            if os.geteuid() != 0:
                return  # only root makes devices
            os.mknod(path, 0o20666, os.makedev(1, 5))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RunEndsEarly, match=r"only a regular file|cannot be"):
        open_shared(shared, [{"path": "data"}, {"path": "special"}], ["**"])
    assert len(os.listdir("/proc/self/fd")) == before, "what was opened before is closed again"


async def test_a_runner_that_shares_nothing_says_so(world: World) -> None:
    done = await run(world, None, {"path": "data"}, granted=["**"])
    assert done.ending == ("refused", "PathUnavailable")
    assert "TRIPLANE_SHARED" in done.message


async def test_a_shared_path_of_a_run_that_is_refused_later_is_closed(world: World, shared: Path) -> None:
    await world.carry_out("leave(); reflect()")
    before = len(os.listdir("/proc/self/fd"))
    kit = replace(await world.kit(), shared=shared)
    done = await world.carry_out(
        kit=kit, harness={"program": "missing.py"}, paths=[{"path": "data"}], authority={"paths": ["**"]}
    )
    assert done.ending == ("refused", "ProgramNotApproved")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_weakened_check_is_weaker(shared: Path) -> None:
    (shared / "away").symlink_to("../outside")
    descriptor, _ = following(shared, "away/secret.txt")
    os.close(descriptor)
    with pytest.raises(NotBeneath):
        sharing.open_beneath(shared, "away/secret.txt")


def test_the_same_as_an_ordinary_user() -> None:
    if os.geteuid() != 0:
        return  # the tests above were just that
    done = pytest_as_ordinary_user("tests/attacks/test_shared_paths.py", "-k", "not ordinary_user")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
