"""Paths beneath a folder, without following anything."""

import os
import socket
from pathlib import Path

import pytest

from triplane.session.beneath import NotBeneath, NothingThere, open_beneath


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="empty"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("../up", id="up first"),
        pytest.param("a/../../up", id="up later"),
        pytest.param("a//b", id="an empty name"),
        pytest.param("./a", id="a dot"),
        pytest.param("a\0b", id="a NUL"),
    ],
)
def test_paths_that_are_not_plain_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(NotBeneath, match="plain relative path"):
        open_beneath(tmp_path, path)


def test_a_regular_file_in_a_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("content")
    descriptor, status = open_beneath(tmp_path, "a/b")

    assert os.read(descriptor, 100) == b"content"
    assert status.st_size == 7
    os.close(descriptor)


def test_what_does_not_exist_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NothingThere):
        open_beneath(tmp_path, "absent")
    with pytest.raises(NothingThere):
        open_beneath(tmp_path, "absent/b")


def test_links_pipes_and_sockets_are_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("real/file")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "sock"))
        for path, kind in (
            ("link", "link is a symbolic link"),
            ("folder", "folder is a symbolic link"),
            ("folder/file", "folder is a symbolic link"),
            ("pipe", "a named pipe"),
            ("sock", "a socket"),
            ("real/file/deeper", "a regular file"),
        ):
            with pytest.raises(NotBeneath, match=kind):
                open_beneath(tmp_path, path)


def test_a_device_is_refused_or_cannot_even_be_made(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        assert os.geteuid() != 0
        return
    with pytest.raises(NotBeneath, match="a character device"):
        open_beneath(tmp_path, "null")


def test_no_descriptor_is_leaked(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b", "absent/x", "../x", "a/b/c"):
        with pytest.raises(NotBeneath):
            open_beneath(tmp_path, path)

    assert len(os.listdir("/proc/self/fd")) == before
