"""The careless agent is rejected, and mends its report because of the findings and of nothing else."""

from pathlib import Path

import pytest

from examples.workbench import produce, review

DEFECTS = [
    pytest.param("total", id="a wrong total"),
    pytest.param("missing-row", id="a missing distribution"),
    pytest.param("wrong-licence", id="a wrong licence"),
    pytest.param("stale-chart", id="a chart that was not redrawn"),
]


def first_round(environment: Path, folder: Path, defect: str) -> list[str]:
    ran = produce(environment, folder / "first", entrypoint="careless.py", defect=defect)
    verdict = review(environment, ran.outputs, folder / "first-review")
    assert verdict["verdict"] == "Reject"
    findings: list[str] = verdict["findings"]
    return findings


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_first_report_is_rejected_and_the_findings_mend_the_next(
    made_up: Path, tmp_path: Path, defect: str
) -> None:
    findings = first_round(made_up, tmp_path, defect)
    again = produce(made_up, tmp_path / "again", entrypoint="careless.py", defect=defect, findings=findings)
    assert review(made_up, again.outputs, tmp_path / "review") == {
        **review(made_up, again.outputs, tmp_path / "once-more"),
        "verdict": "Approve",
        "findings": [],
    }


@pytest.mark.parametrize("defect", DEFECTS)
def test_with_the_findings_withheld_the_next_run_fails_again(made_up: Path, tmp_path: Path, defect: str) -> None:
    findings = first_round(made_up, tmp_path, defect)
    again = produce(made_up, tmp_path / "again", entrypoint="careless.py", defect=defect)
    assert review(made_up, again.outputs, tmp_path / "review")["findings"] == findings


@pytest.mark.parametrize(
    ("defect", "other"), [("total", "wrong-licence"), ("wrong-licence", "total"), ("missing-row", "total")]
)
def test_findings_about_another_defect_do_not_help(made_up: Path, tmp_path: Path, defect: str, other: str) -> None:
    findings = first_round(made_up, tmp_path, other)
    again = produce(made_up, tmp_path / "again", entrypoint="careless.py", defect=defect, findings=findings)
    assert review(made_up, again.outputs, tmp_path / "review")["verdict"] == "Reject"


def test_it_mends_the_real_environments_report_too(real: Path, tmp_path: Path) -> None:
    findings = first_round(real, tmp_path, "total")
    again = produce(real, tmp_path / "again", entrypoint="careless.py", defect="total", findings=findings)
    assert review(real, again.outputs, tmp_path / "review")["verdict"] == "Approve"
    assert len(again.said("message")) == len(findings)
