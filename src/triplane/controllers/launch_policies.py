"""What Policies say of a launch. Asked of the index to foresee it, and of the API server itself before every permit.

At Launch a Policy sees objects as they were declared, without ``status``: what nobody but the operator writes decides
nothing. So the answer is the same as long as nothing declared has changed, and is kept until then.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from triplane.api.authority import Grant
from triplane.api.policy import Stage
from triplane.api.text import SYSTEM_NAMESPACE
from triplane.audit.digest import canonical_json
from triplane.controllers.context import Context
from triplane.controllers.observe import requester_of
from triplane.controllers.policy import record_violations
from triplane.domain.policy import PolicyDecision, PolicyRequest, decision

KEPT: Final = 4096

Object = Mapping[str, Any]
NOTHING_ASKED: Final = decision((), ())


@dataclass(frozen=True)
class LaunchQuestion:
    """Who is to run what, under what."""

    task: Object
    graph: Object
    node: Object | None
    agent: Object
    producer: Object | None
    """Of a review: the Agent whose outputs are reviewed."""
    authority: Grant
    authority_digest: str
    role: str
    round: int
    run: int

    @property
    def namespace(self) -> str:
        return str(self.task["metadata"]["namespace"])

    def on(self, objects: Iterable[Object | None]) -> "LaunchQuestion":
        """The same about these newer readings of the objects: labels change without a generation."""
        fresh = {obj["metadata"]["uid"]: obj for obj in objects if obj is not None}
        seen = {name: getattr(self, name) for name in ("task", "graph", "node", "agent", "producer")}
        return replace(
            self, **{name: fresh.get(obj["metadata"]["uid"], obj) for name, obj in seen.items() if obj is not None}
        )

    def request(self) -> PolicyRequest:
        """As Policies are asked."""
        user = self.task["spec"].get("onBehalfOf") or requester_of(self.task)
        node = _declared(self.node) if self.node is not None else None
        graph = _declared(self.graph)
        return PolicyRequest(
            stage=Stage.LAUNCH,
            operation="LAUNCH",
            kind="Task",
            namespace=self.namespace,
            name=self.task["metadata"]["name"],
            object=_declared(self.task),
            user={"username": user} if user else None,
            graph=graph,
            node=node,
            parent=node or graph,
            agent=_declared(self.agent),
            producer=_declared(self.producer) if self.producer is not None else None,
            authority=self.authority.wire(),
            session={"role": self.role.capitalize(), "round": self.round, "run": self.run},
        )

    def key(self) -> tuple[object, ...]:
        """Equal keys get equal answers from equal Policies."""
        objects = (self.task, self.graph, self.node, self.agent, self.producer)
        return (*map(_fingerprint, objects), self.authority_digest, self.role, self.round, self.run)


class LaunchPolicies:
    """One for all Tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._kept: dict[tuple[object, ...], PolicyDecision] = {}
        self._stored: set[str] = set()

    async def foresee(self, question: LaunchQuestion) -> PolicyDecision:
        """What the Policies in the index say."""
        # One that is being deleted binds until it is gone, as at the API server.
        found = [obj for namespace in _reach(question) for obj in self._context.index.list("Policy", namespace)]
        return await self._ask(found, question)

    async def read(self, namespace: str) -> tuple[Object, ...]:
        """The Policies that may bind this namespace, as the API server has them now; the index learns of them."""
        reach = dict.fromkeys((namespace, SYSTEM_NAMESPACE))
        lists = await asyncio.gather(*(self._context.cluster.list("Policy", each) for each in reach))
        found = [obj for items, _ in lists for obj in items]
        for obj in found:
            self._context.index.put(obj)
        return tuple(found)

    async def decide(self, policies: Sequence[Object], question: LaunchQuestion) -> PolicyDecision:
        """What these say. Violations are in the log, and what was asked in the content store, when it returns."""
        said = await self._ask(policies, question)
        if said.asked and said.digest not in self._stored:
            await self._context.content.store(canonical_json([list(each) for each in said.asked]))
            if len(self._stored) >= KEPT:
                self._stored.clear()
            self._stored.add(said.digest)
        return said

    async def _ask(self, policies: Sequence[Object], question: LaunchQuestion) -> PolicyDecision:
        if not policies:
            return NOTHING_ASKED
        versions = sorted((obj["metadata"]["uid"], obj["metadata"].get("generation", 1)) for obj in policies)
        key = (tuple(versions), question.key())
        kept = self._kept.get(key)
        if kept is None:
            request = question.request()
            kept = await self._context.policies.decide(policies, request)
            await record_violations(self._context, kept, request)
            if kept.unsure:
                return kept  # it could not be asked this time; the next time it may
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[key] = kept
        return kept


def refusal(said: PolicyDecision) -> str | None:
    """Why there is no leave to run, for people; None: no Policy stands in the way."""
    if not said.denied:
        return None
    lines = []
    for each in said.denied[:3]:
        who = each.contact or f"whoever may edit Policy {each.policy} in namespace {each.policy_namespace}"
        lines.append(
            f"Policy {each.policy_namespace}/{each.policy} ({each.rule}, {each.reason}) denies it: {each.message} "
            f"({who} can change that)"
        )
    more = len(said.denied) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _reach(question: LaunchQuestion) -> Sequence[str]:
    return tuple(dict.fromkeys((question.namespace, SYSTEM_NAMESPACE)))


def _declared(obj: Object) -> dict[str, Any]:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": metadata}


def _fingerprint(obj: Object | None) -> object:
    if obj is None:
        return None
    metadata = obj["metadata"]
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    rest = repr([metadata.get(name) for name in ("ownerReferences", "finalizers", "deletionTimestamp")])
    pairs = tuple(sorted(labels.items())), tuple(sorted(notes.items()))
    return metadata["uid"], metadata.get("generation", 1), pairs, rest
