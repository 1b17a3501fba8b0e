"""``triplane verify``: entries, artifacts, checkpoints and exports, checked without an installation or a connection."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.audit.attested import OPERATOR, Forger, shown
from tests.unit.audit.exports import entries as export_entries
from tests.unit.audit.exports import exported, flip, untouched
from tests.unit.audit.notary import LOG, NOW, THIEF, WITNESSES, Log, log_key, trust, witness_key
from tests.unit.audit.notary import ORIGIN as LOG_ORIGIN
from tests.unit.cli.test_attest import export as write_folder
from tests.unit.controllers.people import to_end, world
from typer.testing import CliRunner

from triplane.audit import proven
from triplane.audit.attestation import PROVENANCE
from triplane.audit.checkpoint import Checkpoint, CheckpointTrust, add_signatures, sign_checkpoint
from triplane.audit.digest import digest_of_bytes
from triplane.audit.entry import parse
from triplane.audit.evidence import Evidence
from triplane.audit.keys import KEY_EVENTS
from triplane.audit.merkle import consistency_proof, inclusion_proof, leaf_hash, leaf_reader, subtree_root
from triplane.audit.note import cosign, parse_note
from triplane.audit.notekey import KeyRing
from triplane.audit.tlogproof import Logged, TlogProof, make_bundle, verify_bundle
from triplane.audit.witness import make_request
from triplane.cli.main import app
from triplane.cli.trust import read_file
from triplane.errors import InvalidEntry, InvalidInput, InvalidNote

TRUE, FALSE = Log().grow(40), Log("false").grow(40)


@pytest.fixture(autouse=True)
def _no_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "TRIPLANE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing here"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: Path | str, key: str | None = None) -> tuple[int, str]:
    """Exit code and everything that was said."""
    answer = CliRunner().invoke(app, ["verify", *map(str, arguments), "--key", key or str(log_key())])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        return 2, str(answer.exception)
    return answer.exit_code, answer.output


def placed(path: Path, octets: bytes) -> Path:
    path.write_bytes(octets)
    return path


# One entry


def test_an_entry_is_shown_with_its_checkpoint(tmp_path: Path) -> None:
    code, said = run(placed(tmp_path / "p", TRUE.bundle(13, 20)))
    assert code == 0, said
    assert "entry 13 is in the log: task.created Task team/t13" in said
    assert "without --earlier" in said


def proof(change: Callable[[TlogProof], TlogProof]) -> bytes:
    hashes, note = TRUE.inclusion(13, 20), TRUE.signed(20)
    return change(TlogProof(13, hashes, note, TRUE.entries[13])).octets


def transplanted(_: TlogProof) -> TlogProof:
    """Another log of the same owner, whose operator signs this log's name under its tree."""
    other = Log(origin="log.example/8").grow(20)
    note = sign_checkpoint(replace(other.head(20), origin=LOG_ORIGIN), LOG_ORIGIN, [LOG])
    return TlogProof(13, other.inclusion(13, 20), note, other.entries[13])


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        pytest.param(lambda it: replace(it, proof=it.proof[:-1]), "ProofTooShort", "entry 13", id="10: a hash too few"),
        pytest.param(lambda it: replace(it, proof=()), "ProofTooShort", "entry 13", id="10: no hashes"),
        pytest.param(
            lambda it: replace(it, proof=(*it.proof, bytes(32))), "ProofTooLong", "entry 13", id="10: too many"
        ),
        pytest.param(lambda it: replace(it, proof=it.proof[::-1]), "RootMismatch", "entry 13", id="10: turned round"),
        pytest.param(lambda it: replace(it, index=12), "RootMismatch", "entry 12", id="10: of the entry beside"),
        pytest.param(lambda it: replace(it, index=20), "IndexOutOfRange", "entry 20", id="10: beyond the tree"),
        pytest.param(lambda it: replace(it, extra=TRUE.entries[12]), "RootMismatch", "entry 13", id="1: another entry"),
        pytest.param(lambda it: replace(it, extra=None), "MalformedBundle", "entry 13", id="no entry in it"),
        pytest.param(
            lambda it: replace(it, checkpoint=FALSE.signed(20)), "RootMismatch", "entry 13", id="6: of a forked tree"
        ),
        pytest.param(
            lambda it: replace(it, checkpoint=TRUE.signed(20, THIEF)),
            "NotSigned",
            LOG_ORIGIN,
            id="9: a thief's checkpoint",
        ),
        pytest.param(
            lambda it: replace(it, checkpoint=it.checkpoint.replace(b"\n20\n", b"\n21\n")),
            "InvalidSignature",
            LOG_ORIGIN,
            id="9: an altered checkpoint",
        ),
        pytest.param(
            lambda it: replace(it, checkpoint=Log(origin="log.example/8").grow(20).signed()),
            "OtherOrigin",
            "log.example/8",
            id="7: a checkpoint of another log",
        ),
        pytest.param(transplanted, "InvalidEntry", "entry 13 of log.example/8", id="7: transplanted, and signed"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused_with_its_reason(
    change: Callable[[TlogProof], TlogProof], reason: str, said: str, tmp_path: Path
) -> None:
    code, told = run(placed(tmp_path / "p", proof(change)))
    assert code == 1, told
    assert f"NOT VERIFIED: {reason}: " in told
    assert said in told
    assert told.strip().endswith("."), "what to do stands at the end"


def test_a_transplanted_entry_passes_where_its_own_words_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 7, with the protection removed: inclusion alone says nothing of which log an entry was made for."""
    path = placed(tmp_path / "p", proof(transplanted))
    assert run(path)[0] == 1

    class Unasked(dict[str, object]):
        def __getitem__(self, key: str) -> object:
            return {"origin": LOG_ORIGIN, "seq": 13}.get(key) or super().__getitem__(key)

    class Opened:
        def __init__(self, octets: bytes) -> None:
            self.entry = Unasked(parse(octets))

    monkeypatch.setattr("triplane.audit.tlogproof.open_entry", Opened)
    assert run(path)[0] == 0


def test_a_proof_that_leads_nowhere_passes_where_its_root_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 10, with the protection removed."""
    path = placed(tmp_path / "p", proof(lambda it: replace(it, proof=it.proof[::-1])))
    assert run(path)[0] == 1
    monkeypatch.setattr("triplane.audit.tlogproof.verify_inclusion", lambda *_: None)
    assert run(path)[0] == 0


# What was kept, and witnesses


@pytest.mark.parametrize(("kept", "now"), [(9, 20), (20, 9), (16, 20), (20, 20), (1, 20)])
def test_a_kept_checkpoint_is_held_against_the_one_shown_whichever_is_older(
    kept: int, now: int, tmp_path: Path
) -> None:
    bundle = placed(tmp_path / "p", TRUE.bundle(0, now))
    earlier = placed(tmp_path / "kept", TRUE.signed(kept))
    small, large = sorted((kept, now))
    if small != large:
        code, said = run(bundle, "--earlier", earlier)
        assert code == 2, "nothing leads from one to the other: nothing is said of the log"
        assert f"triplane proof consistency {small} --to {large}" in said
    asked = make_request(small, TRUE.growth(small, large), TRUE.signed(large))
    code, said = run(bundle, "--earlier", earlier, "--consistency", placed(tmp_path / "growth", asked))
    assert (code, f"consistent with {earlier}: {kept} entries" in said) == (0, True), said


def test_a_proof_between_equal_sizes_holds_nothing(tmp_path: Path) -> None:
    asked = make_request(20, (bytes(32),), TRUE.signed(20))
    more = ["--earlier", placed(tmp_path / "kept", TRUE.signed(20)), "--consistency", placed(tmp_path / "g", asked)]
    code, said = run(placed(tmp_path / "p", TRUE.bundle(13, 20)), *more)
    assert (code, "NOT VERIFIED: ProofTooLong" in said) == (1, True), said


@pytest.mark.parametrize(("kept", "small", "large"), [(20, 9, 20), (9, 8, 20)])
def test_a_proof_that_leads_from_none_of_what_was_kept_is_refused(
    kept: int, small: int, large: int, tmp_path: Path
) -> None:
    """It would not be looked at, whatever is in it."""
    more: list[Path | str] = ["--earlier", placed(tmp_path / "kept", TRUE.signed(kept))]
    for number, size in enumerate((small, kept)):
        if size != large or not number:
            asked = make_request(size, TRUE.growth(size, large), TRUE.signed(large))
            more += ["--consistency", placed(tmp_path / f"growth-{number}", asked)]
    code, said = run(placed(tmp_path / "p", TRUE.bundle(13, 20)), *more)
    assert (code, f"--consistency says nothing about {small} entries" in said) == (2, True), said


@pytest.mark.parametrize(
    ("kept", "growth", "reason"),
    [
        pytest.param(FALSE.signed(20), None, "Forked", id="8: one size, another root"),
        pytest.param(FALSE.signed(9), TRUE.growth(9, 20), "OldRootMismatch", id="4: a rewritten beginning"),
        pytest.param(FALSE.signed(9), FALSE.growth(9, 20), "RootMismatch", id="4: a proof of the other story"),
        pytest.param(TRUE.signed(9), TRUE.growth(9, 20)[:-1], "ProofTooShort", id="10: a hash too few"),
        pytest.param(TRUE.signed(9), (), "ProofTooShort", id="10: no hashes"),
        pytest.param(TRUE.signed(9), (*TRUE.growth(9, 20), bytes(32)), "ProofTooLong", id="10: too many"),
        pytest.param(TRUE.signed(9), TRUE.growth(9, 20)[::-1], "OldRootMismatch", id="10: turned round"),
        pytest.param(TRUE.signed(9, THIEF), TRUE.growth(9, 20), "NotSigned", id="9: kept of a thief"),
        pytest.param(Log(origin="log.example/8").grow(9).signed(), None, "OtherOrigin", id="7: kept of another log"),
    ],
)
def test_what_contradicts_a_kept_checkpoint_is_refused(
    kept: bytes, growth: tuple[bytes, ...] | None, reason: str, tmp_path: Path
) -> None:
    more: list[Path | str] = ["--earlier", placed(tmp_path / "kept", kept)]
    if growth is not None:
        more += ["--consistency", placed(tmp_path / "growth", make_request(9, growth, TRUE.signed(20)))]
    code, said = run(placed(tmp_path / "p", TRUE.bundle(13, 20)), *more)
    assert (code, f"NOT VERIFIED: {reason}: " in said) == (1, True), said


def test_a_rewritten_beginning_passes_where_consistency_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 4 and 10, with the protection removed."""
    kept = placed(tmp_path / "kept", FALSE.signed(9))
    growth = placed(tmp_path / "growth", make_request(9, TRUE.growth(9, 20), TRUE.signed(20)))
    asked = (placed(tmp_path / "p", TRUE.bundle(13, 20)), "--earlier", kept, "--consistency", growth)
    assert run(*asked)[0] == 1
    monkeypatch.setattr(proven, "verify_consistency", lambda *_: None)
    assert run(*asked)[0] == 0


def test_witnesses_must_have_cosigned_and_a_quorum_may_be_asked_for(tmp_path: Path) -> None:
    one, two = "witness1.example", "witness2.example"
    note = TRUE.signed(20)
    line = cosign(parse_note(note).text, one, WITNESSES[one], NOW).line
    path = placed(tmp_path / "checkpoint", add_signatures(note, [line]))
    code, said = run(path, "--witness", str(witness_key(one)))
    assert (code, f"cosigned by {one} at 2026-" in said) == (0, True), said
    both = ("--witness", str(witness_key(one)), "--witness", str(witness_key(two)))
    code, said = run(path, *both)
    assert (code, "NOT VERIFIED: TooFewWitnesses: " in said, f"missing: {two}" in said) == (1, True, True), said
    assert run(path, *both, "--quorum", "1")[0] == 0


# What cannot be found out


@pytest.mark.parametrize(
    ("octets", "more"),
    [
        pytest.param(b"a thesis", (), id="neither proof nor checkpoint"),
        pytest.param(None, (), id="no file"),
        pytest.param(TRUE.bundle(1, 9), ("--earlier", "absent"), id="a kept checkpoint that is not there"),
        pytest.param(TRUE.bundle(1, 9), ("--witness", "no key"), id="a key that is none"),
        pytest.param(TRUE.bundle(1, 9), ("--key", str(log_key(name="log.example/8"))), id="keys of two logs"),
    ],
)
def test_what_cannot_be_found_out_is_not_said_to_be_broken(
    octets: bytes | None, more: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "p"
    if octets is not None:
        path.write_bytes(octets)
    code, said = run(path, *more)
    assert code == 2
    assert "NOT VERIFIED" not in said


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        pytest.param("entry", "--content", id="the content of an entry"),
        pytest.param("entry", "--keys", id="the keys of an entry's statements"),
        pytest.param("checkpoint", "--content", id="the content of a checkpoint"),
        pytest.param("checkpoint", "--keys", id="the keys of a checkpoint's statements"),
        pytest.param("export", "--keys", id="the keys of a log's statements"),
        pytest.param("export", "--consistency", id="a proof about a log that is there whole"),
        pytest.param("entry", "--consistency", id="a proof that leads to nothing that was kept"),
    ],
)
def test_an_option_that_nothing_is_checked_against_is_refused(kind: str, option: str, tmp_path: Path) -> None:
    octets = {"entry": TRUE.bundle(13, 20), "checkpoint": TRUE.signed(20)}
    audit = untouched(tmp_path, 20) if kind == "export" else None
    path = audit.folder if audit else placed(tmp_path / "p", octets[kind])
    more: tuple[Path | str, ...] = (option, placed(tmp_path / "junk", b"not the artifact"))
    if audit:
        audit.keep(10)
        more += ("--earlier", audit.earlier[0])
    code, said = run(path, *more, key=audit.keys[0] if audit else None)
    assert (code, option in said) == (2, True), said


# A whole log


def test_a_file_is_held_against_the_artifacts_of_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = untouched(tmp_path, 20)
    other = placed(tmp_path / "file", b"not the artifact")
    code, said = run(audit.folder, "--content", other, key=audit.keys[0])
    assert (code, "NOT VERIFIED: ContentNotRecorded: " in said) == (1, True), said
    assert digest_of_bytes(b"not the artifact") in said
    octets = list(export_entries(20))
    recorded = next(parse(item)["data"]["digest"] for item in octets if parse(item)["type"] == "artifact.recorded")
    monkeypatch.setattr("triplane.cli.verify.digest_of_file", lambda path: recorded)
    code, said = run(audit.folder, "--content", other, key=audit.keys[0])
    assert (code, f"{other} is artifact {recorded}, of entr" in said) == (0, True), said


@pytest.mark.parametrize("where", ["checkpoint", "tile/entries/000.p/20"])
def test_a_link_in_an_export_leads_nowhere(where: str, tmp_path: Path) -> None:
    """One to /dev/zero never ends."""
    audit = untouched(tmp_path, 20)
    (audit.folder / where).rename(tmp_path / "elsewhere")
    (audit.folder / where).symlink_to(tmp_path / "elsewhere")
    code, said = run(audit.folder, key=audit.keys[0])
    assert (code, "cannot be read" in said) == (2, True), said


async def test_a_link_in_an_artifacts_folder_leads_nowhere(tmp_path: Path) -> None:
    it = await made()
    folder = it.write(tmp_path / "bundle")
    for name in ("entries.jsonl", "content"):
        if name == "content":
            (folder / name).write_bytes(b"report")
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        code, said = run(folder, key=it.key)
        assert (code, f"{name} cannot be read" in said) == (2, True), said
        (folder / name).unlink()
        (tmp_path / name).rename(folder / name)


def test_what_is_no_file_is_not_read_and_no_more_than_was_said_to_be_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("fifo", "endless"):
        with pytest.raises(InvalidInput, match="no regular file"):
            read_file(tmp_path / name, 100)
    (tmp_path / "kept").symlink_to(placed(tmp_path / "p", b"1" * 100))
    assert read_file(tmp_path / "kept", 100) == b"1" * 100
    with pytest.raises(InvalidInput, match="over 99 octets"):
        read_file(tmp_path / "kept", 99)


def test_an_export_is_verified_and_an_altered_one_names_the_entry(tmp_path: Path) -> None:
    audit = untouched(tmp_path, 300)
    audit.keep(200)
    code, said = run(audit.folder, "--earlier", audit.earlier[0], key=audit.keys[0])
    assert (code, "300 entries of localhost/abc" in said) == (0, True), said
    flip("tile/0/000", 32 * 7)(audit)
    code, said = run(audit.folder, key=audit.keys[0])
    assert (code, "NOT VERIFIED: LeafHashMismatch: at entry 7" in said) == (1, True), said


def test_an_export_of_another_history_is_refused_by_what_was_kept(tmp_path: Path) -> None:
    audit = untouched(tmp_path, 40)
    audit.keep(20)
    folder = exported(tmp_path / "other", export_entries(40, other_from=10))
    code, said = run(folder, "--earlier", audit.earlier[0], key=audit.keys[0])
    assert (code, "NOT VERIFIED: Forked: " in said) == (1, True), said


# An artifact


@dataclass
class Shown:
    """An accepted artifact with proofs that its entries are in the log."""

    evidence: Evidence
    octets: list[bytes]
    """Of the whole log."""

    @property
    def key(self) -> str:
        return str(log_key(name=self.evidence.trust.origin))

    def proofs(self, octets: list[bytes] | None = None) -> dict[int, bytes]:
        log = self.octets if octets is None else octets
        origin, leaves = self.evidence.trust.origin, [leaf_hash(item) for item in log]
        note = sign_checkpoint(Checkpoint(origin, len(log), subtree_root(leaves)), origin, [LOG])
        read = leaf_reader(leaves)
        return {
            seq: make_bundle(seq, log[seq], inclusion_proof(seq, len(log), read), note) for seq in self.evidence.entries
        }

    def write(self, folder: Path, proofs: dict[int, bytes] | None = None) -> Path:
        write_folder(folder, self.evidence)
        (folder / "proofs").mkdir()
        for seq, octets in (self.proofs() if proofs is None else proofs).items():
            (folder / "proofs" / f"{seq}.tlog-proof").write_bytes(octets)
        return folder


async def made() -> Shown:
    log = world()
    await to_end(log)
    evidence = await shown(log)
    every = await log.log.query(limit=10_000)
    keys = {item.seq: item.octets for item in every if item.entry["type"] in KEY_EVENTS}
    return Shown(replace(evidence, entries={**keys, **evidence.entries}, content=None), [item.octets for item in every])


async def test_an_artifact_is_verified_with_the_logs_key_alone(tmp_path: Path) -> None:
    it = await made()
    folder = it.write(tmp_path / "bundle")
    (folder / "trust.json").write_text(json.dumps({**it.evidence.trust.wire(), "origin": "of nobody/1"}))
    code, said = run(folder, key=it.key)
    assert code == 0, said
    assert "was produced, reviewed and accepted" in said
    assert "content" not in said
    (folder / "content").write_bytes(b"another report")
    code, said = run(folder, key=it.key)
    assert (code, "step 10 (content)" in said) == (1, True), said


async def test_an_artifact_that_says_that_it_is_of_another_log_is_refused(tmp_path: Path) -> None:
    it = await made()
    folder = it.write(tmp_path / "bundle")
    said = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps({**said, "origin": "log.example/other"}))
    code, told = run(folder, key=it.key)
    assert (code, "NOT VERIFIED: OtherOrigin: it says that it is of the log log.example/other" in told) == (1, True)


async def test_entries_that_are_not_in_the_log_speak_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forger who has the operator's key states what they like, and hands over entries to match."""
    it = await made()
    forger = Forger(it.evidence)
    forger.restate(
        PROVENANCE,
        lambda said: said["predicate"]["runDetails"]["metadata"].update(startedOn="2020-01-01T00:00:00Z"),
        signer=OPERATOR,
    )
    forged = Shown(forger.evidence, it.octets)
    folder = forged.write(tmp_path / "bundle", it.proofs())
    code, said = run(folder, key=it.key)
    assert code == 1
    assert "NOT VERIFIED: OtherEntry: the proof of entry" in said
    # With the protection removed it all fits together.
    monkeypatch.setattr(proven, "verify_bundle", believing)
    code, said = run(folder, key=it.key)
    assert code == 0, said


def believing(octets: bytes, trust: CheckpointTrust, entry: bytes) -> Logged:
    """Takes the entry that is given for the one that is proven."""
    return replace(verify_bundle(octets, trust), octets=entry, entry=parse(entry))


@pytest.mark.parametrize("missing", ["a proof", "the key's entry"])
async def test_what_is_left_out_of_a_bundle_is_no_approval(missing: str, tmp_path: Path) -> None:
    it = await made()
    if missing == "a proof":
        folder = it.write(tmp_path / "bundle")
        seq = max(it.evidence.entries)
        (folder / "proofs" / f"{seq}.tlog-proof").unlink()
        said = f"MalformedBundle: entry {seq}: no proof of it"
    else:
        entries = {
            seq: octets for seq, octets in it.evidence.entries.items() if parse(octets)["type"] not in KEY_EVENTS
        }
        folder = Shown(replace(it.evidence, entries=entries), it.octets).write(tmp_path / "bundle")
        said = "StatementsRefused: step 3 (signatures)"
    code, told = run(folder, key=it.key)
    assert (code, said in told) == (1, True), told


async def test_proofs_of_two_checkpoints_are_not_mixed(tmp_path: Path) -> None:
    it = await made()
    proofs, longer = it.proofs(), [*it.octets, it.octets[-1]]
    last = max(proofs)
    proofs[last] = it.proofs(longer)[last]
    code, said = run(it.write(tmp_path / "bundle", proofs), key=it.key)
    assert (code, f"entry {last}: it is proven in another checkpoint" in said) == (1, True), said


def test_what_a_bundle_shows_of_no_entries_is_nothing() -> None:
    with pytest.raises(InvalidNote, match="nothing is proven"):
        proven.verify_entries({}, {}, trust())


def test_an_entry_is_not_shown_by_the_proof_of_another() -> None:
    octets = TRUE.bundle(13, 20)
    with pytest.raises((InvalidNote, InvalidEntry)):
        proven.verify_entries({12: TRUE.entries[13]}, {12: octets}, trust())


def test_consistency_between_all_sizes_holds() -> None:
    """Both ways, and no other root."""
    leaves = leaf_reader(TRUE.leaves)
    ring = CheckpointTrust(LOG_ORIGIN, KeyRing([log_key()]))
    for small in range(1, 12):
        for large in range(small + 1, 14):
            growth = [proven.Growth(small, consistency_proof(small, large, leaves), TRUE.signed(large))]
            proven.verify_kept(TRUE.head(large), TRUE.signed(small), ring, growth)
            proven.verify_kept(TRUE.head(small), TRUE.signed(large), ring, growth)
