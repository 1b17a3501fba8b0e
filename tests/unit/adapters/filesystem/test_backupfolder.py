"""The folder of backups takes nothing that is not its own."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from triplane.adapters.filesystem.backupfolder import BackupFolder
from triplane.errors import InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


async def test_only_sets_that_say_they_are_unfinished_are_removed(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path / "backups")
    async with folder.writing():
        unfinished = folder.begin(NOW).folder
        (unfinished / "blobs").write_text("half")
        finished = folder.begin(NOW)
        await finished.finish(b"{}\n")
        bare = folder.begin(NOW).folder
        (bare / "unfinished").unlink()
        altered = folder.begin(NOW).folder
        (altered / "unfinished").rename(altered / "table")
    strange = folder.root / "sets" / "holiday"
    strange.mkdir()
    (strange / "unfinished").write_text("somebody's")
    async with folder.writing():
        assert not unfinished.exists()
        assert not bare.exists(), "it was killed before it could say so"
    assert sorted(path.name for path in (folder.root / "sets").iterdir()) == sorted(
        [finished.name, altered.name, strange.name]
    )
    assert strange.name not in [item.name for item in folder.sets()]


async def test_a_folder_that_holds_something_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "sets" / "holiday").mkdir(parents=True)
    (home / "sets" / "holiday" / "a.jpg").write_text("x")
    home.chmod(0o755)
    with pytest.raises(InvalidInput, match="is not empty and no folder of backups"):
        async with BackupFolder(home).writing():
            pass
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert sorted(path.name for path in home.rglob("*")) == ["a.jpg", "holiday", "sets"]


async def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    for _ in range(2):
        async with BackupFolder(tmp_path).writing():
            assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


async def test_what_was_put_again_is_no_longer_called_erased(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path)
    async with folder.writing():
        await folder.erase([DIGEST, "sha256:" + "b" * 64])
        await folder.put_again([DIGEST, "sha256:" + "c" * 64])
    assert folder.erased() == {"sha256:" + "b" * 64}
