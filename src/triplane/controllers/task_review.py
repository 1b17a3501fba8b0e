"""Applies what a Task's reviews and gates decide: verdicts on outputs, leave to launch, leave to call a tool.

The log comes before every effect, and a decision that stands in it is only applied again.
"""

from collections.abc import Sequence

from triplane.api.meta import Gate, Subject, Verdict
from triplane.audit.model import SYSTEM_ACTOR, EventBody
from triplane.controllers.attest import Attestor
from triplane.controllers.context import Context
from triplane.controllers.key import Key
from triplane.controllers.observe import Observer, subject_of
from triplane.controllers.task_children import create_review, stream_of, tell
from triplane.controllers.task_gather import Gathered
from triplane.controllers.task_plan import Object
from triplane.domain.approval_log import approval_asked, approval_given, approval_refused
from triplane.domain.naming import fingerprint, object_name
from triplane.domain.task_facts import (
    AcceptRound,
    AnswerCalls,
    AnswerLaunch,
    Approval,
    AskLeave,
    DecideByPerson,
    RecordAgentReview,
)
from triplane.domain.task_gates import launch_subjects
from triplane.domain.task_log import ReviewFacts, review_recorded, task_accepted, task_failed, task_rejected
from triplane.domain.verdict import PersonReview, VerdictFile
from triplane.errors import Conflict

ReviewAction = RecordAgentReview | DecideByPerson | AcceptRound | AskLeave | AnswerLaunch | AnswerCalls


class ReviewApplier:
    """One applier serves all Tasks."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer
        self._attestor = Attestor(context)

    async def apply(self, action: ReviewAction, at: Gathered) -> None:
        """Do it; raises ``TriplaneError`` when it must be decided again or tried later."""
        match action:
            case RecordAgentReview():
                await self._record_agent_review(action, at)
            case DecideByPerson():
                await self._decide_by_person(action, at)
            case AcceptRound():
                await self._accept(action, at)
            case AskLeave():
                await self._ask(action, at)
            case AnswerLaunch():
                await self._answer_launch(action, at)
            case AnswerCalls():
                await self._answer_calls(action, at)

    async def _record_agent_review(self, action: RecordAgentReview, at: Gathered) -> None:
        """Make the Review object of an agent's verdict, and count it."""
        session, verdict = action.session, action.verdict
        assert session.view is not None
        offer = session.view.offer
        spec = {
            "taskRef": {"name": at.obj["metadata"]["name"], "uid": at.obj["metadata"]["uid"]},
            "gate": Gate.OUTPUTS.value,
            "round": action.round,
            "verdict": verdict.verdict.value,
            "subjects": [subject.wire() for subject in verdict.subjects],
            "findings": list(verdict.findings),
            "sessionRef": {"name": session.name, "uid": session.uid},
            "agentRef": {"name": offer.agent_name, "uid": offer.agent_uid},
        }
        name = object_name(
            at.obj["metadata"]["name"], f"review-{action.round}", fingerprint(session.uid, str(action.round))
        )
        review = await create_review(self._context, name, spec, at)
        await self._observer.observe(review, stream=stream_of(at))
        reviewer = next((a for a in at.facts.agents if a.uid == offer.agent_uid), None)
        principal = reviewer.principal if reviewer is not None else None
        if principal is None:
            principal = next(
                (p.principal for p in at.facts.decisions.placements if p.agent_uid == offer.agent_uid), None
            )
        facts = ReviewFacts(
            review["metadata"]["name"], review["metadata"]["uid"], principal, session.uid, offer.agent_uid
        )
        await self._count(action.round, verdict, facts, review, at, decides=action.decides)

    async def _decide_by_person(self, action: DecideByPerson, at: Gathered) -> None:
        """Count a person's verdict."""
        person = action.review
        obj = await self._observed(person, at)
        facts = ReviewFacts(person.name, person.uid, person.principal)
        said = VerdictFile(person.verdict, person.findings, person.subjects)
        await self._count(action.round, said, facts, obj, at, decides=action.decides)

    async def _observed(self, person: PersonReview, at: Gathered) -> Object:
        obj = self._context.index.by_uid(person.uid)
        if obj is None:
            raise Conflict(f"Review {person.name} is gone; deciding again without it")
        await self._observer.observe(obj, stream=stream_of(at))
        return obj

    async def _count(
        self, round_: int, said: VerdictFile, facts: ReviewFacts, review: Object, at: Gathered, *, decides: bool
    ) -> None:
        """Log the verdict and, after it, what it decides; both in one append, so never the second alone."""
        stream, subject = stream_of(at), subject_of(at.obj)
        judged = self._judged(round_, said.subjects, at)
        actor = facts.principal or SYSTEM_ACTOR
        uids = [item["metadata"]["uid"] for item in judged]
        bodies = [review_recorded(subject_of(review), stream, actor, facts, said.verdict, said.subjects, uids)]
        if said.verdict is Verdict.REJECT:
            digest = await self._context.store_lines(said.findings)
            bodies.append(task_rejected(subject, stream, round_, facts, digest, len(said.findings)))
        elif decides:
            bodies.append(task_accepted(subject, stream, round_, [facts], said.subjects))
        else:
            bodies.append(approval_given(subject, stream, _approval_of(facts, round_, said.subjects)))
        await self._append(bodies, at)
        if said.verdict is Verdict.APPROVE and not decides:
            await tell(self._context, at, "Normal", "Approved", f"Review {facts.name} approved round {round_}; others "
                       "must approve too", facts.uid)  # fmt: skip
            return
        self._wake(judged)
        if said.verdict is Verdict.APPROVE:
            await self._tell_accepted(at, facts.name, round_)
        else:
            text = f"Review {facts.name} rejected round {round_}: {'; '.join(said.findings)}"
            await tell(self._context, at, "Warning", "Rejected", text[:1000], str(round_))

    async def _accept(self, action: AcceptRound, at: Gathered) -> None:
        """As many have approved as were asked for."""
        given = at.facts.decisions.approvals_of(action.round)
        reviews = [
            ReviewFacts(item.review_name or "", item.review_uid or "", item.principal, item.session_uid, item.agent_uid)
            for item in given
        ]
        subjects = given[-1].subjects
        await self._append([task_accepted(subject_of(at.obj), stream_of(at), action.round, reviews, subjects)], at)
        self._wake(self._judged(action.round, subjects, at))
        await self._tell_accepted(at, reviews[-1].name, action.round)

    async def _ask(self, action: AskLeave, at: Gathered) -> None:
        """The entry whose time counts."""
        session = action.session
        body = approval_asked(subject_of(at.obj), stream_of(at), action.round, session.uid, launch_subjects(session))
        await self._append([body], at)
        policy = at.facts.task.spec.approval
        people = " or ".join(policy.people) if policy is not None else ""
        text = f"Session {session.name} waits for leave by {people}: `triplane review approve`"
        await tell(self._context, at, "Normal", "WaitingForApproval", text[:1000], session.uid)

    async def _answer_launch(self, action: AnswerLaunch, at: Gathered) -> None:
        """Leave is given or refused, by a person or by default."""
        session, review = action.session, action.review
        subject, stream = subject_of(at.obj), stream_of(at)
        subjects = launch_subjects(session)
        approval = _leave(Gate.LAUNCH, action.round, session.uid, session.uid, subjects, review)
        if review is None:
            await self._append([approval_given(subject, stream, approval)], at)
            text = f"Nobody answered in time: session {session.name} is launched by default (approval.onTimeout)"
            await tell(self._context, at, "Normal", "ApprovedByDefault", text, session.uid)
            return
        recorded = await self._verdict(review, at)
        if review.verdict is Verdict.APPROVE:
            await self._append([recorded, approval_given(subject, stream, approval)], at)
            text = f"Review {review.name} gave leave to launch session {session.name}"
            await tell(self._context, at, "Normal", "LaunchApproved", text, session.uid)
            return
        findings = await self._context.store_lines(review.findings)
        message = f"Review {review.name} refused leave to launch session {session.name}: {'; '.join(review.findings)}"
        digest = await self._context.store_lines([message[:1024]])
        refused = approval_refused(subject, stream, approval, findings)
        failed = task_failed(subject, stream, action.round, "ApprovalDenied", digest)
        await self._append([recorded, refused, failed], at)
        await tell(self._context, at, "Warning", "ApprovalDenied", message[:1000], session.uid)

    async def _answer_calls(self, action: AnswerCalls, at: Gathered) -> None:
        """First the log, then the answer the call waits for."""
        session, review = action.session, action.review
        subject, stream = subject_of(at.obj), stream_of(at)
        approved = review.verdict is Verdict.APPROVE
        bodies = [await self._verdict(review, at)]
        findings = None if approved else await self._context.store_lines(review.findings)
        for question in action.questions:
            subjects = (Subject(name=question.invocation, digest=question.digest),)
            key = f"{session.uid}.{question.invocation}"
            approval = _leave(Gate.TOOL, review.round, key, session.uid, subjects, review)
            if findings is None:
                bodies.append(approval_given(subject, stream, approval, run=question.run, tool=question.tool))
            else:
                more = {"run": question.run, "tool": question.tool}
                bodies.append(approval_refused(subject, stream, approval, findings, **more))
        await self._append(bodies, at)
        for question in action.questions:
            await self._context.sessions.answer(
                session.uid, question.invocation, approved=approved, review=review.uid,
                principal=review.principal or SYSTEM_ACTOR,
            )  # fmt: skip
        did = "gave leave to call" if approved else "refused leave to call"
        calls = ", ".join(question.tool for question in action.questions)
        reason = "CallApproved" if approved else "CallRefused"
        await tell(self._context, at, "Normal", reason, f"Review {review.name} {did} {calls}"[:1000], review.uid)

    async def _verdict(self, review: PersonReview, at: Gathered) -> EventBody:
        obj = await self._observed(review, at)
        facts = ReviewFacts(review.name, review.uid, review.principal)
        actor = review.principal or SYSTEM_ACTOR
        return review_recorded(
            subject_of(obj), stream_of(at), actor, facts, review.verdict, review.subjects, gate=review.gate
        )

    async def _append(self, bodies: Sequence[EventBody], at: Gathered) -> None:
        """What stands in the log stands: of several entries a crash may have left the first. Signed statements go
        with the others."""
        await self._attestor.append_verdicts(bodies, at)

    def _judged(self, round_: int, subjects: Sequence[Subject], at: Gathered) -> list[Object]:
        return [
            item
            for item in self._context.index.children("Artifact", "task", at.obj["metadata"]["uid"])
            if Subject(name=item["spec"]["name"], digest=item["spec"]["digest"]) in subjects
            and item["spec"]["round"] == round_
        ]

    def _wake(self, judged: Sequence[Object]) -> None:
        for item in judged:
            self._context.enqueue(Key.of(item), 0)

    async def _tell_accepted(self, at: Gathered, review: str, round_: int) -> None:
        await tell(self._context, at, "Normal", "Accepted", f"Review {review} approved round {round_}", str(round_))


def _approval_of(facts: ReviewFacts, round_: int, subjects: Sequence[Subject]) -> Approval:
    return Approval(
        Gate.OUTPUTS, round_, facts.uid, tuple(subjects), facts.name, facts.uid, facts.principal, facts.session_uid,
        facts.agent_uid,
    )  # fmt: skip


def _leave(
    gate: Gate, round_: int, key: str, session_uid: str, subjects: Sequence[Subject], review: PersonReview | None
) -> Approval:
    if review is None:
        return Approval(gate, round_, key, tuple(subjects), session_uid=session_uid)
    return Approval(
        gate, round_, key, tuple(subjects), review.name, review.uid, review.principal, session_uid=session_uid
    )
