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
from triplane.domain.events import blob_erased
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


async def test_what_is_missing_is_told_by_backup_and_by_restore(
    source: Installation, empty: tuple[Settings, Database], tmp_path: Path
) -> None:
    digests = await source.fill()
    folder = tmp_path / "backups"
    (source.settings.secrets / "install_secret").write_text("ab" * 32 + "\n")
    first = json.loads(triplane(source.settings, "backup", str(folder), "--with-secrets", "-o", "json").stdout)
    await source.content.delete(digests[5])
    await source.content.delete(digests[6])
    await source.log.append([blob_erased(digests[6], 1)])
    taken = triplane(source.settings, "backup", str(folder))
    assert taken.returncode == 1, "something is lost"
    assert "1 blobs that entries need are lost" in taken.stderr
    assert "manifest sha256:" in taken.stdout, "it is written all the same"
    newest = triplane(empty[0], "restore", str(folder), "--check")
    assert newest.returncode == 0, newest.stderr
    assert "0 of 29 blobs are left out" in newest.stderr
    assert "1 blobs that entries need were lost" in newest.stderr
    chosen = ("restore", str(folder), "--set", first["set"], "--manifest", first["manifest"])
    refused = triplane(empty[0], *chosen)
    assert refused.returncode == 1
    assert digests[6] in refused.stderr
    done = triplane(empty[0], *chosen, "--accept-erased")
    assert done.returncode == 0, done.stderr
    assert "1 of 31 blobs are left out: erased since" in done.stderr
    assert "1 private files are in the set and not restored" in done.stderr
    assert not (empty[0].secrets / "install_secret").exists()


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
