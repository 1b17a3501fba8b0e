"""Is this artifact what was produced, reviewed by somebody else, and accepted? Answered in numbered steps from signed
statements, the log entries that record them, and the keys one trusts: no network, no clock, no database.

Nothing is taken for granted because it is missing: a step that finds no answer has failed. What the entries prove is
only as sure as where they came from; read in the log itself, or beside a proof that they are in it, they are the log's.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from triplane.audit import dsse
from triplane.audit.attestation import (
    BUILD_TYPE,
    EVENT,
    PAYLOAD_TYPE,
    PROVENANCE,
    REVIEW,
    SUMMARY,
    object_uri,
    operator_uri,
    read_statement,
    run_uri,
)
from triplane.audit.digest import digest_of_bytes
from triplane.audit.entry import event_id, parse
from triplane.audit.evidence import Case, Entry, Evidence, Object, Refused, Stated, Step
from triplane.errors import InvalidInput


def verify(evidence: Evidence) -> list[Step]:
    """Every step in order. Behind the first that fails none is reached; all went well when none is ``ok=False`` and
    the last but one is ``ok=True`` (``holds``)."""
    case, steps = Case(evidence), []
    failed = False
    for number, (name, check) in enumerate(STEPS, 1):
        if failed:
            steps.append(Step(number, name, None, "not reached"))
            continue
        try:
            found = check(case)
        except (Refused, InvalidInput) as error:
            failed = True
            steps.append(Step(number, name, False, str(error)))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            # Something is not where a statement or an entry must have it: no approval, and no crash of the verifier.
            failed = True
            steps.append(Step(number, name, False, f"a field is missing or malformed: {type(error).__name__} {error}"))
        else:
            steps.append(Step(number, name, None if found is None else True, found or "nothing to look at"))
    return steps


def holds(steps: Sequence[Step]) -> bool:
    """Whether everything that must be shown was shown."""
    shown = {step.name for step in steps if step.ok}
    return all(step.ok is not False for step in steps) and shown >= {name for name, _ in STEPS if name != CONTENT}


def _entries(case: Case) -> str:
    """1. The entries are entries of the log of this installation, and tell of this artifact and its acceptance."""
    for seq, octets in case.evidence.entries.items():
        entry = parse(octets)
        if entry["origin"] != case.origin:
            raise Refused(f"entry {seq} is of the log {entry['origin']}, not of {case.origin}")
        if entry["seq"] != seq:
            raise Refused(f"entry {entry['seq']} was given as entry {seq}")
        if entry["id"] in case.by_id:
            raise Refused(f"entries {case.by_id[entry['id']].seq} and {seq} have one id, {entry['id']}")
        case.by_id[entry["id"]] = Entry(seq, entry)
    uid, digest = case.evidence.artifact_uid, case.evidence.digest
    found = [item for item in _of(case, "artifact.recorded") if item.entry["subject"]["uid"] == uid]
    if len(found) != 1:
        raise Refused(f"{len(found)} entries record artifact {uid}, not one")
    case.artifact = found[0]
    if case.artifact.data["digest"] != digest:
        raise Refused(f"artifact {uid} was recorded as {case.artifact.data['digest']}, not {digest}")
    known = {**case.artifact.entry["subject"], "output": case.artifact.data["output"]}
    for key, value in case.evidence.named.items():
        _same(f"{key} of the artifact", value, known.get(key))
    subject = {"name": case.artifact.data["output"], "digest": digest}
    accepted = [item for item in _of(case, "task.accepted") if subject in item.data["subjects"]]
    if len(accepted) != 1:
        raise Refused(f"{len(accepted)} entries accept output {subject['name']} {digest}, not one: it is not accepted")
    case.accepted = accepted[0]
    return f"artifact recorded as entry {case.artifact.seq}, accepted as entry {case.accepted.seq}"


def _complete(case: Case) -> str:
    """2. The statements that must be there are there, as the log has them."""
    for id_, kind in _wanted(case):
        recorded = case.by_id.get(id_)
        if recorded is None or recorded.entry["type"] != EVENT:
            raise Refused(f"there is no {_word(kind)}: no entry {id_}")
        if recorded.data["predicateType"] != kind:
            raise Refused(f"entry {recorded.seq} records a {recorded.data['predicateType']}, not a {kind}")
        digest = recorded.data["envelopeDigest"]
        octets = case.evidence.envelopes.get(digest)
        if octets is None:
            raise Refused(f"the {_word(kind)} {digest} of entry {recorded.seq} is not here")
        if digest_of_bytes(octets) != digest:
            raise Refused(f"the {_word(kind)} of entry {recorded.seq} is {digest_of_bytes(octets)}, not {digest}")
        case.raw[id_] = recorded, octets
    return f"1 provenance, {len(case.review_uids)} review(s), 1 acceptance"


def _signed(case: Case) -> str:
    """3. Each is signed, as an in-toto Statement, by a key that was to sign when it was logged."""
    keys = set()
    for id_, kind in _wanted(case):
        recorded, octets = case.raw[id_]
        envelope = dsse.parse(octets)
        by = dsse.signed_by(envelope, PAYLOAD_TYPE, case.evidence.trust.keys)
        if not by:
            raise Refused(f"the {_word(kind)} of entry {recorded.seq} is not signed by any trusted key")
        valid = [key for key in by if key.covers(recorded.seq)]
        if not valid:
            when = "before it was created" if recorded.seq <= by[0].created else "after it was retired"
            raise Refused(f"the {_word(kind)} of entry {recorded.seq} was signed by key {by[0].key_id} {when}")
        document = read_statement(envelope)
        if document["predicateType"] != kind:
            raise Refused(f"entry {recorded.seq} says {kind}, what was signed is a {document['predicateType']}")
        digest = recorded.data["envelopeDigest"]
        case.stated[id_] = Stated(recorded, digest, document["predicate"], document["subject"], valid[0].key_id)
        keys.add(valid[0].key_id[:16])
    return f"{len(case.stated)} statements by key {', '.join(sorted(keys))}"


def _about(case: Case) -> str:
    """4. Each is about this artifact: its digest, and the object that it is."""
    uri, name = object_uri(case.origin, case.evidence.artifact_uid), case.produced.data["output"]
    wanted = {"name": name, "uri": uri, "digest": {"sha256": case.evidence.digest.removeprefix("sha256:")}}
    for id_, kind in _wanted(case):
        stated = case.stated[id_]
        if not any(all(item.get(key) == value for key, value in wanted.items()) for item in stated.subjects):
            about = ", ".join(
                f"{item.get('name')} {(item.get('digest') or {}).get('sha256')}" for item in stated.subjects
            )
            raise Refused(f"the {_word(kind)} is not about {name} {case.evidence.digest} ({uri}), but about {about}")
    return f"output {name}, {case.evidence.digest}"


def _produced(case: Case) -> str:
    """5. The provenance is the operator's, of the run and the Task that the log says."""
    predicate, data = case.provenance.predicate, case.produced.data
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    _same("builder", details["builder"]["id"], operator_uri(case.origin))
    _same("build type", definition["buildType"], BUILD_TYPE)
    _same("run", details["metadata"]["invocationId"], run_uri(case.origin, data["sessionUid"], data["run"]))
    _same("namespace", definition["externalParameters"]["namespace"], case.produced.entry["subject"]["namespace"])
    _same("task", definition["externalParameters"]["task"]["uri"], _task(case))
    _same("round", definition["externalParameters"]["round"], case.acceptance.data["round"])
    producer = definition["internalParameters"]["producer"]
    _same("session", producer["session"], object_uri(case.origin, data["sessionUid"]))
    task = f"{definition['externalParameters']['namespace']}/{definition['externalParameters']['task']['name']}"
    return f"run {data['run']} of session {data['sessionUid']} by agent {producer['agentName']}, for Task {task}"


def _reviewed(case: Case) -> str:
    """6. Each review approves, of this Task and round and producer, as the log says; on every output accepted."""
    producer = case.provenance.predicate["buildDefinition"]["internalParameters"]["producer"]
    for uid, stated in zip(case.review_uids, case.reviews, strict=True):
        said = stated.predicate
        _same("recorder", said["recordedBy"]["id"], operator_uri(case.origin))
        _same("review", said["review"]["uri"], object_uri(case.origin, uid))
        _same(f"verdict of review {uid}", said["verdict"], "Approve")
        _same("task", said["task"]["uri"], _task(case))
        _same("round", said["round"], case.acceptance.data["round"])
        _same("producer", said["producer"], producer)
        _same("outputs reviewed", _pairs(stated.subjects), _logged_pairs(case.acceptance.data))
        recorded = case.by_id.get(event_id("review.recorded", uid, 1))
        if recorded is None:
            raise Refused(f"the log records no review {uid}")
        _same("logged verdict", recorded.data["verdict"], "Approve")
        _same("logged reviewer", recorded.data["reviewerPrincipal"], said["reviewer"]["principal"])
        _same("logged outputs", _logged_pairs(recorded.data), _pairs(stated.subjects))
    return ", ".join(f"{item.predicate['review']['name']} approves" for item in case.reviews)


def _independent(case: Case) -> str:
    """7. No reviewer is the producer, or another reviewer, in Agent, session or controlling user."""
    producer = case.provenance.predicate["buildDefinition"]["internalParameters"]["producer"]
    panel = [(item.predicate["review"]["name"], item.predicate["reviewer"]) for item in case.reviews]
    for number, (name, reviewer) in enumerate(panel):
        if why := _dependent(reviewer, producer):
            raise Refused(f"review {name} is not independent of the producer: {why}")
        for other, member in panel[:number]:
            if why := _dependent(reviewer, member):
                raise Refused(f"review {name} is not independent of review {other}: {why}")
    return "agents, sessions and controlling users differ"


def _accepted(case: Case) -> str:
    """8. The acceptance is the operator's, rests on these statements, and they are as many as were asked for."""
    said = case.summary.predicate
    _same("verifier", said["verifier"]["id"], operator_uri(case.origin))
    _same("verification result", said["verificationResult"], "PASSED")
    _same("resource", said["resourceUri"], f"{_task(case)}#round-{case.acceptance.data['round']}")
    _same("outputs accepted", _pairs(case.summary.subjects), _logged_pairs(case.acceptance.data))
    inputs = {"sha256:" + item["digest"]["sha256"] for item in said["inputAttestations"]}
    for stated in (case.provenance, *case.reviews):
        if stated.digest not in inputs:
            raise Refused(f"the acceptance does not rest on statement {stated.digest} of entry {stated.recorded.seq}")
    asked = parse_qs(urlsplit(said["policy"]["uri"]).query, strict_parsing=True)
    reviewers, agents, people = (asked[name][0] for name in ("reviewers", "agents", "people"))
    kinds = [item.predicate["reviewer"]["kind"] for item in case.reviews]
    if len(kinds) < max(1, int(reviewers)):
        raise Refused(f"{reviewers} reviewers were asked for, {len(kinds)} approved")
    for kind, wanted in (("Agent", agents), ("Person", people)):
        if wanted not in ("true", "false"):
            raise Refused(f"the acceptance does not say whether a reviewer had to be a {kind}")
        if wanted == "true" and kind not in kinds:
            raise Refused(f"a {kind} had to be among the reviewers, and none was")
    return f"{len(kinds)} of {reviewers} reviewers approved"


def _in_order(case: Case) -> str:
    """9. First the work was logged, then each review, then the acceptance."""
    decided = case.acceptance.seq
    made = max(case.produced.seq, case.provenance.recorded.seq)
    for uid, stated in zip(case.review_uids, case.reviews, strict=True):
        for what, seq in (
            ("review", case.by_id[event_id("review.recorded", uid, 1)].seq),
            ("statement of review", stated.recorded.seq),
        ):
            if seq <= made:
                raise Refused(f"{what} {uid} is entry {seq}, before the work it judges (entry {made})")
            if seq >= decided:
                raise Refused(f"{what} {uid} is entry {seq}, after the acceptance (entry {decided})")
    if case.summary.recorded.seq <= decided:
        raise Refused(f"the statement of acceptance is entry {case.summary.recorded.seq}, before entry {decided}")
    return f"entries {made} < {', '.join(str(item.recorded.seq) for item in case.reviews)} < {decided}"


def _content(case: Case) -> str | None:
    """10. The content at hand is the artifact's."""
    if case.evidence.content is None:
        return None
    _same("content", case.evidence.content, case.evidence.digest)
    return case.evidence.content


CONTENT: Final = "content"
STEPS: Final[tuple[tuple[str, Callable[[Case], str | None]], ...]] = (
    ("log entries", _entries),
    ("statements", _complete),
    ("signatures", _signed),
    ("subject", _about),
    ("provenance", _produced),
    ("reviews", _reviewed),
    ("independence", _independent),
    ("acceptance", _accepted),
    ("order", _in_order),
    (CONTENT, _content),
)
"""In this order; only the content need not be at hand."""


def _wanted(case: Case) -> list[tuple[str, str]]:
    reviews = [(id_, REVIEW) for id_ in case.review_ids]
    if not reviews:
        raise Refused("the acceptance names no review")
    if len(set(reviews)) != len(reviews):
        raise Refused("the acceptance names a review twice")
    return [(case.provenance_id, PROVENANCE), *reviews, (case.summary_id, SUMMARY)]


def _dependent(one: Object, other: Object) -> str | None:
    """Why these two are not independent (``triplane.domain.eligibility``); None if they are."""
    for party in (one, other):
        if not party.get("principal") or not (party.get("harnessPrincipal") or party.get("kind") == "Person"):
            return "a controlling user is not recorded"
    for what in ("agent", "session"):
        if one.get(what) is not None and one.get(what) == other.get(what):
            return f"the {what} is the same, {one[what]}"
    if one["principal"] == other["principal"]:
        return f"the same user controls both, {one['principal']}"
    if one["principal"] == other.get("harnessPrincipal") or one.get("harnessPrincipal") == other["principal"]:
        return "the user of one controls the Harness of the other"
    return None


def _of(case: Case, kind: str) -> list[Entry]:
    return [item for item in case.by_id.values() if item.entry["type"] == kind]


def _task(case: Case) -> str:
    return object_uri(case.origin, case.acceptance.entry["subject"]["uid"])


def _pairs(subjects: Sequence[Object]) -> list[tuple[str, str]]:
    return sorted((item["name"], "sha256:" + item["digest"]["sha256"]) for item in subjects)


def _logged_pairs(data: Object) -> list[tuple[str, str]]:
    return sorted((item["name"], item["digest"]) for item in data["subjects"])


def _same(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise Refused(f"{what}: {found!r} where {wanted!r} is wanted")


def _word(kind: str) -> str:
    return {PROVENANCE: "provenance", REVIEW: "review statement", SUMMARY: "acceptance statement"}[kind]
