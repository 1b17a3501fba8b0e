// The log verified by a second, independent implementation: Node 20, its standard library, this file. The same
// arguments, order of checks and reasons as docs/auditor/verify.py, so that the two can be held against each other:
//
//   node verify.mjs DIR --key KEY [--earlier CHECKPOINT]... [--proof FILE.tlog-proof]
//
// It checks one thing more: that the upper tiles, from which others make proofs, follow from the entries.

import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const WIDTH = 256;
const MEMBERS = "actor,blobs,data,id,origin,prev,seq,stream,subject,time,type,v";
const TIME = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$/;
const KEEP = "Keep this copy as evidence and get the log from somebody else too";
const AGAIN = "Fetch the log again";
const BOTH = "Keep both checkpoints: the key has signed two histories";
const TRUST = "Ask, on a way you trust, whether the log has another key";
const GIVER = "Do not accept it; ask whoever gave it to you";
const ADVICE = { FileMissing: AGAIN, MalformedBundle: AGAIN, MalformedTile: AGAIN, RolledBack: BOTH, Forked: BOTH,
  NotSigned: TRUST, MalformedProof: GIVER, ProofMismatch: GIVER };

class Broken extends Error {}

function check(ok, reason, where, found) {
  if (!ok) throw new Broken(`${reason} at ${where}: ${found}. ${ADVICE[reason] ?? KEEP}.`);
}

const sha256 = (...parts) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const node = (left, right) => sha256(Buffer.of(1), left, right);

/** RFC 6962, section 2.1, as a fold from left to right that keeps the roots of complete subtrees. */
function rootOf(leaves) {
  const peaks = [];
  leaves.forEach((leaf, count) => {
    for (; count & 1; count >>= 1) leaf = node(peaks.pop(), leaf);
    peaks.push(leaf);
  });
  return peaks.length ? peaks.reduceRight((right, left) => node(left, right)) : sha256();
}

function decode64(text) {
  const octets = Buffer.from(text, "base64");
  return octets.toString("base64") === text ? octets : Buffer.alloc(0);
}

/** Strict UTF-8; null for anything else. */
function decodeText(octets) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    return null;
  }
}

function read(log, path) {
  try {
    return readFileSync(join(log, path));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  check(false, "FileMissing", path, "it is not there, but the log's size needs it");
  return Buffer.alloc(0);
}

function publicKey(text) {
  const [name, id, ...rest] = text.trim().split("+");
  const octets = decode64(rest.join("+"));
  const own = sha256(`${name}\n`, octets).subarray(0, 4);
  if (octets.length !== 33 || octets[0] !== 1 || own.toString("hex") !== id) throw new Error(`no key: ${text}`);
  const jwk = { kty: "OKP", crv: "Ed25519", x: octets.subarray(1).toString("base64url") };
  return { name, id: own, key: createPublicKey({ key: jwk, format: "jwk" }) };
}

function checkpoint(octets, keys, where) {
  const text = decodeText(octets) ?? "";
  const cut = text.lastIndexOf("\n\n");
  const body = text.slice(0, cut + 1);
  const lines = text.slice(cut + 2).split("\n");
  const [origin, size, root, ...more] = body.split("\n");
  const signatures = lines.slice(0, -1).map((line) => /^— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u.exec(line));
  const good = cut > 0 && lines.at(-1) === "" && signatures.length > 0 && signatures.length <= 100 &&
    signatures.every((found) => found && decode64(found[2]).length > 4) && !/[\0-\x09\x0b-\x1f]/.test(text) && origin && /^(0|[1-9][0-9]{0,14})$/.test(size) &&
    decode64(root ?? "").length === 32 && more.pop() === "" && more.every(Boolean);
  check(good, "MalformedCheckpoint", where, "this is no C2SP checkpoint");
  const ours = keys.some((key) => key.name === origin);
  check(ours, "OtherOrigin", where, `it is of the log ${origin}, of which no key is pinned`);
  let signed = false;
  for (const [, name, data] of signatures) {
    const signature = decode64(data);
    for (const known of keys) {
      if (known.name !== name || !known.id.equals(signature.subarray(0, 4))) continue;
      const fits = verifySignature(null, Buffer.from(body), known.key, signature.subarray(4));
      check(fits, "InvalidSignature", where, `what is written is not what ${name} has signed`);
      signed ||= name === origin;
    }
  }
  check(signed, "NotSigned", where, "no pinned key has signed it");
  return { origin, size: Number(size), root: decode64(root), where };
}

function proofIn(octets, where) {
  const [head, ...rest] = octets.toString("latin1").split("\n\n");
  const lines = head.split("\n");
  const first = lines.shift();
  if (lines[0]?.startsWith("extra ")) lines.shift();
  const index = /^index (0|[1-9][0-9]{0,14})$/.exec(lines.shift() ?? "");
  const path = lines.map(decode64);
  const good = first === "c2sp.org/tlog-proof@v1" && index && path.length < 64 && path.every((hash) => hash.length === 32);
  check(good && rest.length > 0, "MalformedProof", where, "this is no C2SP tlog-proof");
  return { index: Number(index[1]), path, note: Buffer.from(rest.join("\n\n"), "latin1") };
}

function tile(kind, index, width) {
  const digits = String(index).padStart(Math.ceil(String(index).length / 3) * 3, "0").match(/.{3}/g);
  const last = digits.pop();
  const groups = [...digits.map((group) => `x${group}`), last];
  return `tile/${kind}/${groups.join("/")}${width < WIDTH ? `.p/${width}` : ""}`;
}

function bundle(octets) {
  const entries = [];
  let at = 0;
  while (at + 2 <= octets.length) {
    const end = at + 2 + octets.readUInt16BE(at);
    entries.push(octets.subarray(at + 2, end));
    at = end;
  }
  return at === octets.length ? entries : [];
}

/** RFC 8785 for what an entry may hold. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value !== null && typeof value === "object")
    return `{${Object.keys(value).sort().map((key) => `${canonical(key)}:${canonical(value[key])}`).join(",")}}`;
  if (typeof value === "string" && !value.isWellFormed()) throw new SyntaxError("a lone surrogate");
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new SyntaxError("no number of an entry");
  return JSON.stringify(value);
}

function parse(octets) {
  try {
    const entry = JSON.parse(decodeText(octets));
    const good = Buffer.from(canonical(entry)).equals(octets) && Object.keys(entry).sort().join() === MEMBERS &&
      entry.v === 1 && TIME.test(entry.time);
    return good ? entry : {};
  } catch {
    return {};
  }
}

function* entriesOf(log, origin, size) {
  let prev = "0".repeat(64);
  let time = "";
  const ids = new Set();
  for (let first = 0; first < size; first += WIDTH) {
    const width = Math.min(WIDTH, size - first);
    const [tilePath, bundlePath] = [tile(0, first / WIDTH, width), tile("entries", first / WIDTH, width)];
    const hashes = read(log, tilePath);
    check(hashes.length === 32 * width, "MalformedTile", tilePath, `it does not hold ${width} hashes`);
    const found = bundle(read(log, bundlePath));
    check(found.length === width, "MalformedBundle", bundlePath, `it does not hold ${width} entries`);
    for (const [i, octets] of found.entries()) {
      const [n, leaf, entry] = [first + i, sha256(Buffer.of(0), octets), parse(octets)];
      const where = `entry ${n}`;
      const said = hashes.subarray(32 * i, 32 * i + 32);
      check(leaf.equals(said), "LeafHashMismatch", where, "the tile has another hash for it");
      check(entry.v, "Malformed", where, "it is not the canonical form of an entry of version 1");
      check(entry.origin === origin, "OriginMismatch", where, `it is of the log ${entry.origin}`);
      check(entry.seq === n, "SequenceMismatch", where, `it says that it is entry ${entry.seq}`);
      check(entry.prev === prev, "PrevMismatch", where, `its prev is ${entry.prev}, the one before is ${prev}`);
      check(!(entry.time < time), "TimeBackwards", where, `${entry.time} is before ${time}`);
      check(!ids.has(String(entry.id)), "IdRepeated", where, `the id ${entry.id} occurred before`);
      ids.add(String(entry.id));
      [prev, time] = [leaf.toString("hex"), entry.time];
      yield leaf;
    }
  }
}

/** RFC 9162, section 2.1.3.2; null for a proof of the wrong length. */
function lead(leaf, index, size, path) {
  let last = size - 1;
  for (const sibling of path) {
    if (last === 0) return null;
    if (index % 2 === 1 || index === last) {
      leaf = node(sibling, leaf);
      for (; index % 2 === 0 && index > 0; last = Math.floor(last / 2)) index /= 2;
    } else {
      leaf = node(leaf, sibling);
    }
    [index, last] = [Math.floor(index / 2), Math.floor(last / 2)];
  }
  return last === 0 ? leaf : null;
}

function verify(log, keys, given) {
  const { origin, size, root } = checkpoint(read(log, "checkpoint"), keys, "checkpoint");
  const held = given.earlier.map((name) => checkpoint(readFileSync(name), keys, name));
  const proof = given.proof === undefined ? null : proofIn(readFileSync(given.proof), given.proof);
  if (proof) held.push(checkpoint(proof.note, keys, given.proof));
  for (const old of held) {
    check(old.origin === origin, "OtherOrigin", old.where, `it is of the log ${old.origin}, not ${origin}`);
    check(old.size <= size, "RolledBack", old.where, `it has ${old.size} entries, the log has only ${size}`);
    check(old.size !== size || old.root.equals(root), "Forked", old.where, `another root for ${size} entries`);
  }
  const leaves = [...entriesOf(log, origin, size)];
  for (let row = leaves, level = 1; row.length >= WIDTH; level += 1) {
    row = Array.from({ length: Math.floor(row.length / WIDTH) }, (_, i) => rootOf(row.slice(i * WIDTH, (i + 1) * WIDTH)));
    for (let i = 0; i < row.length; i += WIDTH) {
      const part = row.slice(i, i + WIDTH);
      const name = tile(level, i / WIDTH, part.length);
      check(read(log, name).equals(Buffer.concat(part)), "TileMismatch", name, "its hashes are others");
    }
  }
  const continues = (old) => rootOf(leaves.slice(0, old.size)).equals(old.root);
  const agreed = Math.max(0, ...held.filter(continues).map((old) => old.size));
  check(size || root.equals(sha256()), "EmptyTreeRoot", "checkpoint", "it says that there are no entries, and a root");
  check(rootOf(leaves).equals(root), "RootMismatch", `entries ${agreed} to ${size - 1}`, "they are not what was signed");
  for (const old of held) check(continues(old), "Forked", old.where, `the first ${old.size} entries were others then`);
  console.log(`ok: ${size} entries of ${origin}, root ${root.toString("hex")}`);
  if (proof) {
    const { index, path } = proof;
    const then = held.at(-1);
    const good = index < then.size && lead(leaves[index], index, then.size, path)?.equals(then.root);
    check(good, "ProofMismatch", given.proof, `it does not lead from entry ${index} to the root of ${then.size}`);
    console.log(`ok: the proof leads from entry ${index} to the root of ${then.size} entries`);
  }
}

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { key: { type: "string", multiple: true }, earlier: { type: "string", multiple: true, default: [] },
      proof: { type: "string" } },
  });
  verify(positionals[0], values.key.map(publicKey), values);
} catch (error) {
  const broken = error instanceof Broken;
  const shown = error.message.replace(/[^ -~]/gu, "?"); // what a log holds must not command the reader's terminal
  console.error(`${broken ? "NOT VERIFIED" : "NOT FOUND OUT"}: ${shown}`);
  process.exitCode = broken ? 1 : 2;
}
