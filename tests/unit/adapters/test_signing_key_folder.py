"""Signing keys in a folder: who may read them, what a second process sees, and what is refused."""

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from triplane.adapters.filesystem.signingkeys import SigningKeyFolder
from triplane.errors import InvalidInput, Unavailable


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    keys = SigningKeyFolder(tmp_path / "secrets")
    keys.current()
    keys.rotate()
    folder = tmp_path / "secrets" / "signing"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_another_process_sees_a_rotation_at_once(tmp_path: Path) -> None:
    ours, theirs = SigningKeyFolder(tmp_path), SigningKeyFolder(tmp_path)
    assert ours.current().key_id == theirs.current().key_id
    new = theirs.rotate()
    assert ours.current().key_id == new.key_id
    again = theirs.rotate()
    assert ours.current().key_id == again.key_id


def test_of_many_that_begin_at_once_one_makes_the_key(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def begin() -> None:
        barrier.wait()
        found.append(SigningKeyFolder(tmp_path).current().key_id)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert SigningKeyFolder(tmp_path).list_ids() == [found[0]]
    assert not [path for path in (tmp_path / "signing").iterdir() if path.name.startswith(".")]


def _pem(tmp_path: Path) -> Path:
    return next((tmp_path / "signing").glob("*.pem"))


def test_a_key_that_is_gone_or_exchanged_is_named(tmp_path: Path) -> None:
    keys = SigningKeyFolder(tmp_path)
    keys.current()
    path = _pem(tmp_path)
    octets = path.read_bytes()
    path.unlink()
    with pytest.raises(Unavailable, match="keys rotate"):
        SigningKeyFolder(tmp_path).current()
    other = SigningKeyFolder(tmp_path / "other")
    other.current()
    path.write_bytes(_pem(tmp_path / "other").read_bytes())
    with pytest.raises(InvalidInput, match="somebody exchanged it"):
        SigningKeyFolder(tmp_path).current()
    path.write_bytes(octets[:40])
    with pytest.raises(InvalidInput, match="no private key"):
        SigningKeyFolder(tmp_path).current()
    curve = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InvalidInput, match="no Ed25519 key"):
        SigningKeyFolder(tmp_path).current()


@pytest.mark.parametrize("named", ["../../etc/passwd", "", "x" * 64])
def test_the_pointer_names_a_key_and_no_other_file(tmp_path: Path, named: str) -> None:
    keys = SigningKeyFolder(tmp_path)
    keys.current()
    (tmp_path / "signing" / "current").write_text(named)
    with pytest.raises(InvalidInput, match="no key id"):
        SigningKeyFolder(tmp_path).current()


def test_a_folder_nobody_can_write_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "signing").write_text("in the way")
    with pytest.raises(Unavailable, match="signing"):
        SigningKeyFolder(tmp_path).current()
