"""What a Task's status asks of people, and the Review that answers it.

Read off the status alone, so that a person who writes the Review by hand names the same things.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import Gate
from triplane.api.text import API_VERSION
from triplane.domain.conditions import condition
from triplane.errors import NotFound

Object = Mapping[str, Any]
_NAME_ROOM = 40


@dataclass(frozen=True, slots=True)
class Asking:
    """A gate that waits for people."""

    gate: Gate
    round: int
    people: tuple[str, ...]
    """Who may answer."""
    subjects: tuple[tuple[str, str], ...]
    """``(name, digest)`` of what exactly is judged."""
    message: str
    since: str | None = None
    until: str | None = None
    approved: tuple[str, ...] = ()
    """Who has approved already."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "gate": self.gate.value,
            "round": self.round,
            "people": list(self.people),
            "subjects": [{"name": name, "digest": digest} for name, digest in self.subjects],
            "message": self.message,
            "since": self.since,
            "until": self.until,
            "approved": list(self.approved),
        }


def askings(task: Object) -> tuple[Asking, ...]:
    """What waits for people now."""
    status = task.get("status") or {}
    found = []
    if (gate := status.get("approval")) is not None:
        waiting = condition(status, "WaitingForApproval") or {}
        found.append(
            Asking(
                gate=Gate(gate["gate"]),
                round=status.get("round", 1),
                people=tuple(gate.get("people") or ()),
                subjects=tuple((item["name"], item["digest"]) for item in gate["subjects"]),
                message=str(waiting.get("message", "")),
                since=gate.get("since"),
                until=gate.get("until"),
            )
        )
    people = (task["spec"].get("review") or {}).get("people") or ()
    if people and status.get("state") == "reviewing":
        reviewed = condition(status, "Reviewed") or {}
        approved = tuple(status.get("approvals") or ())
        found.append(
            Asking(
                gate=Gate.OUTPUTS,
                round=status.get("round", 1),
                people=tuple(name for name in people if name not in approved),
                subjects=tuple((item["name"], item["digest"]) for item in status.get("outputs") or ()),
                message=str(reviewed.get("message", "")),
                since=reviewed.get("lastTransitionTime"),
                approved=approved,
            )
        )
    return tuple(found)


def choose(task: Object, gate: Gate | None, round_: int | None) -> Asking:
    """The one that is meant; raises ``NotFound`` saying what waits instead."""
    name, found = task["metadata"]["name"], askings(task)
    fit = [item for item in found if gate in (None, item.gate) and round_ in (None, item.round)]
    if fit:
        return fit[0]
    if found:
        waits = " and ".join(f"gate {item.gate.value} of round {item.round}" for item in found)
        raise NotFound(f"Task {name} asks people for something else: {waits} (`triplane review show {name}`)")
    raise NotFound(f"Task {name} asks people for nothing now; `triplane why task/{name}` says how it stands")


def manifest(task: Object, asking: Asking, verdict: str, findings: Sequence[str]) -> dict[str, Any]:
    """The Review; the API server gives it a name and writes down whose it is."""
    metadata = task["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "Review",
        "metadata": {
            "generateName": f"{metadata['name'][:_NAME_ROOM].rstrip('.-')}-{verdict.lower()}-",
            "namespace": metadata["namespace"],
        },
        "spec": {
            "taskRef": {"name": metadata["name"], "uid": metadata["uid"]},
            "gate": asking.gate.value,
            "round": asking.round,
            "verdict": verdict,
            "subjects": [{"name": name, "digest": digest} for name, digest in asking.subjects],
            "findings": list(findings),
        },
    }


_SAID = ("is ", "was ", "carries ", "decides ", "gives ", "answers ")


def remark(task: Object, review: str) -> str | None:
    """What the Task's status says of a Review that does not count; None while it says nothing such."""
    beginnings = (f"Review {review}: ", *(f"Review {review} {word}" for word in _SAID))
    for type_ in ("Reviewed", "Succeeded"):
        message = str((condition(task.get("status"), type_) or {}).get("message", ""))
        found = next((part for part in message.split(". ") if part.startswith(beginnings)), None)
        if found is not None:
            return found
    return None
