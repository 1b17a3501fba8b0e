"""Trust bundles: what the log tells of keys, written and read back, and what is refused."""

import json
from typing import Any

import pytest

from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.keys import KEY_EVENTS, TrustBundle, TrustedKey, key_created, key_retired, keys_of, read_bundle
from triplane.audit.model import EventFilter
from triplane.errors import InvalidInput

ONE, TWO = MemorySigner(b"one"), MemorySigner(b"two")


async def bundle() -> TrustBundle:
    log = MemoryEventLog()
    await log.append([key_created(ONE.public_key)])
    await log.append([key_created(TWO.public_key), key_retired(ONE.key_id)])
    return TrustBundle(log.origin, keys_of(await log.query(EventFilter(types=KEY_EVENTS))))


async def test_keys_sign_between_what_the_log_tells_of_them() -> None:
    one, two = (await bundle()).keys
    assert (one.key_id, two.key_id) == (ONE.key_id, TWO.key_id)
    assert one.retired is not None
    assert [one.covers(seq) for seq in (one.created, one.created + 1, one.retired - 1, one.retired)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert two.covers(10**9)
    assert not two.covers(two.created)


async def test_a_bundle_is_read_as_it_was_written() -> None:
    made = await bundle()
    assert read_bundle(json.loads(json.dumps(made.wire()))) == made


def _change(*path: str | int, value: Any = None) -> Any:
    def change(document: dict[str, Any]) -> None:
        at: Any = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(_change("format", value="x"), "not a trust bundle", id="another format"),
        pytest.param(_change("origin"), "no origin", id="no origin"),
        pytest.param(_change("keys", value=[]), "no keys", id="no keys"),
        pytest.param(_change("keys", 0, "algorithm", value="RSA"), "not of algorithm Ed25519", id="another algorithm"),
        pytest.param(_change("keys", 0, "publicKey"), "no public key", id="no key"),
        pytest.param(_change("keys", 0, "publicKey", value="%"), "no base64", id="a key that is no base64"),
        pytest.param(_change("keys", 0, "keyId", value=TWO.key_id), "but it is", id="another key's id"),
        pytest.param(_change("keys", 0, "created"), "when key", id="no beginning"),
        pytest.param(_change("keys", 0, "created", "seq", value=True), "when key", id="a beginning that is no number"),
        pytest.param(_change("keys", 0, "retired", value={}), "when key", id="an end that is none"),
    ],
)
async def test_what_is_no_bundle_is_refused(change: Any, why: str) -> None:
    document = (await bundle()).wire()
    change(document)
    with pytest.raises(InvalidInput, match=why):
        read_bundle(document)


async def test_an_entry_that_gives_a_key_another_ones_octets_is_refused() -> None:
    log = MemoryEventLog()
    body = key_created(ONE.public_key)
    await log.append([key_created(TWO.public_key)])
    (recorded,) = await log.query(EventFilter(types=KEY_EVENTS))
    entry = {**recorded.entry, "data": body.data}
    forged = type(recorded)(recorded.seq, recorded.octets, recorded.leaf_hash, entry)
    with pytest.raises(InvalidInput, match="the public key of"):
        keys_of([forged])


def test_a_key_is_named_by_the_digest_of_its_public_half() -> None:
    assert TrustedKey(ONE.public_key, 0, "").key_id == ONE.key_id
    assert len(ONE.key_id) == 64
