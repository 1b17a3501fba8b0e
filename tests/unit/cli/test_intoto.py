"""A lineage as an in-toto bundle: read by other tools line by line, verified here without an installation, and whatever
is taken out of it or put into it is named."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from tests.unit.audit.attested import Forger, accepted
from tests.unit.cli.test_attest import run

from triplane.audit.attestation import PAYLOAD_TYPE, PROVENANCE, REVIEW
from triplane.audit.entry import parse
from triplane.audit.evidence import Evidence
from triplane.cli import attest, intoto
from triplane.cli.bundle import Shown
from triplane.errors import Corrupt, InvalidInput


@pytest.fixture(autouse=True)
def _no_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "TRIPLANE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing here"))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def shown(evidence: Evidence) -> Shown:
    entry = next(item for item in map(parse, evidence.entries.values()) if item["type"] == "artifact.recorded")
    return Shown({**entry["subject"], "output": entry["data"]["output"]}, evidence)


class Gateway:
    """Answers with one lineage."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self._lines = lines

    def lines(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        assert query["way"] == "up"
        yield from self._lines


def node(of: Shown) -> dict[str, Any]:
    return {"node": {"id": of.artifact["uid"], "kind": "Artifact", "name": of.artifact["name"]}}


@pytest.fixture
async def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A bundle of an accepted artifact; one of the same octets was never accepted."""
    made = shown(await accepted())
    unaccepted = {seq: octets for seq, octets in made.evidence.entries.items() if b"task.accepted" not in octets}
    other = Shown({**made.artifact, "uid": "other"}, replace(made.evidence, entries=unaccepted))
    by_name = {made.artifact["name"]: made, "other": other, made.artifact["uid"]: made}
    monkeypatch.setattr(attest, "shown_artifact", lambda opened, thing, namespace, keys: by_name[thing])
    capsys.readouterr()  # what making it has said
    end = {"end": {"nodes": 3, "truncated": False}}
    intoto.export(Gateway(node(made), node(other), end), f"artifact/{made.artifact['name']}", "team")  # type: ignore[arg-type]
    told = capsys.readouterr()
    assert "was never accepted" in told.err
    path = tmp_path / "report.intoto.jsonl"
    path.write_text(told.out)
    (tmp_path / "keys.json").write_text(json.dumps(made.evidence.trust.wire()))
    with pytest.raises(InvalidInput, match="not accepted"):
        intoto.export(Gateway(end), "other", "team")  # type: ignore[arg-type]
    with pytest.raises(Corrupt, match="broke off"):
        intoto.export(Gateway(node(made)), str(made.artifact["name"]), "team")  # type: ignore[arg-type]
    return path


def test_a_bundle_is_verified_by_the_keys_one_names(written: Path) -> None:
    code, said = run(written, "--keys", written.parent / "keys.json")
    assert code == 0, said
    assert "artifacts: 1 were produced, reviewed, accepted" in said
    assert "warning" not in said
    code, said = run(written)
    assert code == 0
    assert "warning: the keys came with the file" in said


def test_an_artifact_that_is_spoken_for_twice_is_not_counted_twice(written: Path) -> None:
    lines = written.read_text().splitlines()
    lines.append(next(line for line in lines if '"artifact"' in line).replace('"wanted":true', '"wanted":false'))
    written.write_text("\n".join(lines))
    code, said = run(written, "--keys", written.parent / "keys.json")
    assert (code, "speaks twice for artifact" in said) == (2, True), said


def test_the_order_of_lines_means_nothing_and_lines_of_others_are_passed_over(written: Path) -> None:
    lines = [*written.read_text().splitlines(), "no JSON", '{"payloadType": 1}', "[]", ""]
    random.Random(3).shuffle(lines)
    written.write_text("\n".join(lines))
    assert run(written, "--keys", written.parent / "keys.json")[0] == 0
    assert intoto.read_bundle_file(written).passed_over == 4


def test_other_tools_read_the_envelopes(written: Path) -> None:
    envelopes = [json.loads(line) for line in written.read_text().splitlines()]
    found = [Envelope.from_dict(item) for item in envelopes if "payload" in item]
    assert [item.payload_type for item in found] == [PAYLOAD_TYPE] * 3
    assert all(json.loads(item.payload)["_type"] == "https://in-toto.io/Statement/v1" for item in found)


def altered(line: str) -> str:
    item = json.loads(line)
    payload = base64.b64decode(item["payload"]).replace(b'"Approve"', b'"Approvf"')
    return json.dumps({**item, "payload": base64.b64encode(payload).decode()}, separators=(",", ":"))


def holds(kind: str, line: str) -> bool:
    return kind.encode() in base64.b64decode(json.loads(line).get("payload", ""))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            lambda lines: [line for line in lines if not holds(PROVENANCE, line)],
            "step 2 (statements): the provenance",
            id="a statement that was taken out",
        ),
        pytest.param(
            lambda lines: [altered(line) if holds(REVIEW, line) else line for line in lines],
            "step 2 (statements): the review statement",
            id="a statement that was altered",
        ),
        pytest.param(
            lambda lines: [line for line in lines if "task.accepted" not in _octets(line)],
            "step 1 (log entries): 0 entries accept",
            id="an entry that was taken out",
        ),
        pytest.param(
            lambda lines: [line.replace('"name":"t-report', '"name":"another') for line in lines],
            "step 1 (log entries): name of the artifact",
            id="another name",
        ),
    ],
)
def test_what_was_done_to_a_bundle_is_named(written: Path, change: Callable[[list[str]], list[str]], why: str) -> None:
    before = written.read_text().splitlines()
    after = change(before)
    assert after != before
    written.write_text("\n".join(after))
    code, said = run(written, "--keys", written.parent / "keys.json")
    assert (code, why in said) == (1, True), said
    assert "1 of 1 are NOT verified" in said


async def test_a_review_that_rejects_is_no_approval_though_it_is_signed(written: Path) -> None:
    forger = Forger(await accepted())
    lines = list(intoto._lines(shown(forger.evidence), wanted=True))
    forger.restate(REVIEW, lambda document: document["predicate"].update(verdict="Reject"))
    forged = list(intoto._lines(shown(forger.evidence), wanted=True))
    written.write_text("\n".join(forged))
    assert lines != forged
    keys = written.parent / "own-keys.json"
    keys.write_text(json.dumps(forger.evidence.trust.wire()))
    code, said = run(written, "--keys", keys)
    assert code == 1
    assert "step 6 (reviews)" in said


def test_a_file_that_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("{}\n")
    with pytest.raises(InvalidInput, match="speaks for no artifact"):
        intoto.read_bundle_file(path)


def _octets(line: str) -> str:
    return base64.b64decode(json.loads(line).get("octets", "")).decode()
