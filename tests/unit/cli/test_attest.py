"""``triplane attest verify`` of an exported folder: no installation, no connection, and each thing amiss named."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.audit.attested import Forger, accepted
from typer.testing import CliRunner

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit.attestation import REVIEW
from triplane.audit.entry import parse
from triplane.audit.evidence import Evidence
from triplane.audit.keys import TrustBundle, TrustedKey
from triplane.cli.bundle import Shown, write_bundle
from triplane.cli.main import app


@pytest.fixture(autouse=True)
def _no_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "TRIPLANE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing here"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("KUBECONFIG", raising=False)


def export(folder: Path, evidence: Evidence) -> Path:
    entry = next(item for item in map(parse, evidence.entries.values()) if item["type"] == "artifact.recorded")
    artifact = {**entry["subject"], "uid": evidence.artifact_uid, "output": entry["data"]["output"]}
    write_bundle(folder, Shown(artifact, evidence))
    return folder


def run(*arguments: Path | str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, ["attest", "verify", *map(str, arguments)])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        return 2, str(answer.exception)
    return answer.exit_code, answer.output


async def test_a_folder_is_verified_by_the_keys_one_names(tmp_path: Path) -> None:
    evidence = await accepted()
    folder = export(tmp_path / "bundle", evidence)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(evidence.trust.wire()))
    (folder / "content").write_bytes(b"report")
    code, said = run(folder, "--keys", keys)
    assert code == 0, said
    assert "10. content       ok" in said
    assert "warning" not in said


async def test_a_folder_of_one_log_is_not_verified_by_the_keys_of_another(tmp_path: Path) -> None:
    folder = export(tmp_path / "bundle", await accepted())
    said = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps({**said, "origin": "log.example/other"}))
    code, told = run(folder)
    assert (code, "is of the log log.example/other, the keys of" in told) == (2, True), told


async def test_keys_that_came_along_are_used_with_a_warning(tmp_path: Path) -> None:
    code, said = run(export(tmp_path / "bundle", await accepted()))
    assert code == 0
    assert "warning: the keys came with the folder" in said


async def test_keys_one_names_win_over_those_that_came_along(tmp_path: Path) -> None:
    """A forger signs with a key of their own, and puts it into the folder."""
    forger = Forger(await accepted())
    mine = MemorySigner(b"mine")
    forger.restate(REVIEW, lambda document: None, signer=mine)
    real = forger.evidence.trust
    forged = TrustBundle(real.origin, (*real.keys, TrustedKey(mine.public_key, 0, "")))
    folder = export(tmp_path / "bundle", forger.trusting(forged))
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps(real.wire()))
    assert run(folder)[0] == 0, "by their own keys, everything fits"
    code, said = run(folder, "--keys", keys)
    assert code == 1
    assert "FAILED" in said
    assert "not signed by any trusted key" in said
    assert "is NOT verified: step 3 (signatures)" in said


async def test_another_content_is_named(tmp_path: Path) -> None:
    folder = export(tmp_path / "bundle", await accepted())
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    code, said = run(folder, "--content", other)
    assert code == 1
    assert "step 10 (content)" in said


@pytest.mark.parametrize("member", ["namespace", "name", "output"])
async def test_what_was_accepted_under_one_name_is_not_shown_under_another(tmp_path: Path, member: str) -> None:
    folder = export(tmp_path / "bundle", await accepted())
    said = json.loads((folder / "artifact.json").read_text())
    said["artifact"][member] = "payroll"
    (folder / "artifact.json").write_text(json.dumps(said))
    code, told = run(folder)
    assert code == 1
    assert f"{member} of the artifact: 'payroll' where" in told


async def test_json_tells_the_steps(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["attest", "verify", str(export(tmp_path / "b", await accepted())), "-o", "json"])
    document = json.loads(answer.stdout)
    assert document["ok"] is True
    assert [step["number"] for step in document["steps"]] == list(range(1, 11))
    assert document["steps"][9]["ok"] is None


def _flip(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(bytes(octets))


async def test_every_flipped_bit_of_an_envelope_is_found(tmp_path: Path) -> None:
    evidence = await accepted()
    for number, digest in enumerate(evidence.envelopes):
        folder = export(tmp_path / str(number), evidence)
        _flip(folder / "envelopes" / f"{digest.removeprefix('sha256:')}.json")
        code, said = run(folder)
        assert code == 1
        assert "step 2 (statements)" in said


def _drop(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(_drop("artifact.json"), "artifact.json", id="no description"),
        pytest.param(_drop("entries.jsonl"), "entries.jsonl", id="no entries"),
        pytest.param(_drop("trust.json"), "trust.json", id="no keys"),
        pytest.param(_write("artifact.json", "{}"), "format", id="another format"),
        pytest.param(_write("trust.json", "[]"), "not a trust bundle", id="keys of another format"),
        pytest.param(_write("entries.jsonl", "nonsense"), "no JSON", id="entries that are no JSON"),
        pytest.param(_write("entries.jsonl", '{"seq": 1}'), "no octets", id="an entry without octets"),
        pytest.param(
            _write("entries.jsonl", '{"seq": 1, "octets": "%"}'), "no base64", id="an entry that is no base64"
        ),
        pytest.param(_write("envelopes/x.json", "{}"), "not named for a digest", id="an envelope of another name"),
    ],
)
async def test_a_folder_that_is_no_bundle_says_what_is_missing(tmp_path: Path, damage: Any, why: str) -> None:
    folder = export(tmp_path / "bundle", await accepted())
    damage(folder)
    code, said = run(folder)
    assert code == 2
    assert why in said


async def test_an_entry_twice_is_refused(tmp_path: Path) -> None:
    evidence = await accepted()
    folder = export(tmp_path / "bundle", evidence)
    seq, octets = next(iter(evidence.entries.items()))
    with (folder / "entries.jsonl").open("a") as file:
        file.write(json.dumps({"seq": seq, "octets": base64.b64encode(octets).decode()}) + "\n")
    code, said = run(folder)
    assert (code, f"two entries {seq}" in said) == (2, True)


async def test_an_export_goes_into_a_new_folder(tmp_path: Path) -> None:
    evidence = await accepted()
    folder = export(tmp_path / "bundle", evidence)
    with pytest.raises(Exception, match="not empty"):
        export(folder, evidence)
