"""The lineage of an artifact: digest → artifact → task → session → run → inputs → review → as-run record.

Assembled from records that outlive their objects, so it is the same before and after ``kubectl delete``. What is not
known is said (``null``), never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from triplane.domain.runorder import order_of_run
from triplane.domain.session import RunView, SessionView


class Thing(Protocol):
    """A resource as kept by the graph store."""

    @property
    def uid(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def spec(self) -> Mapping[str, Any]: ...
    @property
    def requester(self) -> str | None: ...
    @property
    def seq(self) -> int: ...
    @property
    def gone(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Another artifact with the digest of an input: where that input came from."""

    artifact: Thing
    task: Thing | None


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A Review of the artifact, with who reviewed."""

    review: Thing
    agent: Thing | None
    session: SessionView | None
    data: Mapping[str, Any]
    """Data of the ``reviews`` edge: verdict and the digest it is bound to."""


@dataclass(frozen=True, slots=True)
class LineageFacts:
    """Everything gathered about one artifact."""

    artifact: Thing
    task: Thing | None = None
    node: Thing | None = None
    graph: Thing | None = None
    session: Thing | None = None
    agent: Thing | None = None
    execution: SessionView | None = None
    consumed: Sequence[tuple[str, str]] = ()
    """(name, digest) of the session's ``consumes`` edges."""
    origins: Mapping[str, Sequence[Origin]] = field(default_factory=dict)
    """By digest of an input, or of a part of one."""
    composed: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    """By digest of an input that was made of several outputs: (digest, data of its edge) of each part."""
    reviews: Sequence[Reviewed] = ()


def lineage(facts: LineageFacts) -> dict[str, Any]:
    """The lineage as JSON; its shape is documented in docs/reference/gateway-api.md ("Lineage")."""
    artifact = facts.artifact
    run = _run(facts.execution, artifact.spec.get("run"))
    return {
        "digest": artifact.spec.get("digest"),
        "artifact": {
            **_reference(artifact),
            "output": artifact.spec.get("name"),
            "mediaType": artifact.spec.get("mediaType"),
            "size": artifact.spec.get("size"),
            "round": artifact.spec.get("round"),
        },
        "graph": _optional(facts.graph),
        "node": _optional(facts.node),
        "task": _optional(facts.task) or _declared(artifact.spec.get("taskRef"), "Task"),
        "session": _session(facts),
        "run": _run_document(run, artifact.spec.get("run")),
        "inputs": _inputs(facts),
        "reviews": [_review(item, artifact.spec.get("digest")) for item in facts.reviews],
        "asRun": _as_run(facts.session, run),
    }


def material_digests(
    artifact: Thing, execution: SessionView | None, consumed: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], None]:
    """(name, digest) of each input, first seen first: the artifact's materials, the work order, the edges."""
    found: dict[tuple[str, str], None] = {}
    for item in artifact.spec.get("materials") or ():
        found[(item["name"], item["digest"])] = None
    run = _run(execution, artifact.spec.get("run"))
    if execution is not None and run is not None:
        for item in order_of_run(execution.offer, run.run, run.run_inputs).get("inputs") or ():
            found[(item["name"], item["digest"])] = None
    for pair in consumed:
        found[pair] = None
    return found


def _inputs(facts: LineageFacts) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "digest": digest,
            "producedBy": _produced_by(facts, digest),
            "composedOf": [
                {
                    "digest": source,
                    **{key: data.get(key) for key in ("merge", "step", "output", "path", "to", "taskUid")},
                    "producedBy": _produced_by(facts, source),
                }
                for source, data in facts.composed.get(digest, ())
                if data.get("input") == name
            ],
        }
        for name, digest in material_digests(facts.artifact, facts.execution, facts.consumed)
    ]


def _produced_by(facts: LineageFacts, digest: str) -> list[dict[str, Any]]:
    return [{**_reference(item.artifact), "task": _optional(item.task)} for item in facts.origins.get(digest, ())]


def _session(facts: LineageFacts) -> dict[str, Any] | None:
    offer = facts.execution.offer if facts.execution is not None else None
    if facts.session is not None:
        shown = _reference(facts.session)
    elif offer is not None:
        shown = {
            "kind": "AgentSession",
            "namespace": offer.namespace,
            "name": offer.name,
            "uid": offer.session_uid,
        }
    else:
        return _declared(facts.artifact.spec.get("sessionRef"), "AgentSession")
    return {
        **shown,
        "role": offer.role if offer is not None else None,
        "snapshotDigest": offer.snapshot_digest if offer is not None else None,
        "agent": _agent(facts.agent)
        or ({"name": offer.agent_name, "uid": offer.agent_uid} if offer is not None else None),
    }


def _run(execution: SessionView | None, number: Any) -> RunView | None:
    runs = execution.runs if execution is not None else ()
    return next((run for run in runs if run.run == number), None)


def _run_document(run: RunView | None, number: Any) -> dict[str, Any] | None:
    if run is None:
        return {"run": number} if isinstance(number, int) else None
    result = run.result
    return {
        "run": run.run,
        "state": run.state.value,
        "runner": run.runner,
        "permit": run.permit_counter,
        "claimedAt": run.claimed_at,
        "startedAt": run.started_at,
        "endedAt": run.ended_at,
        "outcome": result.outcome.value if result is not None else None,
        "reason": result.reason if result is not None else run.end_reason,
        "exitCode": result.exit_code if result is not None else None,
        "reflection": result.reflection if result is not None else None,
        "tokens": result.usage.tokens if result is not None else None,
        "costMinorUnits": result.usage.cost_minor_units if result is not None else None,
        "findings": list(run.run_inputs.get("findings") or ()),
        "isolated": run.facts.get("isolated"),
    }


def _review(item: Reviewed, digest: Any) -> dict[str, Any]:
    """A verdict counts only for the digest it names: ``bound`` says whether this one is."""
    spec = item.review.spec
    subjects = {subject["digest"] for subject in spec.get("subjects") or ()}
    return {
        **_reference(item.review),
        "verdict": spec.get("verdict"),
        "round": spec.get("round"),
        "findings": list(spec.get("findings") or ()),
        "bound": digest in subjects,
        "reviewer": _agent(item.agent) or spec.get("agentRef"),
        "session": spec.get("sessionRef"),
        "person": spec.get("sessionRef") is None,
        "runner": _last_runner(item.session),
    }


def _last_runner(session: SessionView | None) -> str | None:
    run = session.last_run if session is not None else None
    return run.runner if run is not None else None


def _as_run(session: Thing | None, run: RunView | None) -> list[dict[str, Any]]:
    """The frozen snapshot, then what the host measured at start; each line says what its digest rests on."""
    frozen = session.spec.get("snapshot") if session is not None else None
    measured = run.facts.get("materials") if run is not None else None
    return [
        *({**item, "known": "frozen"} for item in frozen or ()),
        *({**item, "known": "measured"} for item in measured or () if isinstance(item, Mapping)),
    ]


def _agent(agent: Thing | None) -> dict[str, Any] | None:
    """An Agent with its controlling principal (the id; the name is not kept here)."""
    if agent is None:
        return None
    return {
        "name": agent.name,
        "uid": agent.uid,
        "generation": agent.generation,
        "principal": agent.requester,
    }


def _optional(thing: Thing | None) -> dict[str, Any] | None:
    return None if thing is None else _reference(thing)


def _declared(reference: Any, kind: str) -> dict[str, Any] | None:
    """A reference whose object the graph store does not have."""
    if not isinstance(reference, Mapping):
        return None
    return {"kind": kind, "name": reference.get("name"), "uid": reference.get("uid")}


def _reference(thing: Thing) -> dict[str, Any]:
    return {
        "kind": thing.kind,
        "namespace": thing.namespace,
        "name": thing.name,
        "uid": thing.uid,
        "generation": thing.generation,
        "principal": thing.requester,
        "seq": thing.seq,
        "gone": thing.gone,
    }
