"""A bucket as a backend of the content store: ``s3://<bucket>[/<prefix>]`` (``triplane.backends``). The rest of what it
needs (endpoint, region, key) are the settings ``TRIPLANE_CONTENT_…``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from triplane.adapters.s3.bucket import S3Place
from triplane.adapters.s3.contentstore import S3ContentStore
from triplane.backends import ContentPlace
from triplane.errors import InvalidInput, Unavailable
from triplane.settings import Settings


@asynccontextmanager
async def content(place: ContentPlace) -> AsyncIterator[S3ContentStore]:
    """Raises ``InvalidInput`` for a URL that names no bucket, ``Unavailable`` when it cannot be used now."""
    store = S3ContentStore(
        s3_place(place.url, place.settings), on_quarantine=place.on_quarantine, cap=place.settings.blob_octets
    )
    await store.open()
    yield store


def s3_place(url: str, settings: Settings) -> S3Place:
    """The bucket that the URL and the settings name."""
    parts = urlsplit(url)
    if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(
            f"{url!r} names no bucket: write s3://<bucket> or s3://<bucket>/<prefix>; keys and endpoint are settings"
        )
    endpoint = settings.content_endpoint
    if endpoint is not None and endpoint.startswith("http://") and not settings.content_http:
        raise InvalidInput(f"{endpoint} is not encrypted: use https://, or set TRIPLANE_CONTENT_HTTP=true")
    return S3Place(
        parts.netloc,
        prefix=unquote(parts.path).strip("/"),
        endpoint=endpoint,
        region=settings.content_region,
        access_key=settings.content_access_key,
        secret_key=_secret(settings),
        allow_http=settings.content_http,
    )


def _secret(settings: Settings) -> str | None:
    if settings.content_access_key is None:
        return None
    if settings.content_secret_key is not None:
        return settings.content_secret_key.get_secret_value()
    path = settings.secrets / "content_secret_key"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(
            f"no secret for the key {settings.content_access_key}: {path} cannot be read ({error.strerror}); "
            "write it there, or set TRIPLANE_CONTENT_SECRET_KEY"
        ) from error
