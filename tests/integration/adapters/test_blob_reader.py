"""Reading a content store from beside it: what is read is what was stored, and nothing is changed."""

from pathlib import Path

import pytest

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.adapters.filesystem.reader import BlobReader
from triplane.errors import BlobMissing, Corrupt, InvalidInput, TooLarge, Unavailable


async def test_a_blob_is_read_whole_and_checked(tmp_path: Path) -> None:
    digest = await FilesystemContentStore(tmp_path).store(b"content")
    reader = BlobReader(tmp_path)
    assert await reader.read(digest, limit=7) == b"content"
    with pytest.raises(TooLarge):
        await reader.read(digest, limit=6)
    with pytest.raises(BlobMissing):
        await reader.read("sha256:" + "0" * 64, limit=7)
    with pytest.raises(InvalidInput):
        await reader.read("sha256:../../secret", limit=7)


async def test_a_damaged_blob_is_told_of_and_left_where_it_is(tmp_path: Path) -> None:
    digest = await FilesystemContentStore(tmp_path).store(b"content")
    (path,) = (tmp_path / "blobs").rglob(digest.removeprefix("sha256:"))
    path.chmod(0o600)
    path.write_bytes(b"altered")
    with pytest.raises(Corrupt):
        await BlobReader(tmp_path).read(digest, limit=100)
    assert path.read_bytes() == b"altered"
    assert list((tmp_path / "quarantine").iterdir()) == []


async def test_a_folder_in_its_place_is_not_mistaken_for_a_missing_blob(tmp_path: Path) -> None:
    digest = await FilesystemContentStore(tmp_path).store(b"content")
    (path,) = (tmp_path / "blobs").rglob(digest.removeprefix("sha256:"))
    path.unlink()
    path.mkdir()
    with pytest.raises(Unavailable):
        await BlobReader(tmp_path).read(digest, limit=100)
