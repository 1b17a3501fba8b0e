"""What people are told about isolation, before and after."""

from typing import Any

import pytest

from triplane.cli import isolation
from triplane.settings import Settings


def session(name: str, status: str) -> dict[str, Any]:
    found = [{"type": "Isolated", "status": status, "message": "because"}] if status else []
    return {"metadata": {"name": name}, "status": {"conditions": found}}


def test_nothing_is_said_where_a_sandbox_works(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.expect(Settings(), None)
    assert capsys.readouterr().err == ""


def test_without_consent_refusal_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.expect(Settings(), "bwrap (mapped): no namespaces")
    said = capsys.readouterr().err
    assert "bwrap (mapped): no namespaces" in said
    assert "refused (NoSandbox)" in said
    assert "TRIPLANE_ALLOW_UNISOLATED=true" in said
    assert isolation.NOT_ENFORCED in said


def test_with_consent_what_is_not_enforced_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.expect(Settings(allow_unisolated=True), "no bubblewrap")
    said = capsys.readouterr().err
    assert f"NOT isolated: {isolation.NOT_ENFORCED}" in said
    assert "refused" not in said


def test_afterwards_all_isolated_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    isolation.tell([session("a", "True"), session("b", "True")])
    assert "all 2 sessions ran in a sandbox" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["False", "Unknown", ""], ids=["it says no", "it does not know", "it says nothing"])
def test_afterwards_a_session_that_was_not_isolated_is_named(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    isolation.tell([session("a", "True"), session("b", status)])
    said = capsys.readouterr().out
    assert "NOT isolated: session b" in said
    assert "1 of 2 sessions" in said
    assert isolation.NOT_ENFORCED in said
