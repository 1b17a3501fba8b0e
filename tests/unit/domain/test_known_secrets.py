"""Known values in every spelling; attacks on it are in tests/attacks/test_secrets_in_runs.py."""

import base64
import json
import random
import time
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain import redaction
from triplane.domain.redaction import KnownSecrets

VALUE = 'p\xe4ss w\xf6rd/+&="q"'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(VALUE, id="as it is"),
        pytest.param(json.dumps({"a": VALUE}), id="as JSON"),
        pytest.param(json.dumps({"a": VALUE}, ensure_ascii=False), id="as JSON with its letters"),
        pytest.param(f"https://x.example/?token={quote_plus(VALUE)}", id="in a query"),
        pytest.param(VALUE.encode().hex().upper(), id="in capital hexadecimal"),
        pytest.param(f"{VALUE}{VALUE}", id="twice"),
    ],
)
def test_a_value_is_replaced_however_it_is_written(text: str) -> None:
    known = KnownSecrets([VALUE])
    assert known.within(text.encode())
    assert "[redacted]" in known.redacted(text)
    assert not known.within(known.redacted(text).encode())


@given(st.binary(max_size=7), st.text(min_size=9, max_size=40), st.binary(max_size=7), st.booleans())
def test_base64_is_found_at_every_place(before: bytes, value: str, after: bytes, urls: bool) -> None:
    encode = base64.urlsafe_b64encode if urls else base64.b64encode
    text = encode(before + value.encode("utf-8", "replace") + after).decode()
    assert KnownSecrets([value]).within(text.encode())
    assert "[redacted]" in KnownSecrets([value]).redacted(text)


@given(st.text(max_size=60), st.text(min_size=6, max_size=20), st.text(max_size=60))
def test_nothing_of_a_value_as_it_is_stays(before: str, value: str, after: str) -> None:
    known = KnownSecrets([value])
    assert value not in known.redacted(before + value + after) or value in "[redacted]"


def test_keys_lists_and_depth() -> None:
    known = KnownSecrets(["hunter22"])
    assert known.redacted_json({"a": [{"hunter22": ["x hunter22"]}, 7, None, True]}) == {
        "a": [{"[redacted]": ["x [redacted]"]}, 7, None, True]
    }


def test_what_is_too_short_to_be_told_from_innocent_text_is_let_be() -> None:
    assert KnownSecrets(["admin", ""]).redacted("the admin said so") == "the admin said so"
    assert not KnownSecrets([""])


def test_the_longest_spelling_wins_over_one_within_it() -> None:
    assert KnownSecrets(["secret-1", "secret-1-and-more"]).redacted("secret-1-and-more") == "[redacted]"


def test_lines_of_a_secret_of_many_lines_are_found_alone() -> None:
    known = KnownSecrets(["-----BEGIN KEY-----\r\nMIIEvQIBADANBgkqhki\r\nshort\r\n"])
    assert known.redacted("MIIEvQIBADANBgkqhki") == "[redacted]"
    assert known.redacted("short") == "short"


@given(st.lists(st.text("ab-", min_size=6, max_size=9), min_size=1, max_size=4), st.text("ab- x", max_size=60))
def test_many_spellings_are_found_as_few_are(values: list[str], text: str) -> None:
    few = KnownSecrets(values)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(redaction, "_FEW", 0)
        many = KnownSecrets(values)
    assert many.redacted(text) == few.redacted(text)
    assert many.redacted_json({text: [text]}) == few.redacted_json({text: [text]})
    assert many


def test_a_key_file_does_not_slow_what_is_said_down() -> None:
    lines = [base64.b64encode(random.Random(n).randbytes(48)).decode() for n in range(900)]
    known = KnownSecrets(["\n".join(lines)])
    began = time.process_time()
    said = known.redacted("harmless " * 7000 + lines[77] + " and more")
    assert said == "harmless " * 7000 + "[redacted] and more"
    assert time.process_time() - began < 0.3, "one pattern of all spellings takes nearly a second"
