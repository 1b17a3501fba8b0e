"""What people have said of a Task, and what its sessions ask them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from triplane.api.review import Review
from triplane.api.task import Task
from triplane.audit.entry import event_id
from triplane.audit.model import Recorded
from triplane.controllers.context import Context
from triplane.controllers.observe import Observer, requester_of
from triplane.domain.session import LIVE_RUN_STATES
from triplane.domain.task_facts import SessionFacts
from triplane.domain.verdict import Moment, PersonReview


class PeopleReader:
    """One reader serves all Tasks."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer

    async def reviews(self, task: Task, stream: str) -> tuple[PersonReview, ...]:
        """The Reviews without a session, in the order they were made. Each is in the log before it is weighed,
        whatever comes of it: its place there is part of what it is weighed by."""
        objs = [
            obj
            for obj in self._context.index.children("Review", "task", task.metadata.uid)
            if not obj["spec"].get("sessionRef") and obj["metadata"].get("namespace", "") == task.metadata.namespace
        ]
        if not objs:
            return ()
        await self._observer.observe_many(objs, stream=stream)
        ids = {obj["metadata"]["uid"]: event_id("resource.observed", obj["metadata"]["uid"], 1) for obj in objs}
        seen = await self._context.log.get_many(list(ids.values()))
        found = []
        for obj in objs:
            review = Review.model_validate(obj)
            entry = seen.get(ids[review.metadata.uid])
            found.append(
                PersonReview(
                    name=review.metadata.name,
                    uid=review.metadata.uid,
                    username=requester_of(obj),
                    principal=await self._observer.controller_of(obj),
                    round=review.spec.round,
                    verdict=review.spec.verdict,
                    findings=tuple(review.spec.findings),
                    subjects=tuple(review.spec.subjects),
                    gate=review.spec.gate,
                    made=Moment(review.metadata.creation_timestamp, entry.seq if entry is not None else None),
                )
            )
        return tuple(sorted(found, key=lambda item: (item.made.at or "", item.made.seq or 0, item.name)))

    def produced_since(self, task: Task, recorded: Mapping[tuple[str, int, str], Recorded]) -> Mapping[int, Moment]:
        """Round to when the last of its outputs was there: as an Artifact, and in the log."""
        since: dict[int, Moment] = {}
        for entry in recorded.values():
            round_ = entry.entry["data"].get("round", 0)
            seq = max(entry.seq, since[round_].seq or 0) if round_ in since else entry.seq
            since[round_] = Moment(None, seq)
        for obj in self._context.index.children("Artifact", "task", task.metadata.uid):
            round_, at = obj["spec"]["round"], obj["metadata"].get("creationTimestamp")
            if round_ in since and at:
                since[round_] = replace(since[round_], at=max(at, since[round_].at or ""))
        return since

    async def with_questions(self, sessions: Sequence[SessionFacts]) -> Sequence[SessionFacts]:
        """The sessions at work whose tools may ask people, with what they ask."""
        uids = [item.uid for item in sessions if _may_ask(item)]
        if not uids:
            return sessions
        questions = await self._context.sessions.questions(uids)
        return [
            replace(item, questions=tuple(question for question in questions if question.session_uid == item.uid))
            if item.uid in uids
            else item
            for item in sessions
        ]


def _may_ask(session: SessionFacts) -> bool:
    view = session.view
    if view is None or view.last_run is None or view.last_run.state not in LIVE_RUN_STATES:
        return False
    return bool(view.offer.work_order.get("tools"))
