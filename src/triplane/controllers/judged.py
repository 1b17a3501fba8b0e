"""What a Task's sessions produced, what a verdict on it is about, and who stood on each side: as the log has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triplane.audit.attestation import Party, Subject
from triplane.audit.entry import event_id
from triplane.audit.model import JsonObject
from triplane.controllers.context import Context
from triplane.controllers.task_gather import Gathered
from triplane.domain.task_facts import Placement


@dataclass(frozen=True, slots=True)
class Produced:
    """An output that is recorded as an Artifact."""

    session_uid: str
    agent_uid: str
    round: int | None
    run: int
    output: tuple[str, str]
    """(name, digest)."""
    artifact_uid: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The Artifacts a verdict is about, each by output name, and the run that made them."""

    artifacts: Mapping[tuple[str, str], str]
    """(output name, digest) to the Artifact's UID."""
    producer: Party
    runs: tuple[tuple[str, int], ...]
    """(session UID, run)."""

    def subjects(self, data: JsonObject) -> list[Subject]:
        """The subjects of an entry, with the objects they are."""
        return [
            Subject(item["name"], item["digest"], self.artifacts.get((item["name"], item["digest"])))
            for item in data["subjects"]
        ]


async def read_produced(context: Context, at: Gathered) -> tuple[Produced, ...]:
    """What the Task's sessions produced, as the log has it, for the objects may have been deleted; by run."""
    outputs = {
        event_id("artifact.recorded", session.uid, run.run, output.name): (session, run, output)
        for session in at.facts.sessions
        if session.role == "producer" and session.view is not None
        for run in session.view.runs
        if run.result is not None
        for output in run.result.outputs
    }
    recorded = await context.log.get_many(list(outputs)) if outputs else {}
    found = [
        Produced(
            session_uid=session.uid,
            agent_uid=session.agent_uid,
            round=run.run_inputs.get("round"),
            run=run.run,
            output=(output.name, output.digest),
            artifact_uid=recorded[id_].entry["subject"]["uid"],
        )
        for id_, (session, run, output) in outputs.items()
        if id_ in recorded
    ]
    return tuple(sorted(found, key=lambda item: (item.run, item.session_uid, item.output)))


def judge(data: JsonObject, produced: Sequence[Produced], at: Gathered) -> Judged:
    """The Artifacts of the round that an entry's subjects are, and who made them; of an output the newest run's."""
    wanted = {(item["name"], item["digest"]) for item in data["subjects"]}
    chosen = at.facts.decisions.latest("producer", data["round"])
    of_round = [
        item
        for item in produced
        if item.round == data["round"]
        and item.output in wanted
        and (chosen is None or item.agent_uid == chosen.agent_uid)
    ]
    runs = tuple(sorted({(item.session_uid, item.run) for item in of_round}))
    producer = Party(None) if chosen is None else _party(chosen, runs[-1][0] if runs else None)
    return Judged({item.output: item.artifact_uid for item in of_round}, producer, runs)


def placed(at: Gathered, role: str, round_: int, agent_uid: str, session_uid: str | None) -> Party:
    """An Agent as it was placed in the round; without a placement nobody is known to control it."""
    found = [
        item
        for item in at.facts.decisions.placements
        if (item.role, item.round, item.agent_uid) == (role, round_, agent_uid)
    ]
    newest = max(found, key=lambda item: item.ordinal, default=None)
    return Party(None, agent_uid=agent_uid, session_uid=session_uid) if newest is None else _party(newest, session_uid)


def _party(placed: Placement, session_uid: str | None) -> Party:
    return Party(placed.principal, placed.harness_principal, placed.agent_uid, placed.agent_name, session_uid)
