"""The run's folder: made for one run, and removable whatever was put into it."""

import json
import os
from pathlib import Path

from triplane.session.workspace import Workspace, create_workspace, remove_leftovers, remove_tree, write_order


def made(sessions: Path, session_uid: str, run: int) -> Workspace:
    workspace = Workspace.of_run(sessions, session_uid, run)
    create_workspace(workspace, None)
    return workspace


def test_the_folder_is_the_runners_alone(tmp_path: Path) -> None:
    workspace = made(tmp_path / "sessions", "uid-1", 2)

    assert workspace.root == tmp_path / "sessions" / "uid-1-2"
    assert workspace.root.stat().st_mode & 0o777 == 0o700
    assert workspace.root.parent.stat().st_mode & 0o777 == 0o700


def test_an_odd_session_id_cannot_leave_the_folder(tmp_path: Path) -> None:
    workspace = made(tmp_path / "sessions", "../../etc", 1)

    assert workspace.root.parent == tmp_path / "sessions"
    assert ".." not in workspace.root.name


def test_the_order_leaves_out_the_hosts_part_and_keeps_paths_inside(tmp_path: Path) -> None:
    workspace = made(tmp_path, "uid", 1)
    order = {
        "task": {"objective": "read /work/inputs/a", "path": "elsewhere"},
        "inputs": [{"name": "a", "path": "/work/inputs/a"}],
        "harness": {"program": "x"},
    }
    write_order(workspace, order, inside=True)
    assert json.loads(workspace.order.read_text()) == {k: v for k, v in order.items() if k != "harness"}

    workspace.order.unlink()
    write_order(workspace, order, inside=False)
    outside = json.loads(workspace.order.read_text())
    assert outside["inputs"] == [{"name": "a", "path": f"{workspace.root}/inputs/a"}]
    assert outside["task"] == order["task"]


def test_any_tree_can_be_removed_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    root = tmp_path / "root"
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(2000):  # far longer than a path may be
        os.mkdir("deep-inside", dir_fd=descriptor)
        inner = os.open("deep-inside", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    (root / "closed" / "in").mkdir(parents=True)
    (root / "closed" / "in" / "file").write_text("x")
    (root / "closed" / "in").chmod(0)
    (root / "closed").chmod(0)
    (root / "link").symlink_to(tmp_path / "precious")
    os.mkfifo(root / "pipe")
    remove_tree(root)

    assert os.listdir(tmp_path) == ["precious"]
    assert (tmp_path / "precious" / "file").read_text() == "kept"


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    ours = made(tmp_path, "living", 1)
    dead = made(tmp_path, "dead", 1)
    number, started = (dead.root / "owner").read_text().split()
    (dead.root / "owner").write_text(f"{number} {int(started) + 1}")  # the same number, another process
    unowned = tmp_path / "unowned"
    unowned.mkdir()

    assert sorted(remove_leftovers(tmp_path)) == ["dead-1", "unowned"]
    assert os.listdir(tmp_path) == [ours.root.name]
