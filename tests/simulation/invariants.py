"""What must hold of every history (design §3): checks over what is recorded, each returns what is wrong, in words."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.simulation.scenario import BACKOFF_SECONDS
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.audit.entry import format_time
from triplane.audit.evidence import Evidence
from triplane.audit.keys import KEY_EVENTS, TrustBundle, keys_of
from triplane.audit.verification import verify
from triplane.domain.retry import JITTER
from triplane.domain.task_outlook import REVOKE_FIRST

if TYPE_CHECKING:
    from tests.simulation.world import World

Entry = Mapping[str, Any]
Check = Callable[["World"], list[str]]


def entries(world: "World") -> list[Entry]:
    return [recorded.entry for recorded, _ in world.log.rows]


def by_type(world: "World", *types: str) -> list[Entry]:
    return [entry for entry in entries(world) if entry["type"] in types]


async def chain_verifies(world: "World") -> list[str]:
    """Everything is logged once, in order: the chain verifies."""
    found = await MemoryEventLog(world.log).verify_chain()
    return [] if found.ok else [f"the chain does not verify: {found}"]


async def accepted_is_attested(world: "World") -> list[str]:
    """Whatever was accepted is shown to be, by signed statements, to somebody who trusts the keys the log tells of."""
    rows = [recorded for recorded, _ in world.log.rows]
    keys = keys_of(row for row in rows if row.entry["type"] in KEY_EVENTS)
    trust = TrustBundle(MemoryEventLog(world.log).origin, keys)
    task_of = {entry["subject"]["uid"]: entry["data"]["taskUid"] for entry in by_type(world, "session.offered")}
    wrong = []
    for accepted in by_type(world, "task.accepted"):
        task = accepted["subject"]["uid"]
        reviews = {item["reviewUid"] for item in accepted["data"]["reviews"]}
        about = {task, *reviews, *(uid for uid, of in task_of.items() if of == task)}
        subjects = {(item["name"], item["digest"]) for item in accepted["data"]["subjects"]}
        made = [entry for entry in by_type(world, "artifact.recorded") if task_of[entry["data"]["sessionUid"]] == task]
        named = [
            set(entry["data"].get("artifactUids", ()))
            for entry in by_type(world, "review.recorded")
            if entry["subject"]["uid"] in reviews
        ]
        # Approvals of one quorum may be of two Artifacts of the same octets: docs/reference/attestations.md says so.
        judged = set.intersection(*named) if named else set()
        told = [row for row in rows if row.entry["subject"]["uid"] in about | judged]
        digests = [row.entry["data"]["envelopeDigest"] for row in told if row.entry["type"] == "attestation.recorded"]
        envelopes = {digest: b"".join([part async for part in world.content.resolve(digest)]) for digest in digests}
        # A session may have been deleted with its work done, and it was done again to the same octets: the last counts.
        last = {(entry["data"]["output"], entry["data"]["digest"]): entry["subject"]["uid"] for entry in made}
        for (output, digest), uid in last.items():
            if uid in judged and (output, digest) in subjects:
                shown = Evidence(uid, digest, {row.seq: row.octets for row in told}, envelopes, trust)
                wrong += [f"{step.name}: {step.found}" for step in verify(shown) if step.ok is False]
    return wrong


def permits_before_claims(world: "World") -> list[str]:
    """1: a run is claimed only under a permit that was logged before it and was at most ten seconds old."""
    wrong = []
    permitted: dict[tuple[str, int, int], tuple[int, str]] = {}
    for entry in by_type(world, "run.permitted"):
        data = entry["data"]
        permitted[entry["subject"]["uid"], data["run"], data["permit"]] = entry["seq"], entry["time"]
    for claim, size, _, at in world.runners.claimed:
        found = permitted.get((claim.session_uid, claim.run, claim.permit_counter))
        name = f"run {claim.run} of {claim.name}"
        if found is None or found[0] >= size:
            wrong.append(f"{name} was claimed without a permit in the log")
        elif found[1] < format_time(world.begin(at - 10.0)):
            wrong.append(f"{name} was claimed under a permit of {found[1]}, at {at:.1f} s")
    return wrong


def launched_on_the_truth(world: "World") -> list[str]:
    """1: what a session has frozen stood on the API server, in that generation, at some time in the ten seconds
    before each of its claims."""
    wrong = []
    snapshots = {uid: obj["spec"]["snapshot"] for uid, obj in world.seen_sessions.items() if "snapshot" in obj["spec"]}
    for claim, _, version, at in world.runners.claimed:
        first = world.version_at(at - 10.0)
        for material in snapshots.get(claim.session_uid, ()):
            if material.get("uid") is None or material.get("generation") is None:
                continue
            if not world.server.stood_at(material["uid"], material["generation"], first, version):
                wrong.append(
                    f"run {claim.run} of {claim.name} was claimed with {material['role']} {material['name']} of "
                    f"generation {material['generation']}, which no longer stood"
                )
    return wrong


def authority_is_not_wider_than_above(world: "World") -> list[str]:
    """1: what a session may reach, its Graph granted at some time in the ten seconds before each of its claims."""
    graphs = world.server.lines["Graph"]
    since = [int(line.obj["metadata"]["resourceVersion"]) for line in graphs]
    wrong = []
    for claim, _, version, at in world.runners.claimed:
        first, reached = world.version_at(at - 10.0), set(claim.work_order["authority"]["egress"])
        granted = [
            set(line.obj["spec"]["authority"]["mayUse"]["egress"])
            for line, begin, end in zip(graphs, since, [*since[1:], version + 1], strict=True)
            if begin <= version and end > first
        ]
        if not any(reached <= each for each in granted):
            wrong.append(f"run {claim.run} of {claim.name} may reach {sorted(reached)}, which its Graph grants no more")
    return wrong


def nothing_runs_after_its_end(world: "World") -> list[str]:
    """1: a revoked session, a cancelled or deleted Task gets no further claim."""
    wrong = []
    over: dict[str, int] = {}
    for entry in by_type(world, "task.accepted", "task.failed", "task.skipped"):
        over.setdefault(entry["subject"]["uid"], entry["seq"])
    for claim, size, _, _ in world.runners.claimed:
        if claim.task_uid in over and over[claim.task_uid] < size:
            wrong.append(f"run {claim.run} of {claim.name} was claimed after its Task had ended")
    return wrong


def reviewers_are_independent(world: "World") -> list[str]:
    """3: what is accepted was approved by as many agents as were asked for, each of another user than the producing
    agent's and its harness's, and than the others'."""
    wrong = []
    placed = {
        (entry["subject"]["uid"], entry["data"]["round"], entry["data"]["role"], entry["data"]["agentUid"]): entry[
            "data"
        ]
        for entry in by_type(world, "task.placed")
    }
    produced = producers(world)
    for entry in by_type(world, "task.accepted"):
        uid, data = entry["subject"]["uid"], entry["data"]
        producer = produced.get((uid, data["round"]))
        reviews = {item.get("reviewerPrincipal"): item for item in data["reviews"]}
        wanted = world.scenario.step_of(entry["subject"]["name"]).reviewers
        if len(reviews) != wanted or len(data["reviews"]) != wanted:
            wrong.append(f"Task {uid} was accepted by {len(reviews)} users, {wanted} were asked for")
        for review in reviews.values():
            reviewer = placed.get((uid, data["round"], "reviewer", review.get("reviewerAgentUid")))
            if producer is None or reviewer is None:
                wrong.append(f"Task {uid} was accepted in round {data['round']} without producer or reviewer on record")
                continue
            theirs = {producer.get("agentPrincipal"), producer.get("harnessPrincipal")}
            own = reviewer.get("agentPrincipal")
            if own in theirs or own != review.get("reviewerPrincipal"):
                wrong.append(f"Task {uid}: {reviewer['agentName']} judged the work of {producer['agentName']}")
    return wrong


def producers(world: "World") -> dict[tuple[str, int], Entry]:
    """(Task, round) → the placement whose session produced what was recorded."""
    agents = {uid: obj["spec"]["agentRef"]["uid"] for uid, obj in world.seen_sessions.items()}
    made = {}
    for entry in by_type(world, "artifact.recorded"):
        session = world.seen_sessions.get(entry["data"]["sessionUid"])
        if session is not None:
            made[session["spec"]["taskRef"]["uid"], entry["data"]["round"]] = agents[entry["data"]["sessionUid"]]
    return {
        (uid, data["round"]): data
        for entry in by_type(world, "task.placed")
        for uid, data in [(entry["subject"]["uid"], entry["data"])]
        if data["role"] == "producer" and made.get((uid, data["round"])) == data["agentUid"]
    }


def accepted_is_what_was_reviewed(world: "World") -> list[str]:
    """3: the digests of the acceptance are those of the verdict and of recorded artifacts of that round."""
    wrong = []
    verdicts = {entry["data"]["reviewUid"]: entry["data"] for entry in by_type(world, "review.recorded")}
    recorded: dict[tuple[str, int], set[str]] = defaultdict(set)
    for entry in by_type(world, "artifact.recorded"):
        session = world.seen_sessions.get(entry["data"]["sessionUid"])
        if session is not None:
            recorded[session["spec"]["taskRef"]["uid"], entry["data"]["round"]].add(entry["data"]["digest"])
    for entry in by_type(world, "task.accepted"):
        data, uid = entry["data"], entry["subject"]["uid"]
        digests = {item["digest"] for item in data["subjects"]}
        for review in data["reviews"]:
            verdict = verdicts.get(review["reviewUid"])
            if verdict is None or verdict["verdict"] != "Approve":
                wrong.append(f"Task {uid} was accepted without an approving verdict in the log")
            elif {item["digest"] for item in verdict["subjects"]} != digests:
                wrong.append(f"Task {uid} was accepted with other digests than were reviewed")
        if not digests <= recorded[uid, data["round"]]:
            wrong.append(f"Task {uid} was accepted with digests of which there is no artifact")
    return wrong


def decided_once(world: "World") -> list[str]:
    """6: one end per Task; each round decided once; each run has one end."""
    wrong = []
    ends: dict[str, list[str]] = defaultdict(list)
    rounds: Counter[tuple[str, int]] = Counter()
    for entry in by_type(world, "task.accepted", "task.failed", "task.skipped"):
        ends[entry["subject"]["uid"]].append(entry["type"])
    for entry in by_type(world, "task.accepted", "task.rejected"):
        rounds[entry["subject"]["uid"], entry["data"]["round"]] += 1
    wrong += [f"Task {uid} ended {len(found)} times: {found}" for uid, found in ends.items() if len(found) > 1]
    wrong += [f"round {key[1]} of Task {key[0]} was decided {n} times" for key, n in rounds.items() if n > 1]
    runs: Counter[tuple[str, int]] = Counter()
    for entry in by_type(world, "run.finished", "run.lost", "run.revoked"):
        runs[entry["subject"]["uid"], entry["data"]["run"]] += 1
    for claim, *_ in world.runners.claimed:
        if runs[claim.session_uid, claim.run] != 1:
            wrong.append(f"run {claim.run} of {claim.name} has {runs[claim.session_uid, claim.run]} ends in the log")
    return wrong


def one_at_a_time(world: "World") -> list[str]:
    """6: no two runs of a Task in one role are claimed at once."""
    return list(world.overlaps)


def limits_hold(world: "World") -> list[str]:
    """No Agent has more live runs than it allows."""
    return list(world.overruns)


def dependencies_come_first(world: "World") -> list[str]:
    """A Task's first permit comes after the end of everything it depends on, and none of that has failed."""
    wrong = []
    ended: dict[str, tuple[int, str]] = {}
    for entry in by_type(world, "task.accepted", "task.failed", "task.skipped"):
        ended.setdefault(entry["subject"]["name"], (entry["seq"], entry["type"]))
    first: dict[str, int] = {}
    for entry in by_type(world, "session.offered"):
        session = world.seen_sessions.get(entry["subject"]["uid"])
        if session is not None:
            first.setdefault(session["spec"]["taskRef"]["name"], entry["seq"])
    for step in world.scenario.steps:
        began = first.get(f"n-{step.name}")
        for needed in step.needs if began is not None and not world.scenario.interfered else ():
            end = ended.get(f"n-{needed}")
            if end is None or end[0] > began or end[1] == "task.failed":
                wrong.append(f"{step.name} began before {needed} was accepted or skipped")
    return wrong


def retries_are_counted(world: "World") -> list[str]:
    """No round has more failed runs of a session than ``maxRetries`` allows, and each run waits its backoff."""
    if world.scenario.interfered:
        return []
    wrong = []
    for view in world.sessions_now.values():
        step = next(item for item in world.scenario.steps if view.offer.name.startswith(f"n-{item.name}-"))
        failures: Counter[int] = Counter()
        for run in view.runs:
            if run.result is not None and run.result.outcome.value in ("failed", "timed_out"):
                failures[int(run.run_inputs["round"])] += 1
        wrong += [
            f"round {round_} of {view.offer.name} has {n} failed runs, maxRetries is {step.retries}"
            for round_, n in failures.items()
            if n > step.retries + 1
        ]
        for before, run in pairwise(view.runs):
            if before.run_inputs["round"] != run.run_inputs["round"] or not before.ended_at or not run.claimed_at:
                continue
            waited = _seconds(run.claimed_at) - _seconds(before.ended_at)
            if waited < BACKOFF_SECONDS * (1 - JITTER):
                wrong.append(f"run {run.run} of {view.offer.name} came {waited:.1f} s after a failure")
    return wrong


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def status_is_honest(world: "World") -> list[str]:
    """7: Succeeded says what the log says, in both directions, of every Task that is there."""
    wrong = []
    good = {e["subject"]["uid"] for e in by_type(world, "task.accepted", "task.skipped")}
    bad = {e["subject"]["uid"] for e in by_type(world, "task.failed")}
    for obj in world.server.of("Task"):
        uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]
        said = next((c for c in (obj.get("status") or {}).get("conditions", ()) if c["type"] == "Succeeded"), None)
        wanted = "True" if uid in good else "False" if uid in bad else "Unknown"
        if said is None:
            wrong.append(f"Task {name} was never looked at")
        elif said["status"] != wanted:
            wrong.append(f"Task {name} says Succeeded={said['status']} ({said['reason']}), the log says {wanted}")
        elif not said["message"]:
            wrong.append(f"Task {name} explains nothing")
    return wrong


def nothing_is_left(world: "World") -> list[str]:
    """6: no live run, and no child whose owner is gone."""
    wrong = [f"run of {view.offer.name} is still {view.last_run.state}" for view in world.sessions_now.values()
             if view.last_run is not None and view.last_run.state.value in ("claimed", "started")]  # fmt: skip
    alive = {obj["metadata"]["uid"] for obj in world.server.objects.values()}
    for kind in ("AgentSession", "Artifact", "Review"):
        wrong += [
            f"{kind} {obj['metadata']['name']} is left of a Task that is gone"
            for obj in world.server.of(kind)
            if obj["spec"]["taskRef"]["uid"] not in alive
        ]
    return wrong


def what_is_withdrawn_is_stopped(world: "World") -> list[str]:
    """6: a run at work when its Task is withdrawn is revoked, before the log says that the Task has ended."""
    wrong = []
    tasks = {uid: obj["spec"]["taskRef"]["uid"] for uid, obj in world.seen_sessions.items()}
    claimed: dict[tuple[str, int], int] = {}
    ended: dict[tuple[str, int], tuple[int, str]] = {}
    for entry in by_type(world, "run.claimed", "run.finished", "run.lost", "run.revoked"):
        key = entry["subject"]["uid"], entry["data"]["run"]
        if entry["type"] == "run.claimed":
            claimed[key] = entry["seq"]
        else:
            ended[key] = entry["seq"], entry["type"]
    for entry in by_type(world, "task.failed"):
        if entry["data"]["reason"] not in REVOKE_FIRST:
            continue
        for key, began in claimed.items():
            end, how = ended.get(key, (0, ""))
            late = began < entry["seq"] < end and how == "run.finished"
            if tasks.get(key[0]) == entry["subject"]["uid"] and late and key not in world.untold_once:
                wrong.append(f"run {key[1]} of session {key[0]} went on to its end after its Task was withdrawn")
    return wrong


def everything_was_observed(world: "World") -> list[str]:
    """5: the last generation of every object is in the log."""
    seen: dict[str, int] = {}
    for entry in by_type(world, "resource.observed"):
        seen[entry["subject"]["uid"]] = max(seen.get(entry["subject"]["uid"], 0), entry["subject"]["generation"])
    return [
        f"{kind} {name}: generation {obj['metadata']['generation']} is not in the log"
        for (kind, name), obj in world.server.objects.items()
        if seen.get(obj["metadata"]["uid"], 0) < obj["metadata"]["generation"]
    ]


def ends_as_expected(world: "World") -> list[str]:
    """The oracle: without interference every step ends as graph and behaviours say."""
    scenario = world.scenario
    expected = scenario.expected()
    if scenario.interfered or (scenario.fail_fast and set(expected.values()) - {"completed", "skipped"}):
        return []
    wrong = []
    for step, state in expected.items():
        obj = world.server.objects.get(("Task", f"n-{step}"))
        found = ((obj or {}).get("status") or {}).get("state")
        wanted = {"stalled": "blocked"}.get(state, state)
        waits_for_stalled = any(expected[name] == "stalled" for name in _all_needs(scenario, step))
        if found != wanted and not waits_for_stalled:
            wrong.append(f"{step} ended {found}, expected {wanted}")
    return wrong


def _all_needs(scenario: Any, name: str) -> set[str]:
    step = next(item for item in scenario.steps if item.name == name)
    return set(step.needs).union(*(_all_needs(scenario, needed) for needed in step.needs))


CHECKS: tuple[Check, ...] = (
    permits_before_claims,
    launched_on_the_truth,
    authority_is_not_wider_than_above,
    nothing_runs_after_its_end,
    reviewers_are_independent,
    accepted_is_what_was_reviewed,
    decided_once,
    one_at_a_time,
    limits_hold,
    dependencies_come_first,
    retries_are_counted,
    status_is_honest,
    nothing_is_left,
    what_is_withdrawn_is_stopped,
    everything_was_observed,
    ends_as_expected,
)


async def violations(world: "World") -> list[str]:
    """Everything that is wrong, each with the name of its check."""
    found = [f"chain_verifies: {text}" for text in await chain_verifies(world)]
    found += [f"accepted_is_attested: {text}" for text in await accepted_is_attested(world)]
    for check in CHECKS:
        found += [f"{check.__name__}: {text}" for text in check(world)]
    return found
