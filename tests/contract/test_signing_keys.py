"""The contract of ``SigningKeys``, on every backend."""

from collections.abc import Callable
from pathlib import Path

import pytest

from triplane.adapters.filesystem.signingkeys import SigningKeyFolder
from triplane.adapters.memory.signingkeys import MemorySigningKeys
from triplane.audit.dsse import key_id_of, load_public_key
from triplane.errors import InvalidInput
from triplane.ports import SigningKeys


@pytest.fixture(
    params=[
        pytest.param(lambda folder: MemorySigningKeys(), id="memory"),
        pytest.param(SigningKeyFolder, id="folder"),
    ]
)
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> SigningKeys:
    make: Callable[[Path], SigningKeys] = request.param
    return make(tmp_path)


def test_the_first_key_is_made_and_stays(keys: SigningKeys) -> None:
    first = keys.current()
    assert keys.current().key_id == first.key_id == key_id_of(first.public_key)
    assert keys.list_ids() == [first.key_id]


def test_a_signature_is_the_keys_and_the_same_each_time(keys: SigningKeys) -> None:
    signer = keys.current()
    signature = signer.sign(b"what was done")
    load_public_key(signer.public_key).verify(signature, b"what was done")
    assert keys.current().sign(b"what was done") == signature


def test_after_a_rotation_another_key_signs_and_the_old_one_still_can(keys: SigningKeys) -> None:
    old = keys.current()
    new = keys.rotate()
    assert keys.current().key_id == new.key_id != old.key_id
    assert keys.list_ids() == sorted([old.key_id, new.key_id])
    load_public_key(old.public_key).verify(old.sign(b"on its way"), b"on its way")


def test_a_key_that_signs_no_more_can_be_destroyed_once(keys: SigningKeys) -> None:
    old = keys.current()
    new = keys.rotate()
    assert keys.discard(old.key_id)
    assert not keys.discard(old.key_id)
    assert keys.list_ids() == [new.key_id]
    with pytest.raises(InvalidInput, match="rotate"):
        keys.discard(new.key_id)
    assert keys.current().key_id == new.key_id
