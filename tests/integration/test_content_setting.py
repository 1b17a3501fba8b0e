"""``TRIPLANE_CONTENT``: one place decides where blobs are, and refuses what cannot be one."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.s3server import S3Server

from triplane.errors import InvalidInput, TriplaneError, Unavailable
from triplane.settings import Settings
from triplane.wiring import content_folder, open_content


async def round_trip(settings: Settings) -> None:
    told: list[str] = []

    async def quarantined(digest: str, where: str) -> None:
        told.append(where)

    async with open_content(settings, on_quarantine=quarantined) as store:
        digest = await store.store(b"content")
        assert b"".join([chunk async for chunk in store.resolve(digest)]) == b"content"
        assert [blob.digest async for blob in store.stored()] == [digest]
        assert told == []


async def test_without_a_setting_blobs_are_in_the_folder_of_the_installation(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "a b%20c")
    assert content_folder(settings) == settings.cas
    await round_trip(settings)
    assert (settings.cas / "blobs").is_dir()


async def test_a_folder_elsewhere(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", content=f"file:{tmp_path}/elsewhere")
    assert content_folder(settings) == tmp_path / "elsewhere"
    await round_trip(settings)
    assert not settings.cas.exists()


async def test_a_bucket_with_its_secret_in_the_setting_or_in_a_file(s3_server: S3Server, tmp_path: Path) -> None:
    values = s3_server.settings()
    settings = Settings(home=tmp_path, **values)
    assert content_folder(settings) is None
    assert values["content_secret_key"] not in repr(settings)
    await round_trip(settings)
    secret = values.pop("content_secret_key")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "content_secret_key").write_text(f"{secret}\n")
    await round_trip(Settings(home=tmp_path, **values))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"content": "nfs://server/folder"}, InvalidInput, "nfs"),
        ({"content": "relative/folder"}, InvalidInput, "relative/folder"),
        ({"content": "file:relative"}, InvalidInput, "absolute"),
        ({"content": "s3://"}, InvalidInput, "bucket"),
        ({"content_http": False}, InvalidInput, "TRIPLANE_CONTENT_HTTP"),
        ({"content_secret_key": None}, Unavailable, "content_secret_key"),
        ({"content_secret_key": "wrong"}, Unavailable, "let"),
        ({"content": "s3://no-such-bucket/x"}, Unavailable, "no-such-bucket"),
        ({"content_endpoint": "http://127.0.0.1:9"}, Unavailable, "try again"),
    ],
    ids=[
        "another service", "no scheme", "no absolute folder", "no bucket", "not encrypted", "no secret",
        "a wrong secret", "a bucket that is not there", "nobody there",
    ],
)  # fmt: skip
async def test_what_cannot_be_used_is_refused_with_what_to_do(
    s3_server: S3Server, tmp_path: Path, changes: dict[str, Any], error: type[TriplaneError], told: str
) -> None:
    settings = Settings(home=tmp_path, **s3_server.settings(**changes))
    with pytest.raises(error, match=told):
        async with open_content(settings):
            pass


@pytest.mark.parametrize(
    "values",
    [{"collect_grace_seconds": 60}, {"collect_seconds": -1}, {"scrub_octets_per_second": 0}, {"run_octets": 0}],
    ids=["a grace that loses work", "a negative interval", "a scrub that never ends", "no quota at all"],
)
def test_settings_that_could_lose_work_are_refused(tmp_path: Path, values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Settings(home=tmp_path, **values)  # type: ignore[arg-type]
