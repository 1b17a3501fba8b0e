"""The as-run record of a run, told from the log and its blobs alone: what took part, under which authority, and when.

Every part is held against the others: the frozen snapshot against the digest that was offered and permitted, the
authority against the permit's, the Policies against theirs. What does not fit is said in ``problems``: a record that
somebody altered, or an erased blob, is never shown as if nothing were wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from triplane.api.authority import Grant
from triplane.api.meta import Material
from triplane.audit.digest import digest_of_json
from triplane.audit.entry import event_id
from triplane.domain.authority import digest_of
from triplane.domain.snapshot import snapshot_digest
from triplane.errors import InvalidInput

Entry = Mapping[str, Any]
ENDS: Final = ("run.finished", "run.lost", "run.revoked")
LONGEST: Final = timedelta(hours=25)
"""Longer than any run may take: what began earlier than so long before a time was over by then."""


@dataclass(frozen=True, slots=True)
class RunEntries:
    """What the log holds of one run."""

    claimed: Entry
    offered: Entry | None
    permitted: Entry | None
    started: Entry | None
    ended: Entry | None
    session: Entry | None
    """``resource.observed`` of the AgentSession."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The blobs those entries name; None: erased, or damaged."""

    spec: Mapping[str, Any] | None
    """Of the AgentSession."""
    facts: Mapping[str, Any] | None
    """What the host measured when the program began."""
    policies: Sequence[Sequence[Any]] | None
    """The Policies that were asked before the permit."""


def ids_of(claimed: Entry) -> dict[str, str]:
    """Which entry to look for under which id, but for the end."""
    uid, run = claimed["subject"]["uid"], claimed["data"]["run"]
    return {
        "offered": event_id("session.offered", uid, 1),
        "permitted": event_id("run.permitted", uid, run, str(claimed["data"]["permit"])),
        "started": event_id("run.started", uid, run),
        "session": event_id("resource.observed", uid, 1),
        **{kind: event_id(kind, uid, run) for kind in ENDS},
    }


def as_run(entries: RunEntries, documents: Documents) -> dict[str, Any]:
    """The record as JSON (docs/reference/gateway-api.md, "As-run records")."""
    claimed, ended = entries.claimed, entries.ended
    offered = entries.offered["data"] if entries.offered is not None else {}
    permitted = entries.permitted["data"] if entries.permitted is not None else {}
    spec = documents.spec or {}
    frozen = [dict(item) for item in spec.get("snapshot") or ()]
    measured = [dict(item) for item in (documents.facts or {}).get("materials") or () if isinstance(item, Mapping)]
    policies = [
        {"role": "policy", "name": f"{each[0]}/{each[1]}", "uid": each[2], "generation": each[3], "digest": each[4],
         "basis": "content"}
        for each in documents.policies or ()
    ]  # fmt: skip
    materials = [*frozen, *measured, *policies]
    data = ended["data"] if ended is not None else {}
    kind = ended["type"] if ended is not None else None
    return {
        "session": {"name": claimed["subject"]["name"], "uid": claimed["subject"]["uid"]},
        "namespace": claimed["subject"]["namespace"],
        "run": claimed["data"]["run"],
        "role": str(offered.get("role", claimed["data"].get("role", ""))).capitalize(),
        "agent": {"name": offered.get("agentName"), "uid": offered.get("agentUid")},
        "taskUid": offered.get("taskUid") or claimed["data"].get("taskUid") or "",
        "graphUid": str(claimed["stream"]).removeprefix("graph/"),
        "model": _name(materials, "model"),
        "tools": _names(materials, "tool"),
        "materials": materials,
        "authority": spec.get("authority"),
        "permit": {
            "counter": claimed["data"]["permit"],
            "seq": None if entries.permitted is None else entries.permitted["seq"],
            **{key: permitted.get(key) for key in ("snapshotDigest", "authorityDigest", "policyDigest")},
        },
        "runner": claimed["data"]["runner"],
        "isolated": (entries.started or {}).get("data", {}).get("isolated"),
        "claimedAt": claimed["time"],
        "startedAt": entries.started["time"] if entries.started is not None else None,
        "endedAt": ended["time"] if ended is not None else None,
        "outcome": data.get("outcome") or (kind.partition(".")[2] if kind is not None else "running"),
        "reason": data.get("reason"),
        "tokens": data["inputTokens"] + data["outputTokens"] if "inputTokens" in data else None,
        "costMinorUnits": data.get("costMinorUnits"),
        "outputs": list(data.get("outputs") or ()),
        "problems": list(_problems(entries, documents)),
    }


def _name(materials: Sequence[Mapping[str, Any]], role: str) -> str | None:
    return next(iter(_names(materials, role)), None)


def _names(materials: Sequence[Mapping[str, Any]], role: str) -> list[str]:
    return [str(item["name"]) for item in materials if item.get("role") == role]


def _problems(entries: RunEntries, documents: Documents) -> list[str]:
    found = []
    permitted = entries.permitted["data"] if entries.permitted is not None else None
    if permitted is None:
        found.append("no permit of this run is in the log")
    if entries.offered is None:
        found.append("no offer of this session is in the log")
    if documents.spec is None:
        found.append("the frozen snapshot is not there any more")
    elif permitted is not None:
        found += _unlike(documents.spec, permitted, entries.offered)
    if documents.policies is None:
        found.append("the list of the Policies that were asked is not there any more")
    elif permitted is not None and documents.policies and _digest(documents.policies) != permitted["policyDigest"]:
        found.append("the Policies are not those the permit rests on")
    if entries.started is not None and documents.facts is None:
        found.append("what the host measured is not there any more")
    return found


def _digest(policies: Sequence[Sequence[Any]]) -> str:
    return digest_of_json([list(each) for each in policies])


def _unlike(spec: Mapping[str, Any], permitted: Mapping[str, Any], offered: Entry | None) -> list[str]:
    found = []
    try:
        snapshot = snapshot_digest([Material.model_validate(item) for item in spec.get("snapshot") or ()])
        authority = digest_of(Grant.model_validate(spec.get("authority") or {}))
    except ValidationError as error:
        return [f"the frozen snapshot cannot be read: {error.errors()[0]['msg']}"]
    if snapshot != permitted["snapshotDigest"]:
        found.append("the frozen snapshot is not the one the permit rests on")
    if offered is not None and offered["data"]["snapshotDigest"] != permitted["snapshotDigest"]:
        found.append("the snapshot that was offered is not the one the permit rests on")
    if spec.get("authority") is not None and authority != permitted["authorityDigest"]:
        found.append("the authority is not the one the permit rests on")
    return found


def moment(text: str) -> datetime:
    """A day (``2026-11-16``, its beginning in UTC) or a time. Raises ``InvalidInput``."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"{text[:64]!r} is no day (2026-11-16) and no time (2026-11-16T09:00:00Z)") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
