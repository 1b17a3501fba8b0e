"""Signs what the log is about to record of a Task, and records the signatures beside it.

Made when the entries are: what a run produced with its ``artifact.recorded``, a verdict with its ``review.recorded``,
an acceptance with its ``task.accepted``, in one append. What stands in the log is not made again, so a crash leaves all
of it or nothing, and at most an envelope in the content store that nobody refers to.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import ValidationError

from triplane.api.meta import Gate, Material
from triplane.audit.attestation import (
    PROVENANCE,
    REVIEW,
    SUMMARY,
    Acceptance,
    Attestation,
    Dependency,
    Party,
    RunStory,
    Subject,
    Verdict,
    attest,
    attestation_id,
    provenance,
    review,
    statement,
    summary,
)
from triplane.audit.digest import digest_of_hex, digest_of_json
from triplane.audit.dsse import Signer
from triplane.audit.entry import body_of, event_id
from triplane.audit.model import EventBody, EventSubject, JsonObject, Recorded
from triplane.controllers.context import Context
from triplane.controllers.judged import Judged, Produced, judge, placed, read_produced
from triplane.controllers.observe import subject_of
from triplane.controllers.task_children import stream_of
from triplane.controllers.task_gather import Gathered
from triplane.domain.events import facts_document
from triplane.domain.quorum import quorum_of
from triplane.domain.redaction import redact_json
from triplane.domain.session import RunView
from triplane.domain.task_facts import RecordArtifacts
from triplane.errors import Conflict

Object = Mapping[str, Any]
Found = Mapping[str, Recorded]
ASKED: Final = "policy/asked"
"""The list of the Policies that were asked at launch: the blob of ``run.permitted``."""
_DECIDED_ON = ("snapshotDigest", "authorityDigest", "policyDigest", "runInputsDigest")


class Attestor:
    """One attestor serves all Tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def append_artifacts(
        self, bodies: Sequence[EventBody], artifacts: Sequence[Object], action: RecordArtifacts, at: Gathered
    ) -> None:
        """Append the entries of a run's Artifacts that are missing, with the provenance of all of them."""
        session, run = action.session, action.run
        permitted = event_id("run.permitted", session.uid, run.run, str(run.permit_counter))
        stated = attestation_id(PROVENANCE, session.uid, run.run)
        found = await self._context.log.get_many([*(body.id for body in bodies), permitted, stated])
        missing = [body for body in bodies if body.id not in found]
        if stated in found or not artifacts:
            if missing:
                await self._context.log.append(missing)
            return
        view = await self._context.sessions.get(session.uid, records=True)
        if view is None:
            raise Conflict(f"session {session.name} is unknown to the store; deciding again")
        segments = [digest for number, _, digest in view.record_digests if number == run.run]
        leave: Object = found[permitted].entry if permitted in found else {"data": {}, "blobs": []}
        decided_on = leave["data"]
        task = at.obj["metadata"]
        story = RunStory(
            task_uid=task["uid"],
            task_name=task["name"],
            namespace=task["namespace"],
            round=action.round,
            run=run.run,
            producer=placed(at, "producer", action.round, session.agent_uid, session.uid),
            decided_on={key: decided_on[key] for key in _DECIDED_ON if key in decided_on},
            dependencies=_dependencies(at.session_objects[session.name], run, leave),
            byproducts=_byproducts(run, segments),
            started_at=run.started_at,
            ended_at=run.ended_at,
        )
        subjects = [
            Subject(item["spec"]["name"], item["spec"]["digest"], item["metadata"]["uid"]) for item in artifacts
        ]
        about = subject_of(at.session_objects[session.name])
        async with self._context.signing.signer() as signer:
            made = self._sign(signer, PROVENANCE, provenance(self._origin, story), subjects, about, run.run, at)
            await self._store([made], at)
            await self._context.log.append([*missing, made.body])

    async def append_verdicts(self, bodies: Sequence[EventBody], at: Gathered) -> None:
        """Append those of the entries that are missing: each verdict on outputs followed by its statement, and an
        acceptance by the statement that rests on them."""
        accepted = next((body for body in bodies if body.type == "task.accepted"), None)
        produced = await read_produced(self._context, at) if any(map(_stated, bodies)) else ()
        judged = None if accepted is None else judge(accepted.data, produced, at)
        wanted = [body.id for body in bodies]
        if accepted is not None and judged is not None:
            wanted += [id_ for id_, _ in _rests_on(accepted.data, judged)]
            wanted += [event_id("review.recorded", uid, 1) for uid in _review_uids(accepted.data)]
        found = await self._context.log.get_many(wanted)
        missing = [body for body in bodies if body.id not in found]
        if not any(_stated(body) for body in missing):
            if missing:
                await self._context.log.append(missing)
            return
        async with self._context.signing.signer() as signer:
            made: list[Attestation] = []
            woven: list[EventBody] = []
            for body in missing:
                if body is accepted and judged is not None:
                    late = self._late_reviews(signer, body.data, produced, made, found, at)
                    made += late
                    woven += [item.body for item in late]
                woven.append(body)
                if _stated(body):
                    made.append(
                        self._accept(signer, body, judged, made, found, at)
                        if judged is not None and body is accepted
                        else self._review(signer, body.data, body.subject, produced, at)
                    )
                    woven.append(made[-1].body)
            await self._store(made, at)
            await self._context.log.append(woven)

    @property
    def _origin(self) -> str:
        return self._context.signing.origin

    def _late_reviews(
        self, signer: Signer, data: JsonObject, produced: Sequence[Produced], made: Sequence[Attestation],
        found: Found, at: Gathered,
    ) -> list[Attestation]:  # fmt: skip
        """Verdicts that were recorded without a statement, by an operator that signed nothing yet."""
        there = {item.body.id for item in made} | found.keys()
        late = []
        for uid in _review_uids(data):
            entry = found.get(event_id("review.recorded", uid, 1))
            if entry is not None and attestation_id(REVIEW, uid, 1) not in there:
                late.append(self._review(signer, entry.entry["data"], body_of(entry.entry).subject, produced, at))
        return late

    def _review(
        self, signer: Signer, data: JsonObject, about: EventSubject, produced: Sequence[Produced], at: Gathered
    ) -> Attestation:
        obj = self._context.index.by_uid(about.uid)
        # Somebody may have deleted it since it was read: only what is judged now can be recorded now.
        round_ = obj["spec"]["round"] if obj is not None else len(at.facts.decisions.rejected) + 1
        judged = judge({**data, "round": round_}, produced, at)
        agent, principal = data.get("reviewerAgentUid"), data.get("reviewerPrincipal")
        if agent is None:
            reviewer = Party(principal, harness_principal=principal)
        else:
            reviewer = placed(at, "reviewer", round_, agent, data.get("reviewSessionUid"))
        said = Verdict(
            uid=about.uid,
            name=about.name,
            verdict=data["verdict"],
            task_uid=at.obj["metadata"]["uid"],
            round=round_,
            reviewer=reviewer,
            producer=judged.producer,
            made_at=_made_at(obj),
        )
        return self._sign(signer, REVIEW, review(self._origin, said), judged.subjects(data), about, 1, at)

    def _accept(
        self, signer: Signer, body: EventBody, judged: Judged, made: Sequence[Attestation], found: Found, at: Gathered
    ) -> Attestation:
        data, round_ = body.data, body.data["round"]
        quorum = quorum_of(at.facts, round_)
        digests = {item.body.id: item.digest for item in made} | {
            id_: entry.entry["data"]["envelopeDigest"]
            for id_, entry in found.items()
            if entry.entry["type"] == "attestation.recorded"
        }
        reviews = (self._context.index.by_uid(uid) for uid in _review_uids(data))
        accepted = Acceptance(
            task_uid=body.subject.uid,
            round=round_,
            reviewers=quorum.policy.reviewers,
            people=quorum.asks_people,
            agents=quorum.asks_agents,
            spec_digest=digest_of_json(redact_json(at.obj["spec"])),
            rests_on=[(id_, digests[id_]) for id_, _ in _rests_on(data, judged) if id_ in digests],
            decided_at=max((time for obj in reviews if (time := _made_at(obj)) is not None), default=None),
        )
        predicate = summary(self._origin, accepted)
        return self._sign(signer, SUMMARY, predicate, judged.subjects(data), body.subject, round_, at)

    def _sign(
        self, signer: Signer, kind: str, predicate: Mapping[str, Any], subjects: Sequence[Subject],
        about: EventSubject, n: int, at: Gathered,
    ) -> Attestation:  # fmt: skip
        payload = statement(self._origin, subjects, kind, predicate)
        return attest(payload, kind, signer, about=about, n=n, stream=stream_of(at), subjects=subjects)

    async def _store(self, made: Sequence[Attestation], at: Gathered) -> None:
        """Before the entries: none names a blob that was not stored. Whoever may read the namespace may read them."""
        namespace = at.obj["metadata"]["namespace"]

        async def put(item: Attestation) -> None:
            await self._context.content.store(item.octets, expect=item.digest)
            await self._context.sessions.own_blob(namespace, item.digest)

        await asyncio.gather(*(put(item) for item in made))


def _stated(body: EventBody) -> bool:
    """Whether a statement goes with the entry."""
    outputs = body.data.get("gate", Gate.OUTPUTS.value) == Gate.OUTPUTS.value
    return body.type == "task.accepted" or (body.type == "review.recorded" and outputs)


def _review_uids(data: JsonObject) -> list[str]:
    """The Reviews an acceptance names."""
    return [item["reviewUid"] for item in data.get("reviews") or (data,)]


def _rests_on(data: JsonObject, judged: Judged) -> list[tuple[str, str]]:
    """``(event id, type)`` of every statement an acceptance rests on."""
    runs = [(attestation_id(PROVENANCE, session, run), PROVENANCE) for session, run in judged.runs]
    return runs + [(attestation_id(REVIEW, uid, 1), REVIEW) for uid in _review_uids(data)]


def _dependencies(session: Object, run: RunView, leave: Object) -> list[Dependency]:
    """The as-run record: what was frozen, what the host measured, and which Policies were asked."""
    measured = run.facts.get("materials")
    lines = [*(session["spec"].get("snapshot") or ()), *(measured if isinstance(measured, list) else ())]
    found = [
        Dependency(f"{item.role}/{item.name}", item.role, item.basis.value, item.digest, item.uid, item.generation)
        for item in _materials(lines)
    ]
    return [*found, *(Dependency(ASKED, "policy", "content", digest) for digest in leave["blobs"])]


def _materials(lines: Sequence[Any]) -> Iterator[Material]:
    """What a host reports without being one is told by the digest of its report alone (``_byproducts``)."""
    for line in lines:
        with suppress(ValidationError):
            yield Material.model_validate(line)


def _byproducts(run: RunView, segments: Sequence[str]) -> list[tuple[str, str]]:
    """Reflection, journal and what the host measured. The journal's digest is the SHA-256 of the digests of its
    segments, one a line."""
    found = []
    if run.result is not None and run.result.reflection is not None:
        found.append(("reflection", run.result.reflection))
    if segments:
        lines = "".join(f"{digest}\n" for digest in segments)
        found.append(("journal", digest_of_hex(hashlib.sha256(lines.encode()).hexdigest())))
    if run.facts:
        found.append(("measured", digest_of_hex(hashlib.sha256(facts_document(run)).hexdigest())))
    return found


def _made_at(obj: Object | None) -> str | None:
    """When an object was made, by the API server's clock."""
    return None if obj is None else obj["metadata"].get("creationTimestamp")
