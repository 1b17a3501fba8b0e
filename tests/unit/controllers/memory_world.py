"""The reconcilers over memory stores and a pretended API server, with a crash at any chosen write."""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from tests.simulation.clock import SimulatedClock
from tests.simulation.conditions import InlineExpressions, inline_policies
from tests.simulation.contents import InlineContracts

from triplane.adapters.memory.contentstore import MemoryContentStore
from triplane.adapters.memory.eventlog import MemoryEventLog
from triplane.adapters.memory.graphstore import MemoryGraphStore
from triplane.adapters.memory.sessionstore import MemorySessionStore
from triplane.adapters.memory.signingkeys import MemorySigningKeys
from triplane.api.text import API_VERSION, REQUESTER
from triplane.audit.digest import canonical_json
from triplane.controllers.key import Key
from triplane.controllers.registry import Reconcilers
from triplane.domain.accounts import Accounts
from triplane.domain.session import Claim, Outcome, RunOutput, RunResult
from triplane.domain.warrant import Ceiling
from triplane.errors import Conflict, TriplaneError
from triplane.operator.index import Index
from triplane.ports import KubeEvent

NAMESPACE = "team"
WRITES = frozenset(
    {
        "create", "append", "apply", "link", "offer", "permit", "revoke", "close_session", "write_status", "update",
        "store", "own_blob", "delete", "pass_over", "line_up",
    }
)  # fmt: skip


class KilledError(Exception):
    """The process ended here."""


class Fuse:
    """Counts writes of every plane; at the chosen one the process ends, before or after it took effect."""

    def __init__(self) -> None:
        self.writes = 0
        self.at: int | None = None
        self.after = False

    def guard(self, target: Any) -> Any:
        return _Guarded(target, self)


class _Guarded:
    def __init__(self, target: Any, fuse: Fuse) -> None:
        self._target = target
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in WRITES:
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.writes += 1
            doomed = self._fuse.writes == self._fuse.at
            if doomed and not self._fuse.after:
                raise KilledError(name)
            answer = await found(*args, **kwargs)
            if doomed:
                raise KilledError(name)
            return answer

        return call


class Server:
    """As much of an API server as reconcilers use."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.events: list[KubeEvent] = []
        self._version = 0
        self._uids = 0

    def put(self, kind: str, name: str, spec: Mapping[str, Any], requester: str | None = None) -> dict[str, Any]:
        """What a user applies."""
        annotations = {REQUESTER: requester} if requester else {}
        return self._write(
            {
                "apiVersion": API_VERSION,
                "kind": kind,
                "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
                "spec": dict(spec),
            }
        )

    def edit(self, kind: str, name: str, **spec: Any) -> None:
        """A user alters the spec."""
        obj = self.objects[kind, NAMESPACE, name]
        metadata = {**obj["metadata"], "generation": obj["metadata"]["generation"] + 1}
        self._write({**obj, "metadata": metadata, "spec": {**obj["spec"], **spec}})

    def _write(self, obj: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        self._uids += 1
        metadata = {
            "generation": 1,
            "uid": f"uid-{self._uids}",
            **obj["metadata"],
            "resourceVersion": str(self._version),
        }
        written = {**obj, "metadata": metadata}
        self.objects[obj["kind"], NAMESPACE, metadata["name"]] = written
        return written

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [obj for (found, _, _), obj in self.objects.items() if found == kind]

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        return self.objects.get((kind, namespace, name))

    async def list(self, kind: str, namespace: str | None = None) -> tuple[list[dict[str, Any]], str]:
        items = [obj for obj in self.of(kind) if namespace in (None, obj["metadata"]["namespace"])]
        return items, str(self._version)

    async def create(self, obj: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        standing = self.objects.get((obj["kind"], NAMESPACE, obj["metadata"]["name"]))
        return (standing, False) if standing is not None else (self._write(obj), True)

    async def write_status(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
        standing = self.objects[obj["kind"], NAMESPACE, obj["metadata"]["name"]]
        if standing["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict("it has moved on")
        return self._write({**standing, "status": dict(status)})

    async def delete(self, obj: Mapping[str, Any]) -> bool:
        key = (obj["kind"], NAMESPACE, obj["metadata"]["name"])
        standing = self.objects.get(key)
        if standing is None or standing["metadata"]["uid"] != obj["metadata"]["uid"]:
            return False
        del self.objects[key]
        return True

    async def emit(self, event: KubeEvent) -> None:
        self.events.append(event)


class MemoryWorld:
    """Everything that outlives the operator, and an operator that may be killed and begun again."""

    def __init__(self, accounts: Accounts | None = None) -> None:
        self.accounts = accounts
        self.clock = SimulatedClock()
        self.server = Server()
        self.log = MemoryEventLog(now=self.clock.now)
        self.graph = MemoryGraphStore()
        self.sessions = MemorySessionStore(self.clock)
        self.content = MemoryContentStore()
        self.fuse = Fuse()
        self.pending: deque[Key] = deque()
        self.ceiling = Ceiling()
        self.start()

    def start(self) -> None:
        """A new operator process: nothing but the stores is left of the old one."""
        guard = self.fuse.guard
        self._begun = False
        self.pending.clear()
        self.index = Index(lambda change: self.pending.append(Key.of(change.object)))
        self._reconcilers = Reconcilers(
            guard(self.server), self.index, guard(self.log), guard(self.sessions), guard(self.graph),
            guard(self.content), self._principal, self.clock, lambda key, delay: self.pending.append(key),
            expressions=InlineExpressions(),
            policies=inline_policies(),
            contracts=InlineContracts(self.content),
            keys=MemorySigningKeys(),
            ceiling=self.ceiling,
            accounts=self.accounts,
        )  # fmt: skip
        self.look()

    def look(self) -> None:
        """What a LIST shows."""
        for obj in list(self.server.objects.values()):
            self.index.observe(obj)
            self.pending.append(Key.of(obj))

    async def reconcile(self, key: Key) -> float | None:
        """One reconcile, with what the queue would be answered."""
        return await self._reconcilers.reconcile(key)

    async def settle(self) -> None:
        """Reconcile until nothing is asked for; errors are retried a few times."""
        if not self._begun:
            await self._reconcilers.catch_up()
            self._begun = True
        failures = 0
        while self.pending:
            key = self.pending.popleft()
            while key in self.pending:
                self.pending.remove(key)
            try:
                await self.reconcile(key)
            except TriplaneError:
                failures += 1
                assert failures < 20, key
                self.pending.append(key)
        await self._reconcilers.project()

    async def settle_task(self) -> None:
        """Look at everything again: time has passed."""
        self.look()
        await self.settle()

    async def document(self, digest: str) -> Any:
        """A JSON document of the content store."""
        return json.loads(b"".join([chunk async for chunk in self.content.resolve(digest)]))

    async def run_next(self, text: bytes = b"report") -> Claim | None:
        """A runner takes a run and does it well; None when there is none."""
        claim = await self.sessions.claim("r", "i")
        if claim is None:
            return None
        await self.sessions.start(claim.session_uid, claim.run, {})
        await self.end_well(claim, text)
        self.look()
        return claim

    async def end_well(self, claim: Claim, text: bytes, media_type: str = "text/plain") -> None:
        """The run leaves this text as its report, or approves what it reviews."""
        if claim.role == "producer":
            outputs = (await self._output("report", text, media_type),)
        else:
            reviewed = claim.work_order["review"]["subjects"]
            verdict = {
                "verdict": "Approve", "findings": [],
                "subjects": [{"name": item["name"], "digest": item["digest"]} for item in reviewed],
            }  # fmt: skip
            outputs = (await self._output("verdict", canonical_json(verdict), "application/json"),)
        result = RunResult(Outcome.SUCCEEDED, "Completed", "", outputs)
        await self.sessions.finish(claim.session_uid, claim.run, result)

    async def _output(self, name: str, octets: bytes, media_type: str) -> RunOutput:
        return RunOutput(name, name, await self.content.store(octets), media_type, len(octets))

    @staticmethod
    async def _principal(username: str, uid: str) -> str:
        return f"p-{username}"
