"""The auditor's figures, checked against figures worked out by hand."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from examples.workbench import EXAMPLES, produce, review


@pytest.fixture(scope="module")
def audit(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, object]]]:
    ran = produce(made_up, tmp_path_factory.mktemp("audit") / "run")
    return json.loads((ran.outputs / "audit.json").read_text())


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        pytest.param(
            "plain-name",
            {"licence": "MIT", "family": "permissive", "wheel": "pure"},
            id="an expression is taken as it is",
        ),
        pytest.param(
            "dual",
            {"licence": "MPL-2.0 AND (Apache-2.0 OR MIT)", "family": "weak-copyleft", "licenceTexts": 1},
            id="AND binds most",
        ),
        pytest.param(
            "old",
            {"licence": "Apache-2.0", "source": "License", "wheel": "platform", "licenceTexts": 1},
            id="a well-known spelling",
        ),
        pytest.param(
            "long-text",
            {"licence": "BSD", "source": "Classifier"},
            id="a whole text gives way to the classifier",
        ),
        pytest.param(
            "two-ways",
            {"licence": "GPL-3.0-only OR MIT", "family": "permissive", "installer": "pip"},
            id="two classifiers are a choice",
        ),
        pytest.param(
            "silent",
            {"licence": "unknown", "source": "none", "origin": "editable", "unhashed": 1, "weakHashes": 1},
            id="nothing is stated",
        ),
        pytest.param(
            "strange",
            {"family": "other", "altered": 1, "verified": 2, "origin": "vcs"},
            id="metadata altered after installation",
        ),
        pytest.param("strong", {"family": "copyleft", "installer": "a/b~c"}, id="an exception changes nothing"),
    ],
)
def test_a_distribution_is_described_by_the_rules(audit: dict, name: str, facts: dict[str, object]) -> None:
    row = audit["distributions"][name]
    assert {key: row[key] for key in facts} == facts


def test_the_figures_are_totals_over_the_rows(audit: dict) -> None:
    figures = audit["figures"]
    assert (figures["distributions"], figures["notAudited"], figures["withoutLicenceText"]) == (8, 1, 5)
    assert figures["families"] == {
        "public-domain": 0,
        "permissive": 4,
        "weak-copyleft": 1,
        "copyleft": 1,
        "other": 1,
        "unknown": 1,
    }
    assert figures["origins"] == {"editable": 1, "index": 6, "vcs": 1}
    assert figures["altered"] == 1


def test_the_outputs_meet_the_contract_and_the_reviewer_approves(made_up: Path, tmp_path: Path) -> None:
    ran = produce(made_up, tmp_path / "run")
    capability = yaml.safe_load((EXAMPLES / "01-licence-audit/alice/capability.yaml").read_text())
    schema = next(o["schema"] for o in capability["spec"]["outputs"] if o["name"] == "audit")
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads((ran.outputs / "audit.json").read_text()))
    assert review(made_up, ran.outputs, tmp_path / "review")["verdict"] == "Approve"


def test_a_run_reports_progress_usage_and_a_reflection(made_up: Path, tmp_path: Path) -> None:
    ran = produce(made_up, tmp_path / "run")
    assert ran.said("progress")
    assert ran.said("usage")
    assert ran.said("reflection")[-1]["wentWell"]


def test_the_real_environment_is_audited_whole_and_approved(real: Path, tmp_path: Path) -> None:
    ran = produce(real, tmp_path / "run")
    audit = json.loads((ran.outputs / "audit.json").read_text())
    assert len(audit["distributions"]) == len(list(real.glob("*.dist-info"))) > 20
    assert "triplane" in audit["distributions"]
    assert review(real, ran.outputs, tmp_path / "review")["findings"] == []


def test_the_same_environment_is_collected_into_the_same_octets(real: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    again = tmp_path / "again"
    subprocess.run(
        [sys.executable, "-B", str(EXAMPLES / "01-licence-audit" / "collect.py"), str(again)],
        check=True,
        capture_output=True,
    )

    def content(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert content(again) == content(real)
