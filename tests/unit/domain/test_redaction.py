"""Secrets go, everything else stays."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplane.domain.redaction import marked_secrets, redact_json, redact_text

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEvQIBADANBg+/=\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
TOKEN = "trp1.eyJydW4iOjF9." + "A" * 86


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param(f"before {PEM} after", "before [redacted:private-key] after", id="a PEM private key"),
        pytest.param("x -----BEGIN PRIVATE KEY-----\nMII", "x [redacted:private-key]", id="a key cut short"),
        pytest.param(f"see {JWT}.", "see [redacted:jwt].", id="a JSON Web Token"),
        pytest.param(f"token {TOKEN}", "token [redacted:run-token]", id="a run token"),
        pytest.param("id AKIAIOSFODNN7EXAMPLE", "id [redacted:aws-key]", id="an AWS key id"),
        pytest.param("ghp_" + "a" * 36, "[redacted:github-token]", id="a GitHub token"),
        pytest.param("Authorization: Bearer abc123def456ghi", "Authorization: Bearer [redacted:bearer]", id="a bearer"),
        pytest.param("password=hunter2 next", "password=[redacted:value] next", id="a password"),
        pytest.param("DB_PASSWORD: 'a b c'", "DB_PASSWORD: [redacted:value]", id="a quoted password"),
        pytest.param('{"api_key": "k-1"}', '{"api_key": [redacted:value]}', id="a JSON member in text"),
        pytest.param("client-secret=x&y=1", "client-secret=[redacted:value]&y=1", id="in a query string"),
        pytest.param("postgres://u:pw@h/d", "postgres://u:[redacted:password]@h/d", id="a password in a URL"),
        pytest.param("token=abcdef1234567890ab", "token=[redacted:token]", id="a token by name"),
    ],
)
def test_a_secret_is_replaced_and_its_surroundings_stay(text: str, kept: str) -> None:
    assert redact_text(text) == kept
    assert redact_text(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "The password policy is described below.",
        "tokens: 1234, outputTokens=99",
        "sha256:" + "a" * 64,
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "Bearer tokens are explained in chapter four",
        "https://example.org/a?b=c",
        "secretary=Ann, passwordless=yes",
        "MIT License: permission is hereby granted, free of charge",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_json_is_redacted_at_any_depth_by_name_and_by_form() -> None:
    value = {
        "env": [{"name": "DB_PASSWORD", "value": "x"}, {"name": "MODE", "value": "fast"}],
        "deep": [{"apiKey": "k", "note": f"see {JWT}"}, 7, None, True],
        "password": "",
        "clientSecret": "s",
    }
    assert redact_json(value) == {
        "env": [{"name": "DB_PASSWORD", "value": "[redacted:value]"}, {"name": "MODE", "value": "fast"}],
        "deep": [{"apiKey": "[redacted:value]", "note": "see [redacted:jwt]"}, 7, None, True],
        "password": "",
        "clientSecret": "[redacted:value]",
    }


def test_marked_secrets_are_named() -> None:
    assert marked_secrets(f"{PEM} {JWT}") == ("private-key", "jwt")
    assert marked_secrets("password=hunter2") == ()


@given(st.text(max_size=300))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)


@pytest.mark.parametrize(
    "unit",
    ["-----BEGIN PRIVATE KEY-----", "password=", "eyJ", "a_", "Bearer ", "://a:", "-", '"', "trp1.", "token: a."],
)
def test_hostile_text_costs_no_more_than_its_length(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    begun = time.perf_counter()
    redact_text(text)
    assert time.perf_counter() - begun < 5
