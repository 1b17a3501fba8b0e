"""``triplane backup`` and ``triplane restore`` as commands: killed in the middle, and into a home where nothing is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Database
from tests.integration.backup.world import Installation, opened, restore

from triplane.adapters.filesystem.backupfolder import BackupFolder
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.settings import Settings


def triplane(
    settings: Settings, *arguments: str, failpoint: str = "", external: bool = True
) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    environment |= {"TRIPLANE_HOME": str(settings.home), "NO_COLOR": "1"}
    if external:
        environment["TRIPLANE_DATABASE_HOST"] = str(settings.database_host)
        environment["TRIPLANE_DATABASE_NAME"] = settings.database_name
    if failpoint:
        environment["TRIPLANE_FAILPOINT"] = failpoint
    return subprocess.run(
        [sys.executable, "-m", "triplane.cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


async def test_killed_in_the_middle_an_earlier_set_stays_and_the_next_backup_is_whole(
    source: Installation, tmp_path: Path
) -> None:
    await source.fill()
    folder = tmp_path / "backups"
    first = json.loads(triplane(source.settings, "backup", str(folder), "-o", "json").stdout)
    await source.work(300, 20)
    killed = triplane(source.settings, "backup", str(folder), failpoint="backup.step:30")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    newest = BackupFolder(folder).sets()[-1]
    assert (newest.folder / "unfinished").exists()
    refused = triplane(source.settings, "restore", str(folder), "--check")
    assert refused.returncode == 2
    assert f"{newest.name} was interrupted" in refused.stderr
    assert first["set"] in refused.stderr
    await restore(folder, source.settings, name=first["set"], load=False)
    done = triplane(source.settings, "backup", str(folder))
    assert done.returncode == 0, done.stderr
    assert "manifest sha256:" in done.stdout
    assert len(BackupFolder(folder).sets()) == 2, "what was unfinished is gone"
    await restore(folder, source.settings, load=False)


async def test_a_killed_restore_is_repeated_until_it_is_whole(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    await source.fill()
    folder = tmp_path / "backups"
    taken = await source.backup(folder)
    settings, database = empty
    killed = triplane(settings, "restore", str(folder), failpoint="restore.step:45")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    migrating = triplane(settings, "migrate")
    assert migrating.returncode == 2
    assert "a restore into this database has begun and not ended" in migrating.stderr
    done = triplane(settings, "restore", str(folder), "--manifest", taken.digest)
    assert done.returncode == 0, done.stderr
    assert f"{taken.name} restored: 32 entries" in done.stdout
    async with opened(settings, database) as restored:
        assert (await restored.log.verify_chain()).root == taken.manifest.current.root
    again = triplane(settings, "restore", str(folder))
    assert again.returncode == 1
    assert "is in use, it holds rows:" in again.stderr


@pytest.fixture
def short_home() -> Iterator[Path]:
    """Sockets have short names."""
    home = Path(tempfile.mkdtemp(prefix="tri-r-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


async def test_a_restore_into_a_home_where_nothing_is_starts_and_stops_its_own_server(
    source: Installation, tmp_path: Path, short_home: Path
) -> None:
    await source.fill()
    taken = await source.backup(tmp_path / "backups")
    settings = Settings(home=short_home)
    done = triplane(settings, "restore", str(tmp_path / "backups"), "-o", "json", external=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["restored"], told["size"], told["root"]) == (True, 32, taken.manifest.current.root)
    password = (settings.secrets / "db_superuser").read_text().strip()
    assert password not in done.stdout + done.stderr
    server = EmbeddedPostgres(settings.pg, password)
    assert server.running_pid() is None, "the server it started is stopped again"
    server.start()
    try:
        verified = triplane(settings, "log", "verify", external=False)
        assert verified.returncode == 0, verified.stderr
        assert told["root"] in verified.stdout
    finally:
        server.stop()
