"""OCI image layouts: as the specification has them, read back with every digest checked, whoever made them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from triplane.cli import ocilayout
from triplane.cli.ocilayout import ARTIFACT_TYPE, Descriptor, LayoutWriter, blobs_of_layout, read_blob
from triplane.errors import Corrupt, InvalidInput, TooLarge

CONTENTS = [b"", b"{}", b"one", bytes(range(256)) * 10_000]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def exported(folder: Path, contents: list[bytes] = CONTENTS) -> Path:
    writer = LayoutWriter(folder)
    for content in contents:
        assert writer.add(sha256(content), [content[:5], content[5:]]) == len(content)
    writer.finish()
    return folder


def blob(folder: Path, digest: str) -> Path:
    return folder / "blobs" / "sha256" / digest[7:]


def read(folder: Path) -> dict[str, bytes]:
    return {each.digest: b"".join(read_blob(folder, each)) for each in blobs_of_layout(folder)}


def checked_descriptor(folder: Path, descriptor: dict[str, Any]) -> bytes:
    octets = blob(folder, descriptor["digest"]).read_bytes()
    assert (sha256(octets), len(octets)) == (descriptor["digest"], descriptor["size"])
    return octets


def test_what_is_written_is_a_layout_as_the_specification_has_it(tmp_path: Path) -> None:
    folder = exported(tmp_path / "layout")
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_text())
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    [entry] = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    manifest = json.loads(checked_descriptor(folder, entry))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, entry["mediaType"])
    assert manifest["artifactType"] == ARTIFACT_TYPE
    assert checked_descriptor(folder, manifest["config"]) == b"{}"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert [checked_descriptor(folder, layer) for layer in manifest["layers"]] == CONTENTS
    assert sorted(path.name for path in folder.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_it_is_read_back_octet_for_octet(tmp_path: Path) -> None:
    assert read(exported(tmp_path)) == {sha256(content): content for content in CONTENTS}


def test_nothing_is_an_export_as_well(tmp_path: Path) -> None:
    folder = exported(tmp_path / "layout", [])
    index = json.loads((folder / "index.json").read_text())
    manifest = json.loads(checked_descriptor(folder, index["manifests"][0]))
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.empty.v1+json"]
    assert read(folder) == {}


def test_many_blobs_are_in_several_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocilayout, "LAYERS", 2)
    folder = exported(tmp_path)
    assert len(json.loads((folder / "index.json").read_text())["manifests"]) == 2
    assert len(read(folder)) == 4


def test_an_image_of_somebody_else_is_taken_with_its_config_and_manifest(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "blobs" / "sha256").mkdir(parents=True)

    def put(content: bytes, media_type: str) -> dict[str, Any]:
        blob(folder, sha256(content)).write_bytes(content)
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    config = put(b'{"architecture":"amd64"}', "application/vnd.oci.image.config.v1+json")
    layer = put(b"a tar", "application/vnd.oci.image.layer.v1.tar")
    document = {"schemaVersion": 2, "config": config, "layers": [layer, layer]}
    manifest = put(json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json")
    inner = put(
        json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode(), "application/vnd.oci.image.index.v1+json"
    )
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [inner]}))
    assert set(read(folder)) == {config["digest"], layer["digest"], manifest["digest"]}


def test_an_index_that_is_named_again_and_again_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a few small files are walked for ever: each of four levels names the next many times."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    listed: list[dict[str, Any]] = []
    for _ in range(4):
        content = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
        blob(tmp_path, sha256(content)).write_bytes(content)
        media_type = "application/vnd.oci.image.index.v1+json"
        listed = [{"mediaType": media_type, "digest": sha256(content), "size": len(content)}] * 5
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    reads: list[Path] = []
    opened = ocilayout._opened

    def noting(path: Path) -> Any:
        reads.append(path)
        return opened(path)

    monkeypatch.setattr(ocilayout, "_opened", noting)
    assert blobs_of_layout(tmp_path) == []
    assert len(reads) == 2 + 4


@pytest.mark.parametrize("wrong", [b"twO", b"on", b"one and more", b""], ids=["altered", "cut", "longer", "emptied"])
def test_altered_content_is_never_given_whole(tmp_path: Path, wrong: bytes) -> None:
    folder = exported(tmp_path, [b"one"])
    blob(folder, sha256(b"one")).write_bytes(wrong)
    got = b""
    with pytest.raises(Corrupt, match="changed after it was exported"):
        for chunk in read_blob(folder, Descriptor(sha256(b"one"), 3)):
            got += chunk
    assert got == b""


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    [entry] = json.loads((folder / "index.json").read_text())["manifests"]
    path = blob(folder, entry["digest"])
    path.write_bytes(path.read_bytes().replace(sha256(b"one").encode(), sha256(b"two").encode()))
    with pytest.raises(Corrupt, match=str(path)):
        blobs_of_layout(folder)


def test_links_are_not_followed(tmp_path: Path) -> None:
    folder = exported(tmp_path / "layout", [b"one"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"one")
    path = blob(folder, sha256(b"one"))
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(InvalidInput, match="cannot read"):
        read(folder)


@pytest.mark.parametrize(
    "digest",
    ["sha256:../../../../etc/passwd", "sha256:" + "A" * 64, "sha512:" + "a" * 128, "", None],
    ids=["a path", "upper case", "another algorithm", "nothing", "no text"],
)
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str | None) -> None:
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {"mediaType": "application/octet-stream", "digest": digest, "size": 1}
    (tmp_path / "index.json").write_text(json.dumps({"manifests": [entry]}))
    with pytest.raises(InvalidInput, match="descriptor"):
        blobs_of_layout(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("oci-layout", '{"imageLayoutVersion": "2.0.0"}', InvalidInput),
        ("oci-layout", "[]", InvalidInput),
        ("index.json", "not json", InvalidInput),
        ("index.json", "[" * 100_000, InvalidInput),
        ("index.json", " " * (5 << 20), TooLarge),
    ],
    ids=["another version", "no object", "no JSON", "deeply nested", "huge"],
)
def test_what_is_no_layout_is_refused(tmp_path: Path, name: str, content: str, error: type[Exception]) -> None:
    folder = exported(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(error):
        blobs_of_layout(folder)


def test_indexes_within_indexes_end_somewhere(tmp_path: Path) -> None:
    """A digest cannot contain itself, but a long chain can be made."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    document = b'{"manifests":[]}'
    for _ in range(10):
        blob(tmp_path, sha256(document)).write_bytes(document)
        entry = {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": sha256(document),
            "size": len(document),
        }
        document = json.dumps({"manifests": [entry]}).encode()
    (tmp_path / "index.json").write_bytes(document)
    with pytest.raises(InvalidInput, match="deep"):
        blobs_of_layout(tmp_path)


def test_an_export_is_mixed_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InvalidInput, match="not empty"):
        LayoutWriter(tmp_path)


def test_a_blob_that_arrives_wrong_is_not_in_the_layout(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path)
    with pytest.raises(Corrupt, match="nothing of it is kept"):
        writer.add(sha256(b"right"), [b"wrong"])
    writer.finish()
    assert read(tmp_path) == {}
    assert not blob(tmp_path, sha256(b"right")).exists()


def test_a_layout_is_none_before_it_is_finished(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path)
    writer.add(sha256(b"one"), [b"one"])
    with pytest.raises(InvalidInput, match="oci-layout"):
        blobs_of_layout(tmp_path)
