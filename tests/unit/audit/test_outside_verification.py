"""Three verifiers that share no code, held against each other on exports of all sizes, whole and damaged."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.audit.exports import (
    KEY,
    LOG,
    ORIGIN,
    THIEF,
    VERIFY_MJS,
    VERIFY_PY,
    checkpoint,
    flip,
    forged,
    in_node,
    in_python,
    ours,
    place,
    same,
    standalone,
    text_of,
    untouched,
)
from tests.unit.audit.test_export_attacks import ABOVE, ATTACKS, TILE

from triplane.audit.checkpoint import Checkpoint
from triplane.audit.exported import ExportFault
from triplane.audit.layout import CHECKPOINT
from triplane.audit.merkle import EMPTY_ROOT, inclusion_proof, leaf_hash, leaf_reader
from triplane.audit.note import NoteSignature, make_note, sign
from triplane.audit.tlogproof import make_bundle

PROOF_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)
HEAD = Checkpoint(ORIGIN, 0, EMPTY_ROOT).text
SIZES = (0, 1, 2, 3, 4, 7, 8, 9, 31, 32, 33, 63, 65, 100, 255, 256, 257, 300, 511, 512, 513, 767, 768, 1025)


@pytest.mark.parametrize("size", SIZES)
def test_three_verifiers_accept_an_export_of_any_size_and_every_earlier_checkpoint(size: int, tmp_path: Path) -> None:
    audit = untouched(tmp_path, size)
    for earlier in sorted({0, 1, size // 3, size // 2, max(size - 1, 0), size}):
        if earlier <= size:
            audit.keep(earlier)
    for verdict in (standalone(audit), in_node(audit), ours(audit)):
        assert verdict.code == 0, verdict


def test_a_tree_of_three_levels_is_verified_too(tmp_path: Path) -> None:
    audit = untouched(tmp_path, 65_536 + 257)
    assert (audit.folder / "tile/2/000.p/1").is_file()
    audit.keep(65_537)
    assert standalone(audit).code == 0
    flip("tile/2/000.p/1", 5)(audit)
    for verdict in (in_node(audit), ours(audit)):
        assert same(verdict, "TileMismatch", "tile/2/000.p/1"), verdict
    assert standalone(audit).code == 0, "it makes its own tree of the entries"


@pytest.mark.parametrize("seed", range(40))
def test_three_verifiers_agree_on_whatever_is_done_to_the_files(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    audit = untouched(tmp_path, chance.choice((3, 12, 40, 256, 300)))
    audit.keep(3)
    files = sorted(path for path in audit.folder.rglob("*") if path.is_file())
    victim = chance.choice(files)
    octets = bytearray(victim.read_bytes())
    spot = chance.randrange(len(octets))
    match chance.randrange(5):
        case 0 | 1:
            octets[spot] ^= 1 << chance.randrange(8)
        case 2:
            del octets[spot : spot + chance.choice((1, 2, 32, 400))]
        case 3:
            octets[spot:spot] = chance.randbytes(chance.choice((1, 32)))
        case 4:
            other = chance.choice(files).read_bytes()
            octets = bytearray(other) if other != octets else octets[:spot]
    victim.write_bytes(octets)
    verdicts = [in_node(audit), ours(audit)]
    if not victim.is_relative_to(audit.folder / "tile/1"):  # of which the auditor's has no need
        verdicts.append(standalone(audit))
    assert {verdict.code for verdict in verdicts} == {1}, verdicts
    assert len({(verdict.reason, verdict.where) for verdict in verdicts}) == 1, verdicts


def test_repeated_and_unknown_signatures_change_nothing(tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    text = text_of(audit)
    good, unknown = sign(text, ORIGIN, LOG), sign(text, "witness.example/w1", THIEF)
    place(audit.folder, CHECKPOINT, make_note(text, [unknown, good]) + good.line)
    for verdict in (standalone(audit), in_node(audit), ours(audit)):
        assert verdict.code == 0, verdict


@pytest.mark.parametrize("size", PROOF_SIZES)
def test_proofs_of_every_entry_lead_to_the_root_in_both_outside_verifiers(size: int, tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    audit.proof = tmp_path / "p.tlog-proof"
    leaves = leaf_reader([leaf_hash(item) for item in audit.octets[:size]])
    for index in range(size):
        proof = inclusion_proof(index, size, leaves)
        audit.proof.write_bytes(make_bundle(index, audit.octets[index], proof, checkpoint(audit.octets[:size])))
        assert standalone(audit).code == 0
    assert in_node(audit).code == 0


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"c2sp.org/tlog-proof@v2\nindex 0\n\n", id="another version"),
        pytest.param(b"c2sp.org/tlog-proof@v1\nindex 00\n\n", id="an index with a leading zero"),
        pytest.param(b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 40 + b"\n\n", id="a hash too short"),
        pytest.param(b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"A" * 42 + b"B=\n\n", id="a hash in a second spelling"),
    ],
)
def test_a_malformed_proof_is_not_read(octets: bytes, tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    audit.proof = tmp_path / "p.tlog-proof"
    audit.proof.write_bytes(octets)
    for verdict in (standalone(audit), in_node(audit)):
        assert same(verdict, "MalformedProof", "p.tlog-proof"), verdict


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"localhost/abc\n0\n", id="no signatures"),
        pytest.param(HEAD + f"\n\N{EM DASH} {ORIGIN} AAAAA\n".encode(), id="a signature that is no base64"),
        pytest.param(HEAD + f"\n\N{EM DASH} {ORIGIN} AAAA\n".encode(), id="a signature of no octets"),
        pytest.param(HEAD + f"\n\N{EM DASH} {ORIGIN} AAAAAAAA".encode(), id="a last line without its end"),
    ],
)
def test_a_malformed_checkpoint_is_not_read(octets: bytes, tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    place(audit.folder, CHECKPOINT, octets)
    for verdict in (standalone(audit), in_node(audit), ours(audit)):
        assert same(verdict, "MalformedCheckpoint", CHECKPOINT), verdict


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace(b"\n12\n", b"\n012\n"), id="a size with a leading zero"),
        pytest.param(lambda text: text + b"\n", id="an empty line"),
        pytest.param(lambda text: text.replace(b"=\n", b"\n"), id="a root without its padding"),
        pytest.param(lambda text: text.replace(b"\n12\n", b"\n12\t\n"), id="a control character"),
    ],
)
def test_a_second_spelling_of_a_checkpoint_is_not_read_though_it_is_signed(
    change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    audit = untouched(tmp_path)
    text = change(text_of(audit))
    place(audit.folder, CHECKPOINT, text + b"\n" + NoteSignature(ORIGIN, KEY.key_id, LOG.sign(text)).line)
    for verdict in (standalone(audit), in_node(audit), ours(audit)):
        assert same(verdict, "MalformedCheckpoint", CHECKPOINT), verdict


def test_a_verifier_that_cannot_read_does_not_say_that_anything_was_changed(tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    audit.earlier = [tmp_path / "absent"]
    assert standalone(audit).code == in_node(audit).code == 2
    audit.earlier, audit.keys = [], [str(KEY).replace("+d", "+e")]
    assert audit.keys != [str(KEY)]
    assert standalone(audit).code == in_node(audit).code == 2


def test_the_auditors_file_needs_nothing_of_triplane(tmp_path: Path) -> None:
    audit = untouched(tmp_path)
    assert in_python(audit).code == 0
    flip(TILE, 3)(audit)
    assert same(in_python(audit), "LeafHashMismatch", "entry 0")


def test_what_a_log_holds_does_not_command_the_terminal_of_who_reads_it(tmp_path: Path) -> None:
    audit = untouched(tmp_path, 6)
    made = [*audit.octets[:5], audit.octets[5].replace(b'"origin":"', b'"origin":"\\u001b[2J\xc2\x9b2J')]
    forged(audit.folder, made)
    place(audit.folder, CHECKPOINT, checkpoint(made))
    for verdict in (standalone(audit), in_node(audit)):
        assert same(verdict, "OriginMismatch", "entry 5"), verdict
        assert verdict.message.isprintable()
        assert "?[2J?2J" in verdict.message
    assert same(ours(audit), "Malformed", "entry 5")
    assert ours(audit).message.isprintable()


def test_the_verifiers_know_the_same_reasons_and_the_auditors_page_explains_each() -> None:
    by_python = set(re.findall(r'check\(.*?"([A-Z][A-Za-z]+)",', VERIFY_PY.read_text()))
    by_node = set(re.findall(r'check\(.*?"([A-Z][A-Za-z]+)",', VERIFY_MJS.read_text()))
    assert by_python | ABOVE == by_node
    assert {reason for attack in ATTACKS for reason, _ in attack.chain} | {
        "MalformedCheckpoint",
        "MalformedProof",
    } == by_node
    assert {fault.value for fault in ExportFault} < by_node
    page = (VERIFY_PY.parent / "README.md").read_text()
    table = re.findall(r"(?m)^\| (`[A-Z].*?) \|", page)
    assert set(re.findall(r"`([A-Z][A-Za-z]+)`", " ".join(table))) == by_node


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"digest":["x"]}', id="a list for a digest"),
        pytest.param(b"{}", id="no digest"),
        pytest.param(b"null", id="no data"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="five thousand deep"),
        pytest.param(b"9" * 5000, id="a number of five thousand digits"),
        pytest.param(b"NaN", id="no number"),
        pytest.param(b'"\\ud800"', id="a lone surrogate"),
        pytest.param(b'{"a":1,"a":1}', id="a key twice"),
        pytest.param(b"-0", id="minus zero"),
        pytest.param(b"1e-7", id="an exponent"),
        pytest.param(b"0.5", id="a fraction"),
        pytest.param(b"9007199254740992", id="2 to the 53rd"),
        pytest.param(b'{"big":9007199254740991,"small":-9007199254740991}', id="the largest numbers there are"),
    ],
)
def test_a_signed_entry_of_odd_data_stops_no_verifier(data: bytes, tmp_path: Path) -> None:
    """They refuse it or hash it, but they end as they should: with what was found, not with an error of their own."""
    audit = untouched(tmp_path, 6)
    octets = audit.octets[5]
    start, end = octets.index(b'"data":') + 7, octets.index(b',"id":')
    made = [*audit.octets[:5], octets[:start] + data + octets[end:]]
    forged(audit.folder, made)
    place(audit.folder, CHECKPOINT, checkpoint(made))
    for verdict in (standalone(audit), in_node(audit), ours(audit)):
        assert verdict.code == 0 or same(verdict, "Malformed", "entry 5"), verdict
    assert standalone(audit).code == in_node(audit).code
