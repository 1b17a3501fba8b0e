"""The folder as a backend of the content store: ``file:<absolute folder>`` (``triplane.backends``)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.backends import ContentPlace
from triplane.errors import InvalidInput


@asynccontextmanager
async def content(place: ContentPlace) -> AsyncIterator[FilesystemContentStore]:
    """Raises ``InvalidInput`` for a URL that names no absolute folder of this machine."""
    parts = urlsplit(place.url)
    folder = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not folder.is_absolute() or parts.query or parts.fragment:
        raise InvalidInput(f"{place.url!r} names no folder: write file: and its absolute path, as in file:/srv/blobs")
    yield await asyncio.to_thread(
        FilesystemContentStore, folder, on_quarantine=place.on_quarantine, cap=place.settings.blob_octets
    )
