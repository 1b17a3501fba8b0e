"""What a command is told to write goes there whole or not at all, and never takes the place of a device."""

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from triplane.adapters.anchors.file import FileAnchor
from triplane.adapters.filesystem.verifystate import VerifyState
from triplane.audit.verifying import TreeState
from triplane.cli.trust import written
from triplane.errors import InvalidInput, Unavailable


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """Stands for everything that is no file: /dev/null, /dev/stdout."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with written(path) as file:
        file.write(b"one")
    with pytest.raises(RuntimeError), written(path) as file:
        file.write(b"half of t")
        raise RuntimeError
    assert (path.read_bytes(), [each.name for each in tmp_path.iterdir()]) == (b"one", ["out"])
    with (
        pytest.raises(InvalidInput, match="nowhere/out cannot be written: No such file"),
        written(tmp_path / "nowhere/out"),
    ):
        pass


def test_what_is_no_file_is_written_to_and_stays_what_it_is(pipe: Path) -> None:
    found: list[bytes] = []
    reader = Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with written(pipe) as file:
        file.write(b"one")
    reader.join(10)
    assert found == [b"one"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(pipe.parent.iterdir()) == [pipe]


async def test_what_is_written_again_and_again_takes_no_devices_place(pipe: Path, tmp_path: Path) -> None:
    primary, replica = os.openpty()
    try:
        with pytest.raises(Unavailable, match="it is a device"):
            await FileAnchor(Path(os.ttyname(replica))).write(b"a checkpoint")
    finally:
        os.close(primary)
        os.close(replica)
    with pytest.raises(InvalidInput, match="is no file"):
        VerifyState(pipe, tmp_path / "secrets", "localhost/abc").write(TreeState(0, (), "", ""))
    assert stat.S_ISFIFO(pipe.stat().st_mode)
