"""What an object waits for and who must act, in words.

Everything said is read off the object's own conditions (and those of the objects that belong to it), so that it cannot
contradict ``kubectl describe``. The operator puts causes into conditions; here they are only put in order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from triplane.api.reasons import REASONS
from triplane.domain.conditions import condition, is_true

Object = Mapping[str, Any]

_STANDING: Mapping[str, str] = {
    "pending": "has not started",
    "awaiting_dependency": "waits for what must come first",
    "queued": "waits to be run",
    "running": "is at work",
    "streaming": "is at work",
    "retrying": "will be tried again",
    "blocked": "is stalled",
    "reviewing": "is in review",
    "completed": "is done",
    "skipped": "was skipped",
    "failed": "has failed",
    "timed_out": "ran out of time",
    "invalidated": "was invalidated",
    "cancelled": "was cancelled",
}
_SUMMARIES = ("Succeeded", "Ready", "Reviewed")
_OVER = frozenset({"completed", "skipped", "failed", "timed_out", "invalidated", "cancelled"})


def explain(obj: Object, related: Sequence[Object] = ()) -> list[str]:
    """Sentences: how it stands, why, what belongs to it that is not done, and last who must act.

    ``related`` are the objects that belong to this one (a Graph's Nodes and Tasks, a Node's Tasks, a Task's
    sessions; of an object that is being deleted every session below it).
    """
    sentences = [_standing(obj), *_freshness(obj), *_reasons(obj)]
    waiting = [item for item in related if not _is_over(item)]
    if obj["metadata"].get("deletionTimestamp"):
        sentences += [sentence for item in related for sentence in _stopping(item)]
        waiting = [item for item in waiting if item["kind"] != "AgentSession"]
    sentences += [_related(item) for item in waiting]
    sentences += [f"The last rejection found: {finding}" for finding in _status(obj).get("findings") or ()]
    return [*sentences, _who(obj, waiting)]


def title(obj: Object) -> str:
    """``Task demo/audit``."""
    metadata = obj["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{obj['kind']} {place}{metadata['name']}"


def _standing(obj: Object) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return f"{title(obj)} is being deleted"
    if obj["kind"] == "Review":
        spec = obj["spec"]
        return (
            f"{title(obj)} is a verdict: {spec['verdict']} on round {spec['round']} of Task {spec['taskRef']['name']}"
        )
    state = str(_status(obj).get("state"))
    if state == "awaiting_dependency" and _is_false(_status(obj), "ResolvedRefs"):
        return f"{title(obj)} waits for something that does not exist yet"
    if state == "blocked" and _suspended(_status(obj)):
        return f"{title(obj)} is suspended"
    if state == "blocked" and is_true(_status(obj), "WaitingForApproval"):
        return f"{title(obj)} waits for a person's leave"
    if state in _STANDING:
        return f"{title(obj)} {_STANDING[state]}"
    for name in _SUMMARIES:
        if found := condition(_status(obj), name):
            word = {"True": f"is {name}", "False": f"is not {name}"}.get(found["status"], f"is not yet {name}")
            return f"{title(obj)} {word}"
    return f"{title(obj)} has no conditions yet"


def _freshness(obj: Object) -> list[str]:
    """A status about an older spec must not be taken for the answer."""
    generation, observed = obj["metadata"].get("generation", 1), _status(obj).get("observedGeneration", 0)
    if obj["kind"] == "Review" or observed >= generation:
        return []
    if observed == 0:
        return ["The operator has not looked at it yet"]
    return [f"The operator has seen generation {observed} of {generation}: what follows is about the older spec"]


def _reasons(obj: Object) -> list[str]:
    """The messages of the conditions that explain the standing, each once."""
    said: list[str] = []
    for name in (*_SUMMARIES, "Accepted", "ResolvedRefs", "Stalled", "Suspended", "WaitingForApproval", "Isolated"):
        found = condition(_status(obj), name)
        if found is None or not _matters(name, found["status"], _status(obj).get("state")):
            continue
        message = str(found["message"])
        if not any(message in earlier for earlier in said):
            said.append(f"{found['reason']}: {message}")
    return said


def _matters(name: str, status: str, state: str | None) -> bool:
    if name in _SUMMARIES:
        # The work's own summary always; Reviewed where it adds something.
        return name != "Reviewed" or status != "Unknown" or state in (None, "reviewing")
    return status == ("True" if name in ("Stalled", "Suspended", "WaitingForApproval") else "False")


def _related(item: Object) -> str:
    status = _status(item)
    found = next((c for name in _SUMMARIES if (c := condition(status, name))), None)
    about = f": {found['message']}" if found else ""
    role = f" ({item['spec']['role'].lower()})" if "role" in item["spec"] else ""
    return f"{title(item)}{role} {_STANDING.get(str(status.get('state')), 'is not over')}{about}"


def _stopping(item: Object) -> list[str]:
    """A session of an object that is being deleted, unless it had ended before."""
    state = _status(item).get("state")
    if item["kind"] != "AgentSession" or (_is_over(item) and state != "cancelled"):
        return []
    return [f"{title(item)} ({item['spec']['role'].lower()}) {'was' if state == 'cancelled' else 'is being'} stopped"]


def _who(obj: Object, waiting: Sequence[Object]) -> str:
    """Who must act. The order of the checks matters: the first that holds is the answer."""
    status = _status(obj)
    state = status.get("state")
    if obj["metadata"].get("deletionTimestamp"):
        return "Nobody must act: what it owns is being stopped and removed; the evidence stays in the log"
    if obj["kind"] == "Review" or state in ("completed", "skipped"):
        return "Nobody must act: it is done"
    if is_true(status, "Stalled"):
        return _stalled(status)
    if state in _OVER:
        return "Nobody will act: it is over. To try again, apply new work under another name"
    if _is_false(status, "ResolvedRefs"):
        return "Whoever applies what is missing must act; it goes on by itself then, in any order"
    if status.get("observedGeneration", 0) == 0:
        return "The operator must act: see that it runs (`triplane cluster status`)"
    if is_true(status, "WaitingForApproval"):
        return _approver(obj)
    if state == "reviewing":
        return _reviewer(status)
    if state in ("running", "streaming"):
        return f"{_worker(obj)} must finish; nobody else must act"
    return _waiting(status) or _long_running(obj, waiting)


def _waiting(status: Mapping[str, Any]) -> str | None:
    """Who must act while nothing is at work; None when that is not what it is about."""
    state = status.get("state")
    if state == "blocked" and _suspended(status):
        return "Whoever suspended it must act, when it is to go on: set spec.suspend to false where it says so above"
    if state == "awaiting_dependency":
        return "Nobody must act here; those Tasks' people and agents must (`triplane why task/NAME`), then it goes on"
    if state == "retrying" and status.get("nextRunAt"):
        return f"Nobody must act: the next run may begin at {status['nextRunAt']}"
    if status.get("waitingReason") == "rate_limit":
        return (
            "Nobody must act: it goes on when its Agent has fewer sessions at work; maxConcurrentSessions says how many"
        )
    if state in ("queued", "pending", "retrying"):
        return "A runner must take it: see that one runs and has a free place (`triplane cluster status`)"
    return None


def _is_false(status: Mapping[str, Any], name: str) -> bool:
    found = condition(status, name)
    return found is not None and found["status"] == "False"


def _suspended(status: Mapping[str, Any]) -> bool:
    return is_true(status, "Suspended") and not is_true(status, "Stalled")


def _stalled(status: Mapping[str, Any]) -> str:
    found = condition(status, "Stalled") or {}
    reason = REASONS.get(str(found.get("reason")))
    who = reason.act if reason is not None else "whoever applied it"
    return f"{who[:1].upper()}{who[1:]} must act: nothing moves until what is said above is mended"


def _approver(obj: Object) -> str:
    gate = _status(obj).get("approval") or {}
    people = " or ".join(gate.get("people") or ()) or "One of the people named above"
    return f"{people} must answer: `triplane review approve {obj['metadata']['name']}`, or `reject`"


def _reviewer(status: Mapping[str, Any]) -> str:
    reviewer = status.get("reviewer")
    if not reviewer:
        return "A reviewer must give a verdict; nobody else must act"
    waits = (condition(status, "Reviewed") or {}).get("reason")
    if status.get("reviewSession") and waits != "WaitingForPerson":
        return f"Agent {reviewer} must finish its review (session {status['reviewSession']}); nobody else must act"
    return f"{reviewer} must give a verdict: apply a Review of these digests (`triplane review show`)"


def _worker(obj: Object) -> str:
    agent = _status(obj).get("agent") or (obj["spec"].get("agentRef") or {}).get("name")
    return f"Agent {agent}" if agent else "The agent at work"


def _long_running(obj: Object, waiting: Sequence[Object]) -> str:
    for name in ("Ready", "Reviewed"):
        if is_true(_status(obj), name):
            return "Nobody must act here; see what it waits for above" if waiting else "Nobody must act: it is ready"
    found = condition(_status(obj), "Ready")
    if found is not None and found["status"] == "False":
        return "Whoever applied it must act: mend what is said above"
    return "Nobody must act here; it follows the work it belongs to"


def _is_over(item: Object) -> bool:
    return _status(item).get("state") in _OVER


def _status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}
