"""What admission costs whoever creates a Task, and how soon a changed Policy binds.

The control plane and the webhook alone, etcd with fsync; the same creates with the webhook's registration there and
taken away, in turns. 20 Policies are about Tasks: each has a match condition, variables, two rules and a message in
CEL, every fourth asks for the Graph and the Agent, which the webhook then reads from the API server.
"""

import asyncio
import shutil
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.bench.figures import Figure, figure
from tests.e2e.api import resource
from tests.e2e.objects import valid
from tests.e2e.stack import Stack, agent, condition, graph, task
from triplane import endpoints
from triplane.api.text import API_VERSION
from triplane.localcluster.caller import Caller
from triplane.localcluster.certificates import Certificates
from triplane.localcluster.controlplane import LocalCluster
from triplane.localcluster.install import install
from triplane.localcluster.services import admission
from triplane.localcluster.webhook import address, configuration, install_webhook
from triplane.settings import Settings

NAMESPACE = "bench"
POLICIES = 20
RATE = 20
"""Creates a second, whatever the answers take."""
PACED = 200
"""Creates at that rate, with the webhook and without, each in ``TURNS`` parts."""
TURNS = 4
CLIENTS = 50
CROWD = 1500
"""Creates of the 50 clients together, likewise."""
CHANGES = 5
_CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/admission.triplane.dev"


def policies() -> list[dict[str, Any]]:
    """Rules of the kinds people write, none of which the Tasks here break."""
    made = []
    for number in range(POLICIES):
        about = "graph.spec.?title.orValue('') != 'frozen' && agent != null" if number % 4 == 0 else "variables.known"
        spec = {
            "title": f"Rule {number}",
            "match": {"kinds": ["Task"], "operations": ["CREATE", "UPDATE"]},
            "stages": ["Admission"],
            "matchConditions": [
                {"name": "not-exempt", "expression": "!('exempt' in object.metadata.?labels.orValue({}))"}
            ],
            "params": {"longest": 4000 + number, "names": ["worker", "writer", "auditor"]},
            "variables": [
                {"name": "agent", "expression": "object.spec.?agentRef.?name.orValue('')"},
                {"name": "known", "expression": "variables.agent in params.names"},
            ],
            "validations": [
                {"expression": f"size(object.spec.objective) <= params.longest && {about}", "message": "too long"},
                {
                    "expression": "object.spec.?outputs.orValue([]).all(o, !o.path.startsWith('/'))",
                    "messageExpression": "'Task ' + object.metadata.name + ' writes outside'",
                },
            ],
        }
        made.append(resource("Policy", NAMESPACE, f"rule-{number}", spec))
    return made


class Bench:
    """One control plane, one webhook, and a user whose creates are timed."""

    def __init__(self, settings: Settings, cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._cluster = cluster
        self._http = http
        self._path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/tasks"
        self._made = 0

    async def register(self, *, there: bool) -> None:
        """With the webhook in force, or without it."""
        url, bundle = address(self.settings.run), Certificates.of(self.settings).bundle()
        async with self._cluster.api_server() as server:
            if there:
                await install_webhook(server, url, bundle)
                return
            # Left registered for nothing, so that the configuration's turn of being asked is the same.
            document = configuration(url, bundle)
            for webhook in document["webhooks"]:
                webhook["rules"][0]["resources"] = ["none"]
            await server.apply(document)
        await asyncio.sleep(1.0)

    async def create(self) -> float:
        """Seconds until the API server has answered that the Task is made."""
        self._made += 1
        body = task(NAMESPACE, f"t-{self._made}")
        began = time.perf_counter()
        async with self._http.post(self._path, json=body) as answer:
            text = await answer.text()
            assert answer.status == 201, text
        return time.perf_counter() - began

    async def paced(self, count: int) -> list[float]:
        """Creates at a fixed rate; the next does not wait for the last."""
        began, pending = time.perf_counter(), []
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            pending.append(asyncio.create_task(self.create()))
        return list(await asyncio.gather(*pending))

    async def crowd(self, count: int) -> list[float]:
        """50 clients, each of which creates again as soon as it is answered."""
        seconds: list[float] = []
        left = iter(range(count))

        async def client() -> None:
            for _ in left:
                seconds.append(await self.create())  # noqa: PERF401  # clients share the list

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        return seconds


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Everything up, Policies in force, warm."""
    home = Path(tempfile.mkdtemp(prefix="tri-ba-"))
    settings = Settings(home=home)
    cluster, service = LocalCluster(settings, fsync=True), admission(settings)
    try:
        await cluster.up()
        async with cluster.api_server() as server:
            await install(server, settings.secrets, namespaces=[NAMESPACE])
            service.process.start()
            await service.process.wait_ready(service.ready, seconds=60)
            for obj in (graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"]), *policies()):
                await server.apply(obj)
        async with _client(settings.secrets / "kubeconfig-alice") as http:
            found = Bench(settings, cluster, http)
            for there in (False, True):
                await found.register(there=there)
                await found.crowd(100)
            yield found
    finally:
        await service.process.stop()
        await cluster.down()
        shutil.rmtree(home, ignore_errors=True)


def _client(kubeconfig: Path) -> aiohttp.ClientSession:
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = kubeconfig.parent.parent / "cluster" / "pki" / "ca.crt"
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=str(authority)))
    headers = {"Authorization": f"Bearer {user['token']}"}
    return aiohttp.ClientSession(cluster["server"], connector=connector, headers=headers)


async def in_turns(
    found: Bench, load: Callable[[int], Awaitable[list[float]]], count: int
) -> tuple[list[float], list[float]]:
    """Sorted seconds with the webhook and without, measured in turns."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(TURNS):
        for there in (True, False):
            await found.register(there=there)
            seconds[there] += await load(count // TURNS)
    return sorted(seconds[True]), sorted(seconds[False])


def _p99(ordered: Sequence[float]) -> float:
    return ordered[max(0, round(0.99 * len(ordered)) - 1)]


async def creates() -> list[Figure]:
    """The three figures of a create."""
    async with bench() as found:
        asked, unasked = await in_turns(found, found.paced, PACED)
        crowded, free = await in_turns(found, found.crowd, CROWD)
    return [
        figure(
            "admission.p50_ratio",
            1000 * statistics.median(asked),
            "ms",
            reference=1000 * statistics.median(unasked),
            repeat=PACED,
        ),
        figure("admission.p99_ms", 1000 * _p99(asked), "ms", reference=1000 * _p99(unasked), repeat=PACED),
        figure(
            "admission.closed_loop_p99_ratio", 1000 * _p99(crowded), "ms", reference=1000 * _p99(free), repeat=CROWD
        ),
    ]


# -- how soon a Policy binds -------------------------------------------------------------------------------


def _review(name: str) -> dict[str, Any]:
    """What the API server would ask about a Task; a replica is asked directly."""
    made = valid("Task", NAMESPACE, name)
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": name,
            "kind": {"group": "triplane.dev", "version": "v1alpha1", "kind": "Task"},
            "resource": {"group": "triplane.dev", "version": "v1alpha1", "resource": "tasks"},
            "operation": "CREATE",
            "namespace": NAMESPACE,
            "name": name,
            "userInfo": {"username": "somebody"},
            "object": made,
            "dryRun": True,
        },
    }


async def _bound(http: aiohttp.ClientSession, url: str, began: float, *, denied: bool) -> float:
    """Seconds until this replica answers so."""
    while True:
        async with http.post(f"{url}/review/x", json=_review("probe")) as answer:
            body = await answer.json()
        if body["response"]["allowed"] is not denied:
            return time.perf_counter() - began
        assert time.perf_counter() - began < 30, f"{url} does not learn of the Policy"
        await asyncio.sleep(0.002)


async def _replicas(stack: Stack) -> list[float]:
    """Seconds from the answer to each write of a Policy until both replicas go by it."""
    tls = ssl.create_default_context(cafile=str(Certificates.of(stack.settings).trusted))
    seconds = []
    headers = {"Authorization": f"Bearer {Caller.of(stack.settings).token.read_text()}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers) as http:
        for number in range(CHANGES):
            rule = {"expression": "object.metadata.name != 'probe'"}
            spec = {"match": {"kinds": ["Task"]}, "stages": ["Admission"], "validations": [rule]}
            policy = resource("Policy", NAMESPACE, f"change-{number}", spec)
            for denied in (True, False):
                write = stack.admin.create if denied else stack.admin.delete
                (await asyncio.to_thread(write, policy)).raise_for_status()
                began = time.perf_counter()
                own = [str(endpoints.read(stack.settings.run)[f"admission-{replica}"]) for replica in (1, 2)]
                seconds.append(max(await asyncio.gather(*(_bound(http, url, began, denied=denied) for url in own))))
    return seconds


def _launches(stack: Stack) -> list[float]:
    """Seconds from the answer to the create of a Policy until a session that is at work has been stopped for it."""
    seconds = []
    for number in range(CHANGES):
        name = f"at-work-{number}"
        stack.apply(task(NAMESPACE, name))
        stack.wait("Task", NAMESPACE, name, lambda obj: obj.get("status", {}).get("state") == "running")
        spec = {
            "match": {"kinds": ["Task"]},
            "stages": ["Launch"],
            "validations": [{"expression": f"object.metadata.name != '{name}'"}],
        }
        stack.admin.create(resource("Policy", NAMESPACE, f"stop-{number}", spec)).raise_for_status()
        began = time.perf_counter()
        stack.wait("Task", NAMESPACE, name, lambda obj: condition(obj, "Stalled")["reason"] == "PolicyDenied")
        seconds.append(time.perf_counter() - began)
    return seconds


def propagation() -> list[Figure]:
    """The slowest of all changes, at admission and at launch."""
    home = Path(tempfile.mkdtemp(prefix="tri-bp-"))
    stack = Stack.start(home, fsync=True, admission_replicas=2)
    try:
        stack.people(NAMESPACE)
        stack.apply(graph(NAMESPACE), *agent(NAMESPACE, "worker", ["write"], SLEEP="300"))
        stack.apply(*agent(NAMESPACE, "judge", ["review"]), as_="bob")
        admitted, launched = asyncio.run(_replicas(stack)), _launches(stack)
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)
    parts = {"admission": round(max(admitted), 3), "launch": round(max(launched), 3)}
    return [figure("policy.propagation_seconds", max(parts.values()), "s", repeat=3 * CHANGES, parts=parts)]


def figures() -> list[Figure]:
    """All figures of this module."""
    return [*asyncio.run(creates()), *propagation()]
