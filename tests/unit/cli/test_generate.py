"""The generated files of this repository are what the models say, and drift is caught."""

from pathlib import Path

import pytest
import yaml

from triplane.api.crd import render_all
from triplane.cli.generate import main

REPOSITORY = Path(__file__).parents[3]


def test_this_repository_has_no_drift(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(REPOSITORY), "--check"]) == 0, capsys.readouterr().out


def test_an_edited_file_is_reported_with_a_diff_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    edited = tmp_path / "crds/tasks.triplane.dev.yaml"
    edited.write_text(edited.read_text().replace("default: 3600", "default: 7200"))
    capsys.readouterr()
    assert main([str(tmp_path), "--check"]) == 1
    said = capsys.readouterr()
    assert "-                  default: 7200" in said.out
    assert "+                  default: 3600" in said.out
    assert "run `make generate`" in said.err
    assert main([str(tmp_path)]) == 0
    assert "crds/tasks.triplane.dev.yaml" in capsys.readouterr().out
    assert main([str(tmp_path), "--check"]) == 0


@pytest.mark.parametrize("stray", ["crds/gone.triplane.dev.yaml", "docs/reference/kinds/gone.md"])
def test_a_file_of_a_kind_that_is_gone_is_drift(stray: str, tmp_path: Path) -> None:
    main([str(tmp_path)])
    (tmp_path / stray).write_text("left over\n")
    assert main([str(tmp_path), "--check"]) == 1
    assert main([str(tmp_path)]) == 0
    assert not (tmp_path / stray).exists()


def test_the_files_parse_to_what_is_rendered(tmp_path: Path) -> None:
    main([str(tmp_path)])
    for rendered in render_all():
        text = (tmp_path / f"crds/{rendered['metadata']['name']}.yaml").read_text()
        assert yaml.safe_load(text) == rendered
