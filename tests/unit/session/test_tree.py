"""Packing a folder is a function of the tree alone, and unpacking takes nothing that was not packed so."""

import hashlib
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triplane.errors import InvalidInput, TooLarge
from triplane.session.tree import TreeLimits, hash_tree, pack_tree, unpack_tree

LONG = "long-" * 24
GOLDEN = "sha256:3b27288ec4eeaf609d09031477f0039b6f5f7ec782bb4a7d02c8b1924d71f8b0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a" / "empty").mkdir(parents=True)
    (root / "a" / "inner.txt").write_text("inner")
    (root / "a-b").write_text("sorts between a and a/inner.txt")
    (root / "ümlaut ✓").write_bytes(b"")
    (root / LONG / LONG).mkdir(parents=True)
    (root / LONG / LONG / "deep").write_bytes(bytes(range(256)) * 10)
    (root / "new\nline").write_text("odd, but a name")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o711)
    return root


def packed(path: Path) -> bytes:
    return b"".join(pack_tree(path))


def contents(root: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(root)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes() if path.is_file() else None,
        )
        for path in root.rglob("*")
    }


def test_a_tree_survives_packing_and_unpacking(tree: Path, tmp_path: Path) -> None:
    unpack_tree(io.BytesIO(packed(tree)), tmp_path / "again")
    assert {name: got[1] for name, got in contents(tmp_path / "again").items()} == {
        name: want[1] for name, want in contents(tree).items()
    }
    modes = {name: got[0] for name, got in contents(tmp_path / "again").items()}
    assert modes["run.sh"] == 0o755
    assert modes["a/inner.txt"] == 0o644
    assert modes["a/empty"] == 0o755
    assert packed(tmp_path / "again") == packed(tree)
    assert hash_tree(tree) == f"sha256:{hashlib.sha256(packed(tree)).hexdigest()}"


def test_an_archive_file_is_unpacked_as_a_stream_is(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(packed(tree))
    unpack_tree(tmp_path / "archive", tmp_path / "again")
    assert hash_tree(tmp_path / "again") == hash_tree(tree)


def test_times_owners_and_other_mode_bits_make_no_difference(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    (other / "a").chmod(0o700)
    (other / "run.sh").chmod(0o700)
    (other / "a-b").chmod(0o600)
    assert hash_tree(other) == hash_tree(tree)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "a-b").write_text("x"), id="content"),
        pytest.param(lambda root: (root / "a-b").rename(root / "a-c"), id="a name"),
        pytest.param(lambda root: (root / "run.sh").chmod(0o644), id="the executable bit"),
        pytest.param(lambda root: (root / "a" / "empty").rmdir(), id="an empty folder"),
    ],
)
def test_any_other_change_changes_the_digest(tree: Path, change: Callable[[Path], object]) -> None:
    before = hash_tree(tree)
    change(tree)
    assert hash_tree(tree) != before


def test_the_packing_of_a_small_tree_never_changes(tmp_path: Path) -> None:
    (tmp_path / "t" / "d").mkdir(parents=True)
    (tmp_path / "t" / "d" / "ü").write_text("content\n")
    assert hash_tree(tmp_path / "t") == GOLDEN


def test_other_readers_of_tar_understand_it(tree: Path, tmp_path: Path) -> None:
    archive = packed(tree)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = {member.name: member for member in tar.getmembers()}
        assert set(names) == set(contents(tree))
        assert {(member.mtime, member.uid, member.gid) for member in names.values()} == {(0, 0, 0)}
        assert tar.extractfile(f"{LONG}/{LONG}/deep").read() == bytes(range(256)) * 10  # type: ignore[union-attr]
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", tmp_path / "out"], input=archive, check=True)
    assert hash_tree(tmp_path / "out") == hash_tree(tree)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and len(name.encode()) <= 120
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map(tuple), st.binary(max_size=2000), max_size=6))
def test_any_tree_survives(tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, ...], bytes]) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "in").mkdir()
    for parts, content in files.items():
        path = root.joinpath("in", *parts)
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    unpack_tree(io.BytesIO(packed(root / "in")), root / "out")
    assert contents(root / "out") == contents(root / "in")


def _link(root: Path) -> None:
    (root / "bad").symlink_to("run.sh")


def _pipe(root: Path) -> None:
    os.mkfifo(root / "bad")


def _socket(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(root)
        made.bind("bad")
        os.chdir(here)


def _name(root: Path) -> None:
    (root / os.fsdecode(b"bad\xff")).write_text("")


@pytest.mark.parametrize("spoil", [_link, _pipe, _socket, _name], ids=["link", "pipe", "socket", "name not UTF-8"])
def test_only_files_and_folders_with_proper_names_are_packed(tree: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tree)
    with pytest.raises(InvalidInput, match="bad"):
        packed(tree)


def test_a_file_is_no_tree_and_a_growing_file_is_refused(tree: Path) -> None:
    with pytest.raises(InvalidInput, match="not a folder"):
        packed(tree / "run.sh")
    chunks = pack_tree(tree)
    next(chunks)
    with (tree / "run.sh").open("a") as file:
        file.write("more")
    with pytest.raises(InvalidInput, match=r"run\.sh changed"):
        list(chunks)


def test_a_folder_swapped_for_a_link_while_packing_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "inner.txt").write_text("outer")
    chunks = pack_tree(tree)
    next(chunks)
    shutil.rmtree(tree / "a")
    (tree / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInput, match="changed while it was packed"):
        list(chunks)


# Hostile archives


def by_tarfile(*members: tarfile.TarInfo, format: int = tarfile.USTAR_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return made.getvalue().rstrip(b"\0").ljust(-(-len(made.getvalue().rstrip(b"\0")) // 512) * 512, b"\0") + bytes(1024)


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    made.mtime = 0
    for key, value in more.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(by_tarfile(member("l", tarfile.SYMTYPE, linkname="/etc")), id="a symbolic link"),
        pytest.param(by_tarfile(member("a"), member("l", tarfile.LNKTYPE, linkname="a")), id="a hard link"),
        pytest.param(by_tarfile(member("d", tarfile.CHRTYPE)), id="a character device"),
        pytest.param(by_tarfile(member("d", tarfile.BLKTYPE)), id="a block device"),
        pytest.param(by_tarfile(member("d", tarfile.FIFOTYPE)), id="a pipe"),
        pytest.param(by_tarfile(member("/etc/x")), id="an absolute path"),
        pytest.param(by_tarfile(member("../x")), id="a path that climbs"),
        pytest.param(by_tarfile(member("a/", tarfile.DIRTYPE), member("a/../../x")), id="one that climbs later"),
        pytest.param(by_tarfile(member("./x")), id="a dot in the path"),
        pytest.param(by_tarfile(member("a/", tarfile.DIRTYPE), member("a//x")), id="an empty name in the path"),
        pytest.param(by_tarfile(member(".")), id="the folder itself"),
        pytest.param(by_tarfile(member("a"), member("a")), id="a duplicate"),
        pytest.param(by_tarfile(member("a"), member("a/", tarfile.DIRTYPE)), id="a file and a folder of one name"),
        pytest.param(by_tarfile(member("b"), member("a")), id="out of order"),
        pytest.param(by_tarfile(member("a/x")), id="a folder nobody made"),
        pytest.param(by_tarfile(member("a"), member("a/x")), id="a file used as a folder"),
        pytest.param(by_tarfile(member("a", mode=0o4755)), id="set-user-id"),
        pytest.param(by_tarfile(member("a", mode=0o600)), id="another mode"),
        pytest.param(by_tarfile(member("a", mtime=1)), id="a time"),
        pytest.param(by_tarfile(member("a", uid=1)), id="an owner"),
        pytest.param(by_tarfile(member("a", uname="root")), id="an owner's name"),
        pytest.param(by_tarfile(member("a", tarfile.CONTTYPE)), id="another type of file"),
        pytest.param(by_tarfile(member("a"), format=tarfile.GNU_FORMAT), id="the GNU form"),
        pytest.param(
            by_tarfile(member("a", pax_headers={"SCHILY.xattr.user.x": "1"}), format=tarfile.PAX_FORMAT),
            id="an extended attribute",
        ),
        pytest.param(
            by_tarfile(member("ü", pax_headers={"size": "0"}), format=tarfile.PAX_FORMAT), id="a size said twice"
        ),
        pytest.param(by_tarfile(member("d/", tarfile.DIRTYPE))[:156] + b"9" + bytes(1379), id="an unknown type"),
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"\x1f\x8b" + bytes(2000), id="a compressed archive"),
        pytest.param(by_tarfile(member("a", size=700))[:1100], id="cut off in a file"),
        pytest.param(by_tarfile(member("a"))[:512], id="cut off before the end"),
        pytest.param(by_tarfile(member("a")) + bytes(512), id="zeros behind the end"),
        pytest.param(by_tarfile(member("a")) + b"x", id="data behind the end"),
        pytest.param(
            by_tarfile(member("a", size=1))[:1023] + b"!" + bytes(1024), id="data hidden in the filling of a block"
        ),
    ],
)
def test_what_pack_tree_does_not_write_is_refused(archive: bytes, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    with pytest.raises(InvalidInput):
        unpack_tree(io.BytesIO(archive), tmp_path / "sandbox" / "dest")
    assert {path.name for path in tmp_path.iterdir()} == {"sandbox"}
    assert {path.name for path in (tmp_path / "sandbox").iterdir()} == {"dest"}


def test_the_hostile_archives_differ_from_this_accepted_one_only_where_they_say(tmp_path: Path) -> None:
    archive = by_tarfile(member("a", size=1), member("d/", tarfile.DIRTYPE), member("d/x", mode=0o755))
    unpack_tree(io.BytesIO(archive), tmp_path / "dest")
    assert packed(tmp_path / "dest") == archive


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_altered_archive_unpacks_to_something_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("altered")
    (root / "in" / "d").mkdir(parents=True)
    (root / "in" / "d" / "ü").write_bytes(b"content")
    archive = bytearray(packed(root / "in"))
    for _ in range(data.draw(st.integers(1, 3))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    try:
        unpack_tree(io.BytesIO(bytes(archive)), root / "out")
    except (InvalidInput, TooLarge):
        return
    assert packed(root / "out") == archive


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        pytest.param(TreeLimits(entries=3), "more than 3 entries", id="entries"),
        pytest.param(TreeLimits(octets=2000), "more than 2000 octets", id="octets"),
        pytest.param(TreeLimits(depth=2), "deeper than 2", id="depth"),
        pytest.param(TreeLimits(path=200), "over 200 octets", id="path"),
    ],
)
def test_a_tree_over_a_limit_is_neither_packed_nor_unpacked(
    tree: Path, tmp_path: Path, limits: TreeLimits, what: str
) -> None:
    with pytest.raises(TooLarge, match=what):
        list(pack_tree(tree, limits))
    with pytest.raises(TooLarge, match=what):
        unpack_tree(io.BytesIO(packed(tree)), tmp_path / "out", limits)


def test_an_existing_folder_is_left_alone(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="exists already"):
        unpack_tree(io.BytesIO(packed(tree)), tree)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="exists already"):
        unpack_tree(io.BytesIO(packed(tree)), tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()
