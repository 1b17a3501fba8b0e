"""Objects come, change and go in rounds of equal size: after every round the operator must be as large as after the
first. What it kept of each object that is gone would add up."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.api import Api
from tests.e2e.stack import condition, graph
from tests.faults import workload
from tests.faults.installation import Installation
from triplane.adapters.postgres.connection import dsn
from triplane.api.text import API_VERSION

WRITERS = 6
GROWTH_MIB = 12.0
"""What the allocator may keep between two rounds of the same size."""
SECONDS_PER_OBJECT = 0.25
"""On a busy machine; a quiet one needs a tenth of it."""


@dataclass(frozen=True)
class Soak:
    """What was seen."""

    namespace: str
    objects: int
    rss: Sequence[float]
    """MiB of the operator after each round; the first of them fills the caches."""
    seconds: float

    def problems(self) -> list[str]:
        """What is wrong, in words."""
        first, last = self.rss[0], self.rss[-1]
        if last - first <= GROWTH_MIB:
            return []
        return [f"the operator grew from {first:.0f} to {last:.0f} MiB over {len(self.rss) - 1} rounds: {self.rss}"]


def soak(installation: Installation, api: Api, *, objects: int, rounds: int) -> Soak:
    """Create, edit and delete ``objects`` Graphs, ``rounds`` times over; every one must be answered every time."""
    began = time.monotonic()
    namespace = f"soak-{objects}"
    before = _gone(installation)
    workload.open_namespace(installation, namespace)
    names = [f"g-{number:05}" for number in range(objects)]
    rss = []
    with installation.api("alice") as alice:
        for round_ in range(rounds):
            _each(names, lambda name: alice.create(graph(namespace, name)))
            _wait(lambda: _answered(api, namespace, 1) == objects, objects, "created objects are not answered")
            title = {"spec": {"title": f"round {round_}"}}
            _each(names, lambda name, title=title: alice.merge(graph(namespace, name), title))  # type: ignore[misc]
            _wait(lambda: _answered(api, namespace, 2) == objects, objects, "edited objects are not answered")
            _each(names, lambda name: alice.delete(graph(namespace, name)))
            _wait(lambda: _gone(installation) >= before + objects * (round_ + 1), objects, "deletions are not seen")  # type: ignore[misc] # noqa: B023
            rss.append(_rss_mib(installation))
    return Soak(namespace, objects, rss, time.monotonic() - began)


def _each(names: Sequence[str], send: Callable[[str], Any]) -> None:
    with ThreadPoolExecutor(WRITERS) as pool:
        for answer in pool.map(send, names):
            answer.raise_for_status()


def _answered(api: Api, namespace: str, generation: int) -> int:
    """How many Graphs have a status of that generation."""
    count, token = 0, ""
    while True:
        query = {"limit": "1000", **({"continue": token} if token else {})}
        answer = api.request("GET", f"/apis/{API_VERSION}/namespaces/{namespace}/graphs", params=query)
        page = answer.raise_for_status().json()
        count += sum(condition(item, "Ready").get("observedGeneration") == generation for item in page["items"])
        token = page["metadata"].get("continue", "")
        if not token:
            return count


def _gone(installation: Installation) -> int:
    with psycopg.connect(dsn(installation.settings, "verifier"), connect_timeout=5) as connection:
        row = connection.execute("SELECT count(*) FROM log.entry_ids WHERE id LIKE 'resource.gone/%'").fetchone()
    assert row is not None
    return int(row[0])


def _wait(done: Callable[[], bool], objects: int, otherwise: str) -> None:
    deadline = time.monotonic() + max(30.0, objects * SECONDS_PER_OBJECT)
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(1)


def _rss_mib(installation: Installation) -> float:
    """Resident memory of the operator (proc_pid_status(5), VmRSS)."""
    identity = installation.services["operator"].process.running()
    assert identity is not None
    for line in Path(f"/proc/{identity.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise AssertionError("no VmRSS")
