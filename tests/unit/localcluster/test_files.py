"""Private files: whole or not there, readable by their owner only."""

import os
from pathlib import Path

import pytest

from triplane.errors import Corrupt
from triplane.localcluster.files import lock, private_directory, read_json, try_lock, write_private
from triplane.localcluster.kubeconfig import write_kubeconfig
from triplane.localcluster.state import Phase, SupervisorState, read_state, write_state


def test_a_private_file_is_0600_and_written_once(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert write_private(path, "one")
    inode = path.stat().st_ino
    assert path.stat().st_mode & 0o777 == 0o600
    assert not write_private(path, "one")
    assert path.stat().st_ino == inode
    assert write_private(path, "two")
    assert path.read_text() == "two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_file_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("one")
    path.chmod(0o644)
    assert write_private(path, "one")
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_open_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    assert private_directory(folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", ["{", "[]", "\xff"], ids=["cut short", "no object", "no text"])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(Corrupt, match=r"state\.json"):
        read_json(path)


async def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = await lock(path)
    assert try_lock(path) is None
    os.close(held)
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_state_survives_the_round_trip(tmp_path: Path) -> None:
    state = SupervisorState(7, Phase.READY, "", ("a", "b"), {"gateway": 2})
    write_state(tmp_path / "state.json", state)
    assert read_state(tmp_path / "state.json") == state
    assert read_state(tmp_path / "none.json") is None


def test_a_kubeconfig_is_private_and_rewritten_only_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "kubeconfig-alice"
    say = {"authority": b"pem", "user": "alice", "token": "t"}
    assert write_kubeconfig(path, server="https://127.0.0.1:1", **say)  # type: ignore[arg-type]
    assert not write_kubeconfig(path, server="https://127.0.0.1:1", **say)  # type: ignore[arg-type]
    assert write_kubeconfig(path, server="https://127.0.0.1:2", **say)  # type: ignore[arg-type]
    assert path.stat().st_mode & 0o777 == 0o600
