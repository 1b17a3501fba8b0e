"""Which accounts are one person's, from a file."""

from pathlib import Path

import pytest

from triplane.adapters.filesystem.accounts import read_accounts
from triplane.errors import InvalidInput


def test_without_a_file_every_account_is_its_own_person() -> None:
    assert read_accounts(None).person("alice") == "alice"


def test_the_first_line_that_fits_says_whose_an_account_is(tmp_path: Path) -> None:
    path = tmp_path / "accounts.yaml"
    path.write_text(
        '- {accounts: "system:serviceaccount:team-a:special", person: bob}\n'
        '- {accounts: "system:serviceaccount:team-a:*", person: alice}\n'
    )
    accounts = read_accounts(path)
    assert accounts.person("system:serviceaccount:team-a:special") == "bob"
    assert accounts.person("system:serviceaccount:team-a:other") == "alice"
    assert accounts.person("system:serviceaccount:team-b:other") == "system:serviceaccount:team-b:other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("accounts: alice", "must hold a list", id="no list"),
        pytest.param("- {accounts: a}", "entry 1 is not", id="a person is missing"),
        pytest.param("- {accounts: a, person: b, why: c}", "entry 1 is not", id="an unknown key"),
        pytest.param("- {accounts: a, person: 1}", "must name both as text", id="a number"),
        pytest.param("- {accounts: [", "is not YAML", id="broken"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "accounts.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=says) as refused:
        read_accounts(path)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="TRIPLANE_ACCOUNTS"):
        read_accounts(tmp_path / "none")
