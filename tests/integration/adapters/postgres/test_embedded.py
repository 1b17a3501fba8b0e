"""The embedded server: private, password only, and back after every kind of death."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from triplane.adapters.postgres import embedded
from triplane.adapters.postgres.embedded import PORT, SOCKET_PATH_LIMIT, SUPERUSER, EmbeddedPostgres, socket_folder
from triplane.errors import Unavailable


@pytest.fixture
def folder() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="tri-"))
    yield home / "pg"
    shutil.rmtree(home)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    made = EmbeddedPostgres(folder, "the superuser's password")
    made.start()
    yield made
    made.stop()


def rows(server: EmbeddedPostgres, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.dsn) as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type]


def test_it_is_private_durable_and_without_a_network_address(server: EmbeddedPostgres) -> None:
    wanted = {
        "listen_addresses": "",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "password_encryption": "scram-sha-256",
        "unix_socket_permissions": "0700",
        "data_checksums": "on",
    }
    for name, value in wanted.items():
        assert rows(server, f"SHOW {name}") == [(value,)], name
    methods = rows(server, "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules")
    assert methods == [("local", "scram-sha-256")]
    for path in (server.folder, server.data, server.log):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize("password", ["", "wrong"], ids=["no password", "a wrong password"])
def test_nobody_gets_in_without_the_password(server: EmbeddedPostgres, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(host=str(server.socket), user=SUPERUSER, dbname="postgres", password=password)


def test_it_does_not_run_as_root(server: EmbeddedPostgres) -> None:
    pid = server.running_pid()
    assert pid is not None
    mapping = Path(f"/proc/{pid}/uid_map").read_text().split()
    inside = int(mapping[0]) if os.getuid() == 0 else os.getuid()
    assert inside != 0


def test_what_was_committed_survives_sigkill(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    server.kill()
    assert not server.is_ready()
    server.start()
    assert rows(server, "SELECT n FROM kept") == [(1,)]


def test_a_stale_lock_file_with_the_pid_of_a_stranger_does_not_stop_it(server: EmbeddedPostgres) -> None:
    server.kill()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock = server.data / "postmaster.pid"
        lines = lock.read_text().split("\n")
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        assert server.running_pid() is None
        server.start()
        assert stranger.poll() is None, "the stranger must be left alone"
    finally:
        stranger.communicate()
    assert server.running_pid() not in {None, stranger.pid}


def test_a_running_server_is_recognised_by_another_object(server: EmbeddedPostgres) -> None:
    other = EmbeddedPostgres(server.folder, "the superuser's password")
    assert other.running_pid() == server.running_pid()
    other.clear_stale_locks()
    assert (server.data / "postmaster.pid").exists()
    assert other.is_ready()


def test_initialising_again_keeps_the_data_and_mends_the_configuration(server: EmbeddedPostgres) -> None:
    before = rows(server, "SELECT system_identifier FROM pg_control_system()")
    server.stop()
    (server.data / "pg_hba.conf").write_text("local all all trust\n")
    server.start()
    assert rows(server, "SELECT system_identifier FROM pg_control_system()") == before
    assert rows(server, "SELECT auth_method FROM pg_hba_file_rules") == [("scram-sha-256",)]


def test_an_initialisation_that_was_killed_is_done_again(folder: Path) -> None:
    (folder / "data.new").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder, "x")
    server.ensure_initialised()
    assert not (folder / "data.new").exists()
    assert (server.data / "PG_VERSION").exists()


def test_a_path_too_long_for_a_socket_gets_a_short_private_folder(folder: Path) -> None:
    long = folder / ("x" * 90)
    assert len(str(long / f".s.PGSQL.{PORT}")) > SOCKET_PATH_LIMIT
    server = EmbeddedPostgres(long, "x")
    server.start()
    try:
        assert server.socket != long
        assert socket_folder(long) == server.socket, "the same answer in every process"
        assert len(str(server.socket / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_LIMIT
        assert server.socket.stat().st_mode & 0o077 == 0
        assert rows(server, "SELECT 1") == [(1,)]
    finally:
        server.stop()
        used = server.socket
        shutil.rmtree(used)
    anew = socket_folder(long)
    assert anew != used, "a folder that is gone is made anew"
    assert anew.is_dir()
    shutil.rmtree(anew)


def test_a_server_that_cannot_start_says_why(server: EmbeddedPostgres) -> None:
    server.stop()
    (server.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(Unavailable, match=r"did not start.*version"):
        server.start(10)


def test_without_the_wheel_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="TRIPLANE_DATABASE_HOST"):
        embedded.binaries()


@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user needs no namespace")
def test_where_root_gets_no_user_namespace_the_message_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError(1, "unshare")

    monkeypatch.setattr(EmbeddedPostgres, "preexec", lambda self: refuse)
    with pytest.raises(Unavailable, match="TRIPLANE_DATABASE_HOST"):
        EmbeddedPostgres(folder, "x").ensure_initialised()
