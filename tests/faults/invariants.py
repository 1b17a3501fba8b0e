"""I1 to I5 of the fault campaign as pure checks over what was gathered: each returns what is wrong, in words.

I1 the chain verifies, every acknowledged event is there exactly once, doubtful ones at most once ·
I2 one accepted result and one recorded effect per Task · I3 it converges, then nothing is written ·
I4 nothing is left over · I5 conditions explain what is going on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.stack import condition

ENDS = frozenset({"run.finished", "run.lost", "run.revoked"})
BOUNDED = frozenset({"Node", "Task", "AgentSession"})


@dataclass(frozen=True)
class LogRow:
    """One entry as it lies in the database."""

    seq: int
    octets: bytes
    entry: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.entry["id"])

    @property
    def type(self) -> str:
        return str(self.entry["type"])


@dataclass(frozen=True)
class Acknowledged:
    """What callers were told. Event ids; ``seen`` are rows read while the plan ran."""

    ids: frozenset[str] = frozenset()
    doubtful: frozenset[str] = frozenset()
    """Asked for, answer unknown."""
    seen: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Leftovers:
    """What is there after the work is done."""

    processes: Sequence[int] = ()
    workspaces: Sequence[str] = ()
    live: Sequence[str] = ()
    """Sessions with a claimed or started run."""
    blobs: frozenset[str] = frozenset()
    links: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Blob to the digests that stand in it: a spec names its inputs, a snapshot its program."""
    temporaries: Sequence[str] = ()


def acknowledged_once(rows: Sequence[LogRow], told: Acknowledged) -> list[str]:
    """I1: what was acknowledged is there exactly once, what is in doubt at most once, what was read is unchanged."""
    count = Counter(row.id for row in rows)
    octets = {row.seq: row.octets for row in rows}
    return [
        *(f"{id_} was acknowledged and is in the log {count[id_]} times" for id_ in told.ids if count[id_] != 1),
        *(f"{id_} was in doubt and is in the log {count[id_]} times" for id_ in told.doubtful if count[id_] > 1),
        *(f"{id_} is in the log {times} times" for id_, times in count.items() if times > 1 and id_ not in told.ids),
        *(f"entry {seq} was read and is another now" for seq, read in told.seen.items() if octets.get(seq) != read),
    ]


def runs_end_once(rows: Sequence[LogRow]) -> list[str]:
    """I1: every claimed run has exactly one end, and no run ends that nobody claimed."""
    ends: Counter[tuple[str, int]] = Counter()
    claimed: set[tuple[str, int]] = set()
    for row in rows:
        if row.type in ENDS | {"run.claimed"}:
            key = (row.entry["subject"]["uid"], row.entry["data"]["run"])
            if row.type == "run.claimed":
                claimed.add(key)
            else:
                ends[key] += 1
    return [
        *(
            f"run {run} of session {uid} has {ends[uid, run]} ends"
            for uid, run in sorted(claimed)
            if ends[uid, run] != 1
        ),
        *(f"run {run} of session {uid} ended and was never claimed" for uid, run in sorted(set(ends) - claimed)),
    ]


def accepted_once(rows: Sequence[LogRow], rounds: Mapping[str, int]) -> list[str]:
    """I2: each Task (uid → expected round) is accepted exactly once, in that round, and every rejected round once."""
    wrong = []
    for uid, expected in rounds.items():
        accepted = [row.entry["data"]["round"] for row in rows if row.type == "task.accepted" and _about(row, uid)]
        rejected = [row.entry["data"]["round"] for row in rows if row.type == "task.rejected" and _about(row, uid)]
        if accepted != [expected]:
            wrong.append(f"Task {uid} is accepted in rounds {accepted}, expected once in round {expected}")
        if rejected != list(range(1, expected)):
            wrong.append(f"Task {uid} is rejected in rounds {rejected}, expected {list(range(1, expected))}")
    return wrong


def artifacts_once(rows: Sequence[LogRow], artifacts: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    """I2: one Artifact per Task, round and output, each recorded once, and what was accepted is what was recorded."""
    wrong = []
    recorded = Counter((row.entry["subject"]["uid"]) for row in rows if row.type == "artifact.recorded")
    outputs = Counter(
        (item["spec"]["taskRef"]["uid"], item["spec"]["round"], item["spec"]["name"]) for item in artifacts
    )
    for item in artifacts:
        name, uid = item["metadata"]["name"], item["metadata"]["uid"]
        if recorded[uid] != 1:
            wrong.append(f"Artifact {name} is recorded {recorded[uid]} times")
    wrong += [f"{key} has {times} Artifacts" for key, times in outputs.items() if times != 1]
    digests = {(item["spec"]["taskRef"]["uid"], item["spec"]["round"], item["spec"]["digest"]) for item in artifacts}
    for row in rows:
        if row.type == "task.accepted" and row.entry["subject"]["uid"] in tasks:
            uid, data = row.entry["subject"]["uid"], row.entry["data"]
            wrong += [
                f"Task {uid} was accepted with {subject['digest']}, of which there is no Artifact of its round"
                for subject in data["subjects"]
                if (uid, data["round"], subject["digest"]) not in digests
            ]
    return wrong


def silent(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """I3: no object (uid → resourceVersion) was written between the two looks, nor the log (``log`` → size)."""
    return [
        f"{key} went from {before.get(key, 'nothing')} to {after.get(key, 'nothing')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def nothing_left(rows: Sequence[LogRow], left: Leftovers) -> list[str]:
    """I4: no process, workspace, lease, temporary file, nor a blob to which nothing leads from the log."""
    named = _reached({digest for row in rows for digest in _digests(row.entry)}, left.links)
    return [
        *(f"process {pid} of a session still lives" for pid in left.processes),
        *(f"workspace {name} is still there" for name in left.workspaces),
        *(f"session {uid} still holds a lease" for uid in left.live),
        *(f"temporary file {name} is still there" for name in left.temporaries),
        *(f"blob {digest} is named by nothing in the log or below it" for digest in sorted(left.blobs - named)),
    ]


def blobs_there(rows: Sequence[LogRow], blobs: frozenset[str]) -> list[str]:
    """I1: every blob that an entry refers to is stored."""
    return [
        f"entry {row.seq} ({row.type}) refers to {digest}, which is not stored"
        for row in rows
        for digest in row.entry.get("blobs") or ()
        if digest not in blobs
    ]


def same_digests(undisturbed: Mapping[tuple[str, str], str], found: Mapping[tuple[str, str], str]) -> list[str]:
    """I2: the programs are deterministic, so every output (Task, name) is what it is when nothing disturbs the work."""
    return [
        f"output {output} of Task {task} is {found.get((task, output), 'missing')}, "
        f"undisturbed it is {undisturbed.get((task, output), 'missing')}"
        for task, output in sorted(undisturbed.keys() | found.keys())
        if undisturbed.get((task, output)) != found.get((task, output))
    ]


def explained(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """I5: every condition has a reason and a message, and no bounded object is without its condition ``Succeeded``."""
    wrong = []
    for obj in objects:
        name = f"{obj['kind']} {obj['metadata']['name']}"
        wrong += [
            f"{name}: condition {entry['type']} explains nothing"
            for entry in (obj.get("status") or {}).get("conditions") or ()
            if not entry.get("reason") or not entry.get("message")
        ]
        if obj["kind"] in BOUNDED and not condition(obj, "Succeeded")["status"]:
            wrong.append(f"{name} has no condition Succeeded")
    return wrong


def all_succeeded(objects: Sequence[Mapping[str, Any]]) -> list[str]:
    """I5, at the end: every Node and Task says ``Succeeded=True`` of the generation it has."""
    wrong = []
    for obj in objects:
        if obj["kind"] in {"Node", "Task"}:
            found = condition(obj, "Succeeded")
            current = found.get("observedGeneration") == obj["metadata"]["generation"]
            if found["status"] != "True" or not current:
                wrong.append(f"{obj['kind']} {obj['metadata']['name']}: {found['reason']}: {found['message']}")
    return wrong


def _about(row: LogRow, uid: str) -> bool:
    return bool(row.entry["subject"]["uid"] == uid)


def _reached(named: set[str], links: Mapping[str, frozenset[str]]) -> set[str]:
    """These, what stands in them, what stands in that, and so on."""
    reached, ahead = set(named), list(named)
    while ahead:
        found = links.get(ahead.pop(), frozenset()) - reached
        reached |= found
        ahead += found
    return reached


def _digests(value: Any) -> set[str]:
    """Every digest anywhere in an entry."""
    if isinstance(value, str):
        return {value} if value.startswith("sha256:") else set()
    if isinstance(value, Mapping):
        return {digest for item in value.values() for digest in _digests(item)}
    if isinstance(value, Sequence):
        return {digest for item in value for digest in _digests(item)}
    return set()
