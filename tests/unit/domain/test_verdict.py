"""Reading a reviewer's verdict.json: bound to the digests of the round, and fit to be kept."""

from typing import Any

from triplane.api.meta import Subject, Verdict
from triplane.domain.verdict import VerdictFile, VerdictVoid, read_verdict

DIGEST = "sha256:" + "a" * 64
PRODUCED = (Subject(name="report", digest=DIGEST),)


def document(**fields: Any) -> dict[str, Any]:
    return {
        "verdict": "Reject",
        "findings": ["wrong"],
        "subjects": [{"name": "report", "digest": DIGEST}],
        **fields,
    }


def test_a_verdict_on_the_digests_of_the_round_counts() -> None:
    assert read_verdict(document(), PRODUCED) == VerdictFile(Verdict.REJECT, ("wrong",), PRODUCED)


def test_findings_become_single_lines_that_a_review_can_hold() -> None:
    read = read_verdict(document(findings=["first\nINFO second", "hid\u200bden", "\x1b[31mred"]), PRODUCED)
    assert isinstance(read, VerdictFile)
    assert read.findings == ("first INFO second", "hid\ufffdden", "\ufffd[31mred")


def test_a_verdict_on_other_digests_is_void_and_both_are_named() -> None:
    other = "sha256:" + "b" * 64
    read = read_verdict(document(subjects=[{"name": "report", "digest": other}]), PRODUCED)
    assert isinstance(read, VerdictVoid)
    assert DIGEST in read.message
    assert other in read.message


def test_a_verdict_must_name_every_output_once_and_nothing_else() -> None:
    subject = {"name": "report", "digest": DIGEST}
    for subjects in ([], [subject, subject], [subject, {"name": "other", "digest": DIGEST}]):
        assert isinstance(read_verdict(document(subjects=subjects), PRODUCED), VerdictVoid)
