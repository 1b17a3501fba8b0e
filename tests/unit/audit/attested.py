"""An accepted artifact over memory stores, and everything there is to show for it; and ways to forge what is shown."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from tests.unit.controllers.memory_world import MemoryWorld
from tests.unit.controllers.people import to_end, world

from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.audit import dsse
from triplane.audit.attestation import PAYLOAD_TYPE, PROVENANCE, REVIEW, SUMMARY
from triplane.audit.digest import digest_of_bytes
from triplane.audit.dsse import Signer
from triplane.audit.entry import body_of, parse, prepare, seal_all
from triplane.audit.evidence import Evidence, Step
from triplane.audit.keys import KEY_EVENTS, TrustBundle, keys_of
from triplane.audit.model import EventFilter
from triplane.audit.verification import verify

OPERATOR = MemorySigner(b"triplane 1")
"""The key the reconcilers over memory stores sign with."""
SHOWN = frozenset({"artifact.recorded", "attestation.recorded", "review.recorded", "task.accepted"})
Change = Callable[[dict[str, Any]], None]


async def blob(made: MemoryWorld, digest: str) -> bytes:
    return b"".join([chunk async for chunk in made.content.resolve(digest)])


async def trust_of(made: MemoryWorld) -> TrustBundle:
    return TrustBundle(made.log.origin, keys_of(await made.log.query(EventFilter(types=KEY_EVENTS))))


async def shown(made: MemoryWorld) -> Evidence:
    """What the log and the content store hold of the first Artifact."""
    entries = await made.log.query(EventFilter(types=SHOWN), limit=1000)
    artifact = made.server.of("Artifact")[0]
    stated = [item for item in entries if item.entry["type"] == "attestation.recorded"]
    digests = [item.entry["data"]["envelopeDigest"] for item in stated]
    return Evidence(
        artifact_uid=artifact["metadata"]["uid"],
        digest=artifact["spec"]["digest"],
        entries={item.seq: item.octets for item in entries},
        envelopes={digest: await blob(made, digest) for digest in digests},
        trust=await trust_of(made),
        content=digest_of_bytes(await blob(made, artifact["spec"]["digest"])),
    )


async def accepted(*people: str, **task: Any) -> Evidence:
    """Of a Task that ran to its end, with these people's help."""
    made = world(**task)
    await to_end(made, *people)
    return await shown(made)


def failed(steps: list[Step]) -> tuple[str, str]:
    """Name and words of the step that failed."""
    found = [(step.name, step.found) for step in steps if step.ok is False]
    assert len(found) == 1, steps
    return found[0]


def refused(evidence: Evidence) -> tuple[str, str]:
    return failed(verify(evidence))


@dataclass
class Forger:
    """Somebody who writes envelopes and hands over entries as they please, with whatever key they have."""

    evidence: Evidence

    def place_of(self, kind: str, number: int = 0) -> int:
        """The sequence number of the entry that records the so-manieth statement of this type."""
        return sorted(
            seq
            for seq, octets in self.evidence.entries.items()
            if parse(octets)["type"] == "attestation.recorded" and parse(octets)["data"]["predicateType"] == kind
        )[number]

    def seq_of(self, type_: str, number: int = 0) -> int:
        return sorted(seq for seq, octets in self.evidence.entries.items() if parse(octets)["type"] == type_)[number]

    def statement(self, kind: str, number: int = 0) -> dict[str, Any]:
        return dict(orjson.loads(self.envelope(kind, number).payload))

    def envelope(self, kind: str, number: int = 0) -> dsse.Envelope:
        digest = parse(self.evidence.entries[self.place_of(kind, number)])["data"]["envelopeDigest"]
        return dsse.parse(self.evidence.envelopes[digest])

    def replace_entry(self, seq: int, change: Change, *, at: int | None = None) -> None:
        """An entry with other data, well formed, at its place or another."""
        entry = parse(self.evidence.entries[seq])
        change(entry)
        entries = dict(self.evidence.entries)
        del entries[seq]
        place = seq if at is None else at
        entries[place] = _sealed(self.evidence.trust.origin, entry, place)
        self.evidence = replace(self.evidence, entries=entries)

    def move(self, seq: int, at: int) -> None:
        self.replace_entry(seq, lambda entry: None, at=at)

    def put(self, kind: str, octets: bytes, number: int = 0) -> None:
        """Another envelope in place of one, and the entry that records it."""
        digest = digest_of_bytes(octets)

        def change(entry: dict[str, Any]) -> None:
            entry["data"] = {**entry["data"], "envelopeDigest": digest}
            entry["blobs"] = [digest]

        self.replace_entry(self.place_of(kind, number), change)
        self.evidence = replace(self.evidence, envelopes={**self.evidence.envelopes, digest: octets})

    def restate(self, kind: str, change: Change, number: int = 0, *, signer: Signer = OPERATOR) -> None:
        """A changed statement, signed; an acceptance that rested on the old one rests on the new."""
        old = parse(self.evidence.entries[self.place_of(kind, number)])["data"]["envelopeDigest"]
        document = self.statement(kind, number)
        change(document)
        octets = dsse.seal(PAYLOAD_TYPE, orjson.dumps(document, option=orjson.OPT_SORT_KEYS), signer)
        self.put(kind, octets, number)
        if kind != SUMMARY:
            self.restate(SUMMARY, lambda said: rest_on(said, old, digest_of_bytes(octets)))

    def resign(self, kind: str, signatures: list[dict[str, str]], number: int = 0) -> None:
        """The same payload with other signatures; an acceptance rests on what it rested on."""
        envelope = self.envelope(kind, number)
        document = {
            "payload": base64.b64encode(envelope.payload).decode(),
            "payloadType": envelope.payload_type,
            "signatures": signatures,
        }
        old = parse(self.evidence.entries[self.place_of(kind, number)])["data"]["envelopeDigest"]
        octets = orjson.dumps(document)
        self.put(kind, octets, number)
        if kind != SUMMARY:
            self.restate(SUMMARY, lambda said: rest_on(said, old, digest_of_bytes(octets)))

    def trusting(self, bundle: TrustBundle) -> Evidence:
        return replace(self.evidence, trust=bundle)


def signature(signer: Signer, envelope: dsse.Envelope, keyid: str | None = None) -> dict[str, str]:
    octets = signer.sign(dsse.pae(envelope.payload_type, envelope.payload))
    return {"keyid": signer.key_id if keyid is None else keyid, "sig": base64.b64encode(octets).decode()}


def rest_on(said: dict[str, Any], old: str, new: str) -> None:
    for item in said["predicate"]["inputAttestations"]:
        if item["digest"]["sha256"] == old.removeprefix("sha256:"):
            item["digest"]["sha256"] = new.removeprefix("sha256:")


def _sealed(origin: str, entry: Mapping[str, Any], seq: int) -> bytes:
    time = f"{datetime(2026, 1, 1, tzinfo=UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    return seal_all([prepare(origin, body_of(entry))], seq, entry["prev"], time)[0].octets


KINDS = (PROVENANCE, REVIEW, SUMMARY)
