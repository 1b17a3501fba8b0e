#!/usr/bin/env python3
"""Verify a Triplane log without Triplane: Python 3.11, `cryptography`, this file. How it is used: README.md beside it.

    python verify.py LOG --key KEY [--earlier CHECKPOINT]... [--artifact FILE|sha256:...] [--proof FILE.tlog-proof]

LOG is a directory written by `triplane log export`, or the URL at which the log is served. KEY is the log's public key,
`origin+id+base64`: get it once on a way you trust, never from LOG. Checked in this order: signature, earlier
checkpoints, each entry's hash and `prev`, the tree, the root, the artifact, its proof. Exit code 0: verified. 1: not
so; the first thing wrong, where, what to do. 2: it could not be found out.
"""

import argparse
import base64
import hashlib
import http.client
import json
import re
import sys
import urllib.request
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

AGAIN = "Fetch the log again; if that does not help, ask for a new export"
KEEP = "Keep this copy as evidence, rely on nothing from there on, and get the log from somebody else too"
BOTH = "Keep both checkpoints: the key has signed two histories. Ask the operator, and witnesses what they have seen"
GIVER = "Do not accept it; ask whoever gave it to you"
TRUST = "Ask, on a way you trust, whether the log has another key; never take one from the log itself"
ADVICE = {"FileMissing": AGAIN, "MalformedBundle": AGAIN, "MalformedTile": AGAIN, "RolledBack": BOTH, "Forked": BOTH}
ADVICE |= {"NotSigned": TRUST, "ArtifactNotRecorded": GIVER, "MalformedProof": GIVER, "ProofMismatch": GIVER}
MEMBERS = ["actor", "blobs", "data", "id", "origin", "prev", "seq", "stream", "subject", "time", "type", "v"]
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
NOTE = re.compile(
    "((?P<origin>[^\0-\x1f]+)\n(?P<size>0|[1-9][0-9]{0,14})\n(?P<root>[A-Za-z0-9+/]{43}=)\n(?:[^\0-\x1f]+\n)*)"
    "\n((?:— [^\\s+\0-\x1f]+ [A-Za-z0-9+/]+={0,2}\n){1,100})"
)
HASHES = "((?:[A-Za-z0-9+/]{43}=\n){0,63})"
PROOF = re.compile(rf"c2sp\.org/tlog-proof@v1\n(?:extra .*\n)?index (0|[1-9][0-9]{{0,14}})\n{HASHES}\n((?s:.*))")


class Broken(Exception):
    """The first thing wrong."""


def check(ok, reason, where, found):
    if not ok:
        raise Broken(f"{reason} at {where}: {found}. {ADVICE.get(reason, KEEP)}.")


def shown(text):
    """What a log holds must not command the terminal of who reads it."""
    return "".join(char if " " <= char <= "~" else "?" for char in str(text))


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(row):
    """RFC 6962, section 2.1, over leaf hashes, or over the roots of complete subtrees of one size."""
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


def read(log, path):
    try:
        if not log.startswith(("http://", "https://")):
            return (Path(log) / path).read_bytes()
        with urllib.request.urlopen(f"{log.rstrip('/')}/{path}", timeout=60) as response:  # noqa: S310
            return response.read(256 * 65_537 + 1)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and getattr(error, "code", 0) not in (404, 410):
            raise
    check(False, "FileMissing", path, "it is not there, but the log's size needs it")
    return b""


def public_key(text):
    """A pinned key `name+id+base64(type, key)` as ((name, id), key); signed-note, "Signature types"."""
    name, number, data = text.strip().split("+", 2)
    octets = decoded(data)
    if len(octets) != 33 or octets[0] != 1 or sha256(f"{name}\n".encode(), octets)[:4].hex() != number:
        raise ValueError(f"{text!r} is no Ed25519 key of a log, or its id belongs to another key")
    return (name, octets), Ed25519PublicKey.from_public_bytes(octets[1:])


def checkpoint(octets, keys, where):
    """(origin, size, root) if a pinned key of that origin has signed them. Signatures by other keys are ignored."""
    try:
        note = NOTE.fullmatch(octets.decode())
    except UnicodeDecodeError:
        note = None
    signatures = [line.split(" ")[1:] for line in note[5].splitlines()] if note else []
    spelt = signatures and decoded(note["root"]) and all(len(decoded(data)) > 4 for _, data in signatures)
    check(spelt, "MalformedCheckpoint", where, "this is no C2SP checkpoint")
    ours = note["origin"] in {name for name, _ in keys}
    check(ours, "OtherOrigin", where, f"it is of the log {note['origin']}, of which no key is pinned")
    signed = False
    for name, data in signatures:
        signature = decoded(data)
        for (known, encoded), key in keys.items():
            if known == name and sha256(f"{name}\n".encode(), encoded)[:4] == signature[:4]:
                try:
                    key.verify(signature[4:], note[1].encode())
                except InvalidSignature:
                    check(False, "InvalidSignature", where, f"what is written is not what {name} has signed")
                signed = signed or name == note["origin"]
    check(signed, "NotSigned", where, "no pinned key has signed it")
    return note["origin"], int(note["size"]), decoded(note["root"])


def proof_in(octets, where):
    """(index, hashes, checkpoint) of a C2SP tlog-proof."""
    found = PROOF.fullmatch(octets.decode(errors="replace"))
    path = [decoded(line) for line in found[2].splitlines()] if found else [b""]
    check(all(path), "MalformedProof", where, "this is no C2SP tlog-proof")
    return int(found[1]), path, found[3].encode()


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
    good = again == octets and isinstance(entry, dict) and sorted(entry) == MEMBERS and repr(entry["v"]) == "1"
    return entry if good and TIME.fullmatch(str(entry["time"])) else {}


def entries_of(log, origin, size):
    """Each entry's leaf hash and members, once it is known to continue the one before and to be what its tile says."""
    prev, time, ids = "0" * 64, "", set()
    for first in range(0, size, 256):
        width, number = min(256, size - first), first // 256
        hashes = read(log, tile(0, number, width))
        check(len(hashes) == 32 * width, "MalformedTile", tile(0, number, width), f"it does not hold {width} hashes")
        found = bundle(read(log, tile("entries", number, width)))
        wrong = f"it does not hold {width} entries"
        check(len(found) == width, "MalformedBundle", tile("entries", number, width), wrong)
        for i, octets in enumerate(found):
            n, leaf, entry = first + i, sha256(b"\0", octets), parse(octets)
            where, get = f"entry {n}", entry.get
            check(leaf == hashes[32 * i : 32 * i + 32], "LeafHashMismatch", where, "the tile has another hash for it")
            check(entry, "Malformed", where, "it is not the canonical form of an entry of version 1")
            check(get("origin") == origin, "OriginMismatch", where, f"it is of the log {get('origin')}")
            check(repr(get("seq")) == str(n), "SequenceMismatch", where, f"it says that it is entry {get('seq')}")
            check(get("prev") == prev, "PrevMismatch", where, f"its prev is {get('prev')}, the one before is {prev}")
            check(str(get("time")) >= time, "TimeBackwards", where, f"{get('time')} is before {time}")
            check(str(get("id")) not in ids, "IdRepeated", where, f"the id {get('id')} occurred before")
            ids.add(str(get("id")))
            prev, time = leaf.hex(), str(get("time"))
            yield leaf, entry


def lead(leaf, index, size, path):
    """The root to which an inclusion proof leads (RFC 6962, section 2.1.1); no signed one if it is wrong."""
    if size < 2 or not path:
        return leaf if size == 1 and not path else b""
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return sha256(b"\1", lead(leaf, index, left, path[:-1]), path[-1])
    return sha256(b"\1", path[-1], lead(leaf, index - left, size - left, path[:-1]))


def tiles_above(leaves):
    """The hash tiles above level 0, as (path, octets)."""
    row, level = leaves, 1
    while len(row) >= 256:
        row = [root_of(row[i : i + 256]) for i in range(0, len(row) - 255, 256)]
        for i in range(0, len(row), 256):
            part = row[i : i + 256]
            yield tile(level, i // 256, len(part)), b"".join(part)
        level += 1


def verify(log, keys, earlier, artifact, proof):
    """Yields what has been established; raises Broken at the first thing wrong."""
    origin, size, root = checkpoint(read(log, "checkpoint"), keys, "checkpoint")
    held = [(*checkpoint(Path(name).read_bytes(), keys, name), name) for name in earlier]
    if proof is not None:
        index, path, octets = proof_in(Path(proof).read_bytes(), proof)
        held.append((*checkpoint(octets, keys, proof), proof))
    for of, then, was, name in held:
        check(of == origin, "OtherOrigin", name, f"it is of the log {of}, not {origin}")
        check(then <= size, "RolledBack", name, f"it has {then} entries, the log has only {size}")
        check(then != size or was == root, "Forked", name, f"another root was signed for {size} entries")
    leaves, recorded = [], {}
    for n, (leaf, entry) in enumerate(entries_of(log, origin, size)):
        leaves.append(leaf)
        if entry.get("type") == "artifact.recorded" and isinstance(entry["data"], dict):
            recorded.setdefault(str(entry["data"].get("digest")), []).append(n)
    for name, octets in tiles_above(leaves):
        check(read(log, name) == octets, "TileMismatch", name, "its hashes are not those of the entries")
    agreed = max([0, *(then for _, then, was, _ in held if root_of(leaves[:then]) == was)])
    check(size or root == root_of([]), "EmptyTreeRoot", "checkpoint", "it says that there are no entries, and a root")
    where = f"entries {agreed} to {size - 1}"
    check(root_of(leaves) == root, "RootMismatch", where, "together they are not what was signed")
    for _, then, was, name in held:
        check(root_of(leaves[:then]) == was, "Forked", name, f"the first {then} entries were others when it was signed")
    yield f"{size} entries of {origin}, root {root.hex()}: unbroken, and what was signed"
    yield from (f"consistent with {name}: {then} entries" for _, then, _, name in held)
    if artifact is not None:
        digest = artifact if artifact.startswith("sha256:") else f"sha256:{sha256(Path(artifact).read_bytes()).hex()}"
        check(digest in recorded, "ArtifactNotRecorded", artifact, f"no entry records {digest}")
        yield f"artifact {digest} recorded as entry {', '.join(map(str, recorded.get(digest, [])))}"
    if proof is not None:
        then, was = held[-1][1:3]
        good = index < then and lead(leaves[index], index, then, path) == was
        check(good, "ProofMismatch", proof, f"it does not lead from entry {index} to the root of {then} entries")
        good = artifact is None or index in recorded.get(digest, [])
        check(good, "ProofMismatch", proof, f"entry {index} does not record {artifact}")
        yield f"the proof leads from entry {index} to the root of {then} entries"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log")
    parser.add_argument("--key", action="append", required=True)
    parser.add_argument("--earlier", action="append", default=[])
    parser.add_argument("--artifact")
    parser.add_argument("--proof")
    given = parser.parse_args(arguments)
    try:
        keys = dict(public_key(text) for text in given.key)
        for line in verify(given.log, keys, given.earlier, given.artifact, given.proof):
            print("ok:", shown(line))
    except Broken as error:
        print("NOT VERIFIED:", shown(error), file=sys.stderr)
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        print("NOT FOUND OUT:", shown(error), file=sys.stderr)
        return 2
    if not given.earlier:
        print("note: without --earlier nobody can tell whether an older history was replaced; keep this checkpoint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
