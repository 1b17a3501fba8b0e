"""What a finished run is recorded as."""

from dataclasses import replace

import pytest

from triplane.domain.reflection import reflection_problem
from triplane.domain.runresult import (
    DeclaredOutput,
    ReportedRun,
    Uploaded,
    check_reported,
    decide_result,
    declared_outputs,
)
from triplane.domain.session import Outcome, RunOutput, Usage
from triplane.errors import InvalidInput

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
DECLARED = {"report": DeclaredOutput("report", "report.md", "text/markdown", None)}
GOOD = ReportedRun(Outcome.SUCCEEDED, "Completed", "done", (("report", ONE),), TWO, Usage(1, 2, 3), 0)


def test_a_success_with_everything_stands() -> None:
    result = decide_result(GOOD, DECLARED, {"report": Uploaded(5)}, None)
    assert (result.outcome, result.reason, result.reflection) == (Outcome.SUCCEEDED, "Completed", TWO)
    assert result.outputs == (RunOutput("report", "report.md", ONE, "text/markdown", 5),)


@pytest.mark.parametrize(
    ("reported", "uploaded", "reflection", "reason"),
    [
        pytest.param(replace(GOOD, exit_code=3), {"report": Uploaded(5)}, None, "HarnessFailed", id="exit code 3"),
        pytest.param(replace(GOOD, outputs=()), {}, None, "OutputMissing", id="an output not reported"),
        pytest.param(GOOD, {}, None, "OutputMissing", id="an output not uploaded"),
        pytest.param(GOOD, {"report": Uploaded(5, "bad")}, None, "ContractNotMet", id="a broken contract"),
        pytest.param(GOOD, {"report": Uploaded(5, "x", "SecretInOutput")}, None, "SecretInOutput", id="a secret"),
        pytest.param(GOOD, {"report": Uploaded(5)}, "none was given", "NoReflection", id="no reflection"),
    ],
)
def test_a_claimed_success_that_is_none_fails(
    reported: ReportedRun, uploaded: dict[str, Uploaded], reflection: str | None, reason: str
) -> None:
    result = decide_result(reported, DECLARED, uploaded, reflection)
    assert (result.outcome, result.reason) == (Outcome.FAILED, reason)
    assert result.usage == Usage(1, 2, 3)


def test_a_failure_is_believed_and_keeps_its_reason() -> None:
    reported = replace(GOOD, outcome=Outcome.TIMED_OUT, reason="TimedOut", outputs=(), exit_code=137)
    result = decide_result(reported, DECLARED, {}, "none was given")
    assert (result.outcome, result.reason, result.reflection) == (Outcome.TIMED_OUT, "TimedOut", None)


def test_messages_are_cleaned_and_cut_and_reasons_are_words() -> None:
    reported = replace(GOOD, outcome=Outcome.FAILED, reason="not a word", message="\x1b[1m\n" + "x" * 5000)
    result = decide_result(reported, DECLARED, {}, None)
    assert result.reason == "Unspecified"
    assert result.message.startswith("\\e[1m\\n")
    assert len(result.message) == 1024


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        pytest.param([("other", None, None)], "not declared", id="undeclared"),
        pytest.param([("report", None, None)] * 2, "twice", id="twice"),
        pytest.param([("report", "/work/outputs/x.md", None)], "declared at 'report.md'", id="elsewhere"),
        pytest.param([("report", None, "text/html")], "declared as text/markdown", id="another media type"),
    ],
)
def test_outputs_other_than_the_declared_are_refused(
    outputs: list[tuple[str, str | None, str | None]], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_reported(DECLARED, outputs)
    check_reported(DECLARED, [("report", "/work/outputs/report.md", "text/markdown")])


def test_declared_outputs_are_those_of_the_work_order() -> None:
    item = {"name": "report", "path": "/work/outputs/report.md", "mediaType": "text/markdown", "schema": None}
    assert declared_outputs({"outputs": [item]}) == DECLARED
    assert declared_outputs({}) == {}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "JSON object"),
        ({"wentWell": [], "wentBadly": []}, "both empty"),
        ({"wentWell": ["x"], "mood": "good"}, "'mood'"),
        ({"wentWell": "x"}, "list"),
        ({"wentWell": [" "]}, "non-empty"),
        ({"wentWell": ["x"] * 21}, "20 lines"),
        ({"wentWell": ["x"], "confidence": 101}, "confidence"),
        ({"wentWell": ["x"], "confidence": True}, "confidence"),
    ],
)
def test_what_is_no_reflection_is_told_why(document: object, says: str) -> None:
    assert says in (reflection_problem(document) or "")


@pytest.mark.parametrize(
    "document",
    [
        {"wentWell": ["x"], "wentBadly": [], "lessons": ["y"], "confidence": 0},
        {"wentBadly": ["it was killed"]},
        {"type": "reflection", "wentWell": ["x"]},
    ],
)
def test_a_reflection_says_what_went_well_or_badly(document: object) -> None:
    assert reflection_problem(document) is None
