#!/usr/bin/env python3
"""Verify a Triplane log without Triplane: Python 3.11, `cryptography`, this file. How it is used: README.md beside it.

    python verify.py DIR --key KEY [--earlier CHECKPOINT]... [--proof FILE.tlog-proof]

DIR is what `triplane log export` wrote. KEY is the log's public key, `origin+id+base64`: get it once on a way you
trust, never from DIR. Exit code 0: verified. 1: not so; the first thing wrong, where, what to do. 2: not found out.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

KEEP = "Keep this copy as evidence, rely on nothing from there on, and get the log from somebody else too"
BOTH = "Keep both checkpoints: the key has signed two histories. Ask the operator, and witnesses what they have seen"
NOTE = re.compile(
    "(([^\0-\x1f]+)\n(0|[1-9][0-9]{0,14})\n(.{44})\n(?:[^\0-\x1f]+\n)*)\n((?:— [^\\s+\0-\x1f]+ \\S+\n){1,100})"
)
PROOF = re.compile(
    r"c2sp\.org/tlog-proof@v1\n(?:extra .*\n)?index (0|[1-9][0-9]{0,14})\n((?:.{44}\n){0,63})\n((?s:.*))"
)


class Broken(Exception):
    """The first thing wrong."""


def check(ok, reason, where, found):
    if not ok:
        raise Broken(f"{reason} at {where}: {found}. {BOTH if reason in ('RolledBack', 'Forked') else KEEP}.")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(row):
    """RFC 6962, section 2.1, over leaf hashes."""
    while len(row) > 1:
        row = [sha256(b"\1", *row[i : i + 2]) if i + 1 < len(row) else row[i] for i in range(0, len(row), 2)]
    return row[0] if row else sha256()


def decoded(text):
    """Base64 in its one canonical spelling; nothing for any other."""
    try:
        octets = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return octets if base64.b64encode(octets).decode() == text else b""


def read(folder, path):
    try:
        return (Path(folder) / path).read_bytes()
    except FileNotFoundError:
        check(False, "FileMissing", path, "it is not there, but the log's size needs it")
    return b""


def public_key(text):
    """`name+id+base64(type, key)` (signed-note, "Verifier keys") as what a signature of it begins with, and the key."""
    name, number, data = text.strip().split("+", 2)
    octets = decoded(data)
    key_id = sha256(f"{name}\n".encode(), octets)[:4]
    if len(octets) != 33 or octets[0] != 1 or key_id.hex() != number:
        raise ValueError(f"{text!r} is no Ed25519 key of a log, or its id belongs to another key")
    return name, key_id, Ed25519PublicKey.from_public_bytes(octets[1:])


def checkpoint(octets, keys, where):
    """(origin, size, root) of a C2SP checkpoint that a pinned key of that origin has signed; others' are ignored."""
    note = NOTE.fullmatch(octets.decode(errors="replace"))
    signatures = [(line.split(" ")[1], decoded(line.split(" ")[2])) for line in note[5].splitlines()] if note else []
    spelt = signatures and note[0].encode() == octets and len(decoded(note[4])) == 32
    good = spelt and all(len(data) > 4 for _, data in signatures)
    check(good, "MalformedCheckpoint", where, "this is no C2SP checkpoint")
    ours = [key for key in keys if key[0] == note[2]]
    check(ours, "OtherOrigin", where, f"it is of the log {note[2]}, of which no key is pinned")
    found = [(key, data) for name, data in signatures for key in ours if key[:2] == (name, data[:4])]
    check(found, "NotSigned", where, "no pinned key has signed it; ask, on a way you trust, whether it has another")
    for key, data in found:
        try:
            key[2].verify(data[4:], note[1].encode())
        except InvalidSignature:
            check(False, "InvalidSignature", where, f"what is written is not what {note[2]} has signed")
    return note[2], int(note[3]), decoded(note[4])


def tile(kind, index, width):
    """The path of a tile or bundle (tlog-tiles): 1234067 is x001/x234/067, what is not full ends in .p/<width>."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    return f"tile/{kind}/{'/'.join(groups)}" + (f".p/{width}" if width < 256 else "")


def bundle(octets):
    """The entries, each after its length in two octets; nothing if the last one is cut off."""
    entries, at = [], 0
    while at < len(octets):
        end = at + 2 + int.from_bytes(octets[at : at + 2], "big")
        entries.append(octets[at + 2 : end])
        at = end
    return entries if at == len(octets) else []


def integer(text):
    """Entries have no other numbers than those that are the same in every language (RFC 7493, section 2.2)."""
    if abs(int(text)) >= 2**53:
        raise ValueError(text)
    return int(text)


def parse(octets):
    """The entry, if these octets are its canonical form (RFC 8785); nothing otherwise."""
    try:
        entry = json.loads(octets, parse_int=integer, parse_float=integer)
        again = json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return {}
    return entry if again == octets and isinstance(entry, dict) and repr(entry.get("v")) == "1" else {}


def entries_of(folder, origin, size):
    """The octets of each entry, once they are what its tile says and continue the one before."""
    prev, time, ids = "0" * 64, "", set()
    for first in range(0, size, 256):
        width, number = min(256, size - first), first // 256
        hashes, found = read(folder, tile(0, number, width)), bundle(read(folder, tile("entries", number, width)))
        check(len(hashes) == 32 * width, "MalformedTile", tile(0, number, width), f"it does not hold {width} hashes")
        at, wrong = tile("entries", number, width), f"it does not hold {width} entries"
        check(len(found) == width, "MalformedBundle", at, wrong)
        for n, octets in enumerate(found, first):
            where, entry, leaf = f"entry {n}", parse(octets), sha256(b"\0", octets)
            said = hashes[32 * (n - first) :][:32]
            check(leaf == said, "LeafHashMismatch", where, "the tile has another hash for it")
            check(entry, "Malformed", where, "it is not the canonical form of an entry of version 1")
            get = {key: str(entry.get(key)) for key in ("origin", "seq", "prev", "time", "id")}
            check(get["origin"] == origin, "OriginMismatch", where, f"it is of the log {get['origin']}")
            check(get["seq"] == str(n), "SequenceMismatch", where, f"it says that it is entry {get['seq']}")
            check(get["prev"] == prev, "PrevMismatch", where, f"its prev is {get['prev']}, the one before is {prev}")
            check(get["time"] >= time, "TimeBackwards", where, f"{get['time']} is before {time}")
            check(get["id"] not in ids, "IdRepeated", where, f"the id {get['id']} occurred before")
            ids.add(get["id"])
            prev, time = leaf.hex(), get["time"]
            yield octets


def lead(leaf, index, size, path):
    """The root to which an inclusion proof leads (RFC 6962, section 2.1.1); no signed one if it is wrong."""
    if size < 2 or not path:
        return leaf if size == 1 and not path else b""
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return sha256(b"\1", lead(leaf, index, left, path[:-1]), path[-1])
    return sha256(b"\1", path[-1], lead(leaf, index - left, size - left, path[:-1]))


def verify(folder, keys, earlier, proof):
    """Yields what has been established; raises Broken at the first thing wrong."""
    origin, size, root = checkpoint(read(folder, "checkpoint"), keys, "checkpoint")
    held = [(*checkpoint(Path(name).read_bytes(), keys, name), name) for name in earlier]
    if proof is not None:
        found = PROOF.fullmatch(Path(proof).read_bytes().decode(errors="replace"))
        path = [decoded(line) for line in found[2].splitlines()] if found else [b""]
        check(all(path), "MalformedProof", proof, "this is no C2SP tlog-proof")
        held.append((*checkpoint(found[3].encode(), keys, proof), proof))
    for _, then, was, name in held:
        check(then <= size, "RolledBack", name, f"it has {then} entries, the log has only {size}")
        check(then != size or was == root, "Forked", name, f"another root was signed for {size} entries")
    leaves, shown = [], b""
    for octets in entries_of(folder, origin, size):
        shown = octets if proof is not None and len(leaves) == int(found[1]) else shown
        leaves.append(sha256(b"\0", octets))
    agreed = max([0, *(then for _, then, was, _ in held if root_of(leaves[:then]) == was)])
    check(size or root == root_of([]), "EmptyTreeRoot", "checkpoint", "it says that there are no entries, and a root")
    where = f"entries {agreed} to {size - 1}"
    check(root_of(leaves) == root, "RootMismatch", where, "together they are not what was signed")
    for _, then, was, name in held:
        check(root_of(leaves[:then]) == was, "Forked", name, f"the first {then} entries were others when it was signed")
    yield f"{size} entries of {origin}, root {root.hex()}: unbroken, and what was signed"
    yield from (f"consistent with {name}: {then} entries" for _, then, _, name in held)
    if proof is not None:
        index, then, was = int(found[1]), *held[-1][1:3]
        good = index < then and lead(leaves[index], index, then, path) == was
        check(good, "ProofMismatch", proof, f"it does not lead from entry {index} to the root of {then} entries")
        yield f"entry {index} is in the log: {shown.decode()}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--key", action="append", required=True)
    parser.add_argument("--earlier", action="append", default=[])
    parser.add_argument("--proof")
    given = parser.parse_args(arguments)
    try:
        for line in verify(given.folder, [public_key(text) for text in given.key], given.earlier, given.proof):
            print("ok:", re.sub("[^ -~]", "?", line))  # what a log holds must not command the reader's terminal
    except (Broken, OSError, ValueError) as error:
        broken = isinstance(error, Broken)
        print("NOT VERIFIED:" if broken else "NOT FOUND OUT:", re.sub("[^ -~]", "?", str(error)), file=sys.stderr)
        return 1 if broken else 2
    if not given.earlier:
        print("note: without --earlier nobody can tell whether an older history was replaced; keep this checkpoint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
