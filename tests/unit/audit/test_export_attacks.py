"""Attacks on an exported log, rows 1 to 13 of the attack table, against three verifiers that share no code.

Each attack has the chain of checks that stand against it, in order: with the first k taken out, the next one finds it;
with all of them taken out nobody does, so none of them is there for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.audit.exports import (
    KEY,
    LOG,
    ORIGIN,
    THIEF,
    Audit,
    checkpoint,
    entries,
    flip,
    forged,
    in_node,
    ours,
    place,
    rechained,
    same,
    standalone,
    text_of,
    untouched,
)

from triplane.audit.checkpoint import Checkpoint
from triplane.audit.layout import CHECKPOINT, encode_bundle
from triplane.audit.merkle import inclusion_proof, leaf_hash, leaf_reader
from triplane.audit.note import NoteSignature, make_note, sign
from triplane.audit.tlogproof import TlogProof

SIZE = 12
OTHER = "localhost/other"
BUNDLE, TILE = "tile/entries/000.p/12", "tile/0/000.p/12"
ALL = f"entries 0 to {SIZE - 1}"


@dataclass(frozen=True)
class Attack:
    """``chain``: reason and place of what finds it, then of what does when that is gone, and so on."""

    row: int
    name: str
    alter: Callable[[Audit], None]
    chain: tuple[tuple[str, str], ...]
    size: int = SIZE


def edited(octets: bytes) -> bytes:
    made = octets.replace(b'"generation":1', b'"generation":2')
    assert made != octets
    return made


def at(place_: int, octets: bytes) -> Callable[[Audit], None]:
    """One entry in the bundle replaced, nothing else."""

    def alter(audit: Audit) -> None:
        made = [*audit.octets[:place_], octets, *audit.octets[place_ + 1 :]]
        place(audit.folder, BUNDLE, encode_bundle(made))

    return alter


def relaid(change: Callable[[list[bytes]], list[bytes]], named: int | None = None) -> Callable[[Audit], None]:
    """All files but the checkpoint written anew."""
    return lambda audit: forged(audit.folder, change(audit.octets), named)


def rewritten(first: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda octets: list(entries(len(octets), other_from=first))


def resigned(change: Callable[[list[bytes]], list[bytes]], *kept: int) -> Callable[[Audit], None]:
    """Written and signed anew by whoever has the key; the auditor has checkpoints of before."""

    def alter(audit: Audit) -> None:
        made = change(audit.octets)
        for size in kept:
            audit.keep(size)
        forged(audit.folder, made)
        place(audit.folder, CHECKPOINT, checkpoint(made))

    return alter


def by_an_unknown_key(audit: Audit) -> None:
    text = text_of(audit)
    place(audit.folder, CHECKPOINT, make_note(text, [sign(text, ORIGIN, THIEF)]))


def by_the_thief_under_the_pinned_id(audit: Audit) -> None:
    text = text_of(audit)
    place(audit.folder, CHECKPOINT, make_note(text, [NoteSignature(ORIGIN, KEY.key_id, THIEF.sign(text))]))


def beside_one_that_collides(audit: Audit) -> None:
    text = text_of(audit)
    good, bad = sign(text, ORIGIN, LOG), NoteSignature(ORIGIN, KEY.key_id, THIEF.sign(text))
    place(audit.folder, CHECKPOINT, make_note(text, [good, bad]))


def by_the_thief_alone(audit: Audit) -> None:
    forged(audit.folder, list(entries(SIZE, other_from=0)))
    place(audit.folder, CHECKPOINT, checkpoint(entries(SIZE, other_from=0), THIEF))


def larger_than_signed(audit: Audit) -> None:
    said = (audit.folder / CHECKPOINT).read_bytes()
    forged(audit.folder, audit.octets[:11])
    place(audit.folder, CHECKPOINT, said.replace(b"\n12\n", b"\n11\n"))


def another_log(audit: Audit) -> None:
    made = entries(SIZE, OTHER)
    forged(audit.folder, list(made))
    place(audit.folder, CHECKPOINT, checkpoint(made, origin=OTHER))


def emptied(audit: Audit) -> None:
    forged(audit.folder, [])
    place(audit.folder, CHECKPOINT, checkpoint([], THIEF))


def emptied_with_a_root(audit: Audit) -> None:
    forged(audit.folder, [])
    text = Checkpoint(ORIGIN, 0, b"\1" * 32).text
    place(audit.folder, CHECKPOINT, make_note(text, [sign(text, ORIGIN, LOG)]))


def rolled_back(audit: Audit) -> None:
    audit.keep(SIZE)
    forged(audit.folder, audit.octets[:7])
    place(audit.folder, CHECKPOINT, checkpoint(audit.octets[:7]))


def two_roots_of_one_size(audit: Audit) -> None:
    audit.keep(SIZE, entries(SIZE, other_from=8))


def proof_with(change: Callable[[int, tuple[bytes, ...]], tuple[int, tuple[bytes, ...]]]) -> Callable[[Audit], None]:
    def alter(audit: Audit) -> None:
        index, path = change(5, inclusion_proof(5, 9, leaf_reader([leaf_hash(item) for item in audit.octets[:9]])))
        audit.proof = audit.folder.parent / "p.tlog-proof"
        audit.proof.write_bytes(TlogProof(index, path, checkpoint(audit.octets[:9])).octets)

    return alter


def swapped(octets: list[bytes]) -> list[bytes]:
    return [*octets[:4], octets[5], octets[4], *octets[6:]]


def sibling(octets: list[bytes]) -> list[bytes]:
    return [*octets[:4], entries(SIZE, other_from=4)[4], *octets[5:]]


def doubled_and_rechained(octets: list[bytes]) -> list[bytes]:
    return rechained([*octets[:7], octets[6], *octets[7:11]], 7)


def backdated(octets: list[bytes]) -> list[bytes]:
    return rechained([*octets[:7], octets[7].replace(b"2026-01-02T", b"2026-01-01T"), *octets[8:]], 7)


SHORT = (("MalformedTile", TILE), ("MalformedBundle", BUNDLE))
ROOT = ("RootMismatch", ALL)
NO_PROOF = (("ProofMismatch", "p.tlog-proof"),)
ATTACKS = [
    Attack(1, "octets, in their bundle alone", at(4, edited(entries(SIZE)[4])),
           (("LeafHashMismatch", "entry 4"), ("PrevMismatch", "entry 5"), ROOT)),
    Attack(1, "the last entry's octets", at(11, edited(entries(SIZE)[11])), (("LeafHashMismatch", "entry 11"), ROOT)),
    Attack(1, "octets and the hash in their tile", relaid(lambda all_: [*all_[:4], edited(all_[4]), *all_[5:]]),
           (("PrevMismatch", "entry 5"), ROOT)),
    Attack(1, "octets in a second spelling", at(4, entries(SIZE)[4].replace(b'"v":1', b'"v": 1')),
           (("LeafHashMismatch", "entry 4"), ("Malformed", "entry 4"), ("OriginMismatch", "entry 4"),
            ("SequenceMismatch", "entry 4"), ("PrevMismatch", "entry 4"),
            ("TimeBackwards", "entry 5"), ROOT)),
    Attack(1, "a stored hash", flip(TILE, 32 * 4 + 3), (("LeafHashMismatch", "entry 4"),)),
    Attack(1, "a stored hash of level 1", flip("tile/1/000.p/2", 33), (("TileMismatch", "tile/1/000.p/2"),), 515),
    Attack(2, "the first entry deleted", relaid(lambda all_: all_[1:], SIZE),
           (*SHORT, ("SequenceMismatch", "entry 0"), ("PrevMismatch", "entry 0"), ROOT)),
    Attack(2, "an entry in the middle deleted", relaid(lambda all_: [*all_[:4], *all_[5:]], SIZE),
           (*SHORT, ("SequenceMismatch", "entry 4"), ("PrevMismatch", "entry 4"), ROOT)),
    Attack(2, "the last two deleted", relaid(lambda all_: all_[:10], SIZE), (*SHORT, ROOT)),
    Attack(2, "the last two deleted, with their files", relaid(lambda all_: all_[:10]),
           (("FileMissing", TILE), *SHORT, ROOT)),
    Attack(2, "the last one deleted, and the signed size", larger_than_signed,
           (("InvalidSignature", CHECKPOINT), ("RootMismatch", "entries 0 to 10"))),
    Attack(3, "an entry inserted, and the last one dropped",
           relaid(lambda all_: [*all_[:4], entries(SIZE, other_from=4)[4], *all_[4:11]]),
           (("SequenceMismatch", "entry 5"), ("PrevMismatch", "entry 5"), ROOT)),
    Attack(3, "two entries swapped", relaid(swapped),
           (("SequenceMismatch", "entry 4"), ("PrevMismatch", "entry 4"), ROOT)),
    Attack(3, "an entry doubled, the rest chained anew", relaid(doubled_and_rechained),
           (("IdRepeated", "entry 7"), ROOT)),
    Attack(3, "an entry of an earlier time, signed", resigned(backdated), (("TimeBackwards", "entry 7"),)),
    Attack(4, "a suffix rewritten with all its hashes", relaid(rewritten(4)), (ROOT,)),
    Attack(4, "a suffix rewritten and signed", resigned(rewritten(4), 3, 6), (("Forked", "checkpoint-6-1"),)),
    Attack(5, "everything rewritten", relaid(rewritten(0)), (ROOT,)),
    Attack(5, "everything rewritten and signed by a thief", by_the_thief_alone, (("NotSigned", CHECKPOINT),)),
    Attack(5, "everything rewritten and signed by the log", resigned(rewritten(0), 6), (("Forked", "checkpoint-6-0"),)),
    Attack(6, "a sibling in an entry's place", relaid(sibling), (("PrevMismatch", "entry 5"), ROOT)),
    Attack(7, "a tail of another log", relaid(lambda all_: [*all_[:4], *entries(SIZE, OTHER)[4:]]),
           (("OriginMismatch", "entry 4"), ("PrevMismatch", "entry 4"), ROOT)),
    Attack(7, "a tail of another log, chained anew",
           relaid(lambda all_: rechained([*all_[:4], *entries(SIZE, OTHER)[4:]], 4, OTHER)),
           (("OriginMismatch", "entry 4"), ROOT)),
    Attack(7, "another log of the same key", another_log, (("OtherOrigin", CHECKPOINT), ("NotSigned", CHECKPOINT))),
    Attack(8, "two roots of one size", two_roots_of_one_size, (("Forked", "checkpoint-12-0"),)),
    Attack(8, "a smaller one after a larger", rolled_back,
           (("RolledBack", "checkpoint-12-0"), ("Forked", "checkpoint-12-0"))),
    Attack(9, "signed by an unknown key", by_an_unknown_key, (("NotSigned", CHECKPOINT),)),
    Attack(9, "signed by a wrong key under the pinned id", by_the_thief_under_the_pinned_id,
           (("InvalidSignature", CHECKPOINT),)),
    Attack(9, "signed by a key that collides, beside the right one", beside_one_that_collides,
           (("InvalidSignature", CHECKPOINT),)),
    Attack(10, "a proof without its last hash", proof_with(lambda n, path: (n, path[:-1])), NO_PROOF),
    Attack(10, "a proof with a hash too many", proof_with(lambda n, path: (n, (*path, b"\0" * 32))), NO_PROOF),
    Attack(10, "a proof with two hashes swapped", proof_with(lambda n, path: (n, (path[1], path[0], *path[2:]))),
           NO_PROOF),
    Attack(10, "a proof of no hash", proof_with(lambda n, path: (n, ())), NO_PROOF),
    Attack(10, "a proof of the entry beside", proof_with(lambda n, path: (n - 1, path)), NO_PROOF),
    Attack(10, "a proof of an entry beyond its size", proof_with(lambda n, path: (n + 5, path)), NO_PROOF),
    Attack(12, "emptied, and signed by a thief", emptied, (("NotSigned", CHECKPOINT),)),
    Attack(12, "emptied, with the root of something", emptied_with_a_root,
           (("EmptyTreeRoot", CHECKPOINT), ("RootMismatch", "entries 0 to -1"))),
    Attack(13, "a backup restored", rolled_back, (("RolledBack", "checkpoint-12-0"), ("Forked", "checkpoint-12-0"))),
]  # fmt: skip
ABOVE = frozenset({"TileMismatch"})
"""Reasons the auditor's file does not know: it makes its own tree of the entries, and needs no upper tiles."""
EVERY_ATTACK = pytest.mark.parametrize("attack", [pytest.param(it, id=f"{it.row}: {it.name}") for it in ATTACKS])


@EVERY_ATTACK
def test_an_attack_is_found_by_each_check_in_turn_and_by_nothing_without_them(attack: Attack, tmp_path: Path) -> None:
    audit = untouched(tmp_path, attack.size)
    assert standalone(audit).code == 0
    attack.alter(audit)
    without: list[str] = []
    for reason, where in attack.chain:
        verdict = (in_node if reason in ABOVE else standalone)(audit, without)
        assert same(verdict, reason, where), verdict
        assert verdict.message.endswith("."), "what to do stands at the end"
        without.append(reason)
    assert standalone(audit, without).code == 0
    assert in_node(audit, without).code == 0


@EVERY_ATTACK
def test_three_verifiers_say_the_same_of_an_attack(attack: Attack, tmp_path: Path) -> None:
    audit = untouched(tmp_path, attack.size)
    attack.alter(audit)
    reason, where = attack.chain[0]
    assert same(in_node(audit), reason, where)
    if attack.row != 10:  # proofs of entries are verified by triplane.audit.tlogproof
        assert same(ours(audit), reason, where)
