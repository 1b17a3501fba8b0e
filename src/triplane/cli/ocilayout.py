"""Blobs as an OCI image layout: a folder that any OCI tool reads, and that is read back with every digest checked.

Follows the OCI image specification 1.1: ``oci-layout`` and ``index.json`` (image-layout.md), and manifests as for
artifacts (manifest.md, "Guidelines for Artifact Usage"): the empty config, our ``artifactType``, one layer for a blob.
Registries take manifests up to 4 MiB, so there is one for each 10,000 blobs.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from triplane.audit.digest import digest_of_bytes, parse_digest
from triplane.errors import Corrupt, InvalidInput, TooLarge

ARTIFACT_TYPE: Final = "application/vnd.triplane.blobs.v1"
LAYERS: Final = 10_000
"""Blobs in one manifest."""
DOCUMENT_OCTETS: Final = 4 << 20
"""Largest index or manifest that is read."""
DEPTH: Final = 4
"""Indexes within indexes that are followed."""
CHUNK: Final = 1 << 20

_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_OCTETS: Final = "application/octet-stream"
_EMPTY: Final = b"{}"
_EMPTY_DESCRIPTOR: Final = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": digest_of_bytes(_EMPTY),
    "size": len(_EMPTY),
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob of a layout."""

    digest: str
    size: int


class LayoutWriter:
    """Writes a layout into a new or empty folder. It is one only once ``finish`` has returned."""

    def __init__(self, folder: Path) -> None:
        """Raises ``InvalidInput`` when the folder cannot be made, or holds something already."""
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._layers: list[dict[str, Any]] = []
        self._manifests: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise InvalidInput(f"{folder} is not empty: the export would be mixed with it; name a new folder")
            self._blobs.mkdir(parents=True)
        except OSError as error:
            raise InvalidInput(f"cannot write into {folder}: {error.strerror}") from error

    def add(self, digest: str, chunks: Iterable[bytes]) -> int:
        """Write a blob as it streams; returns its octets. Raises ``Corrupt`` when it is another one: then it is not in
        the layout."""
        target = self._blobs / parse_digest(digest)
        hashed, size = hashlib.sha256(), 0
        try:
            with target.open("xb") as file:
                for chunk in chunks:
                    hashed.update(chunk)
                    size += len(chunk)
                    file.write(chunk)
                _sync(file)
        except FileExistsError:
            raise InvalidInput(f"{digest} is in {self._folder} already; name each blob once") from None
        except OSError as error:
            raise InvalidInput(f"cannot write {target}: {error.strerror}") from error
        if f"sha256:{hashed.hexdigest()}" != digest:
            target.unlink()
            raise Corrupt(f"sha256:{hashed.hexdigest()} arrived for {digest}; nothing of it is kept. Try again")
        self._layers.append({"mediaType": _OCTETS, "digest": digest, "size": size})
        if len(self._layers) == LAYERS:
            self._end_manifest()
        return size

    def finish(self) -> int:
        """Write what makes it a layout, ``index.json`` last; returns how many manifests there are."""
        if self._layers or not self._manifests:
            self._end_manifest()
        try:
            self._write(self._blobs / _EMPTY_DESCRIPTOR["digest"][7:], _EMPTY)  # type: ignore[index]
            self._write(self._folder / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
            index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": self._manifests}
            self._write(self._folder / "index.json", json.dumps(index, indent=1).encode())
            for folder in (self._blobs, self._blobs.parent, self._folder):
                _sync_folder(folder)
        except OSError as error:
            raise InvalidInput(f"cannot write into {self._folder}: {error.strerror}") from error
        return len(self._manifests)

    def _end_manifest(self) -> None:
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": _EMPTY_DESCRIPTOR,
            "layers": self._layers or [_EMPTY_DESCRIPTOR],
        }
        octets = json.dumps(manifest).encode()
        digest = digest_of_bytes(octets)
        try:
            self._write(self._blobs / digest[7:], octets)
        except OSError as error:
            raise InvalidInput(f"cannot write into {self._folder}: {error.strerror}") from error
        name = f"blobs-{len(self._manifests) + 1}"
        self._manifests.append(
            {
                "mediaType": _MANIFEST,
                "artifactType": ARTIFACT_TYPE,
                "digest": digest,
                "size": len(octets),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
        self._layers = []

    @staticmethod
    def _write(path: Path, octets: bytes) -> None:
        """The name comes last, and only to the whole. A blob that is there already is one of the exported."""
        if path.exists():
            return
        scratch = path.with_name(f".{path.name}.partial")
        with scratch.open("wb") as file:
            file.write(octets)
            _sync(file)
        scratch.replace(path)


def blobs_of_layout(folder: Path) -> list[Descriptor]:
    """The blobs of a layout, each once: the layers of its manifests; of manifests that are not ours also config and
    manifest themselves. Their sizes are what the layout says; ``read_blob`` holds the content against it.

    Raises ``InvalidInput`` for what is no layout, ``Corrupt`` for a manifest that is not what its digest says.
    """
    layout = _json(_document(folder, Path("oci-layout")), folder / "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise InvalidInput(f"{folder} is no OCI image layout of version 1.0.0: see its file oci-layout")
    index = _json(_document(folder, Path("index.json")), folder / "index.json")
    found: dict[str, Descriptor] = {}
    seen: set[str] = set()
    for each in _descriptors(index, "manifests", folder):
        _walk(folder, each, found, seen, DEPTH)
    return list(found.values())


def _walk(folder: Path, at: tuple[Descriptor, str], found: dict[str, Descriptor], seen: set[str], depth: int) -> None:
    """``seen``: indexes and manifests that were read, each once however often it is named."""
    descriptor, media_type = at
    if media_type not in (_INDEX, _MANIFEST):
        found.setdefault(descriptor.digest, descriptor)
        return
    if depth == 0:
        raise InvalidInput(f"{folder}: indexes lie more than {DEPTH} deep in each other; that is nobody's export")
    if descriptor.digest in seen:
        return
    seen.add(descriptor.digest)
    octets = _document(folder, _place(descriptor.digest), descriptor)
    document = _json(octets, folder / _place(descriptor.digest))
    if media_type == _INDEX:
        for each in _descriptors(document, "manifests", folder):
            _walk(folder, each, found, seen, depth - 1)
        return
    ours = document.get("artifactType") == ARTIFACT_TYPE
    if not ours:
        found.setdefault(descriptor.digest, descriptor)
        for config, _ in _descriptors({"config": [document.get("config")]}, "config", folder):
            found.setdefault(config.digest, config)
    for layer, kind in _descriptors(document, "layers", folder):
        if not (ours and kind == _EMPTY_DESCRIPTOR["mediaType"]):
            found.setdefault(layer.digest, layer)


def read_blob(folder: Path, blob: Descriptor) -> Iterator[bytes]:
    """The blob in chunks, the last only when the whole is known to be right. Raises ``Corrupt``, ``InvalidInput``."""
    path = folder / _place(blob.digest)
    hashed, size, held = hashlib.sha256(), 0, b""
    with _opened(path) as file:
        while chunk := file.read(CHUNK):
            hashed.update(chunk)
            size += len(chunk)
            if held:
                yield held
            held = chunk
    if (f"sha256:{hashed.hexdigest()}", size) != (blob.digest, blob.size):
        raise Corrupt(
            f"{path} holds sha256:{hashed.hexdigest()} of {size} octets, not {blob.digest} of {blob.size}: it was "
            "changed after it was exported; export it again"
        )
    if held:
        yield held


def _document(folder: Path, place: Path, descriptor: Descriptor | None = None) -> bytes:
    with _opened(folder / place) as file:
        octets = file.read(DOCUMENT_OCTETS + 1)
    if len(octets) > DOCUMENT_OCTETS:
        raise TooLarge(f"{folder / place} has more than {DOCUMENT_OCTETS} octets: too large for an index or manifest")
    if descriptor is not None and (digest_of_bytes(octets), len(octets)) != (descriptor.digest, descriptor.size):
        raise Corrupt(f"{folder / place} is not {descriptor.digest} of {descriptor.size} octets; export it again")
    return octets


def _opened(path: Path) -> BinaryIO:
    """Links are not followed: a layout may come from anybody."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InvalidInput(f"{path} is no regular file")
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    return os.fdopen(descriptor, "rb")


def _descriptors(document: dict[str, Any], member: str, folder: Path) -> Iterator[tuple[Descriptor, str]]:
    listed = document.get(member)
    for each in listed if isinstance(listed, list) else ():
        try:
            digest, size, media_type = each["digest"], each["size"], each["mediaType"]
            parse_digest(digest)
            if isinstance(size, bool) or not isinstance(size, int) or size < 0 or not isinstance(media_type, str):
                raise TypeError
        except (KeyError, TypeError, InvalidInput) as error:
            raise InvalidInput(
                f"{folder}: a descriptor in {member} lacks mediaType, size, or a digest sha256:…: {str(each)[:200]}"
            ) from error
        yield Descriptor(digest, size), media_type


def _json(octets: bytes, path: Path) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(octets)
        if isinstance(found, dict):
            return found
    raise InvalidInput(f"{path} is not a JSON object")


def _place(digest: str) -> Path:
    return Path("blobs", "sha256", parse_digest(digest))


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
