"""Gathers what the checks of ``invariants.py`` look at: from the database, the disk, the API server and /proc."""

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psycopg

from tests.e2e.api import Api
from tests.faults import workload
from tests.faults.installation import Installation, processes_in
from tests.faults.invariants import (
    Acknowledged,
    Leftovers,
    LogRow,
    accepted_once,
    acknowledged_once,
    all_succeeded,
    artifacts_once,
    blobs_there,
    explained,
    nothing_left,
    runs_end_once,
    silent,
)
from tests.faults.witness import read_log
from triplane.adapters.postgres.connection import dsn
from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION
from triplane.controllers.rebuild import Rebuilder, differences
from triplane.wiring import open_rebuild, open_verifier

GRAPH_SECONDS = 60.0
"""What a crash kept out of the graph, the operator's next sweep projects into it."""
DOCUMENT_OCTETS = 256 * 1024
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
SETTLE_SECONDS = 10.0
"""The last roll-ups and clean-ups may take so long after the last Task succeeded."""


def verified(installation: Installation) -> list[str]:
    """I1: the whole chain verifies."""

    async def verify() -> list[str]:
        backends = await open_verifier(installation.settings)
        try:
            found = await backends.log.verify_chain()
        finally:
            await backends.close()
        return [] if found.ok and found.count > 0 else [f"the chain does not verify: {found}"]

    return asyncio.run(verify())


def graph_differs(installation: Installation) -> list[str]:
    """I6: where the live resource graph is not what the log says, as `triplane graph rebuild --check` tells it."""

    async def check() -> list[str]:
        backends = await open_rebuild(installation.settings, write=False)
        try:
            _, found = await differences(Rebuilder(backends.log, backends.graph, backends.load), backends.graph)
        finally:
            await backends.close()
        return [str(item) for item in found]

    return asyncio.run(check())


def leftovers(installation: Installation) -> Leftovers:
    """What sessions have left on this machine and in the stores."""
    settings = installation.settings
    with psycopg.connect(dsn(settings, "operator"), connect_timeout=5) as connection:
        live = connection.execute("SELECT session_uid FROM sessions.runs WHERE state IN ('claimed', 'started')")
        sessions = [str(row[0]) for row in live.fetchall()]
    folder = settings.run / "sessions"
    return Leftovers(
        processes=processes_in(folder),
        workspaces=sorted(os.listdir(folder)) if folder.is_dir() else (),
        live=sessions,
        blobs=_stored(settings.cas),
        links=_links(settings.cas),
        temporaries=sorted(os.listdir(settings.cas / "tmp")),
    )


def _stored(cas: Path) -> frozenset[str]:
    return frozenset(f"sha256:{path.name}" for path in (cas / "blobs" / "sha256").glob("??/??/*"))


def _links(cas: Path) -> dict[str, frozenset[str]]:
    """What digests stand in each blob that could be a document."""
    links = {}
    for path in (cas / "blobs" / "sha256").glob("??/??/*"):
        with contextlib.suppress(OSError):
            if path.stat().st_size <= DOCUMENT_OCTETS and (found := _DIGEST.findall(path.read_bytes())):
                links[f"sha256:{path.name}"] = frozenset(digest.decode() for digest in found)
    return links


def versions(api: Api, installation: Installation) -> dict[str, str]:
    """uid → resourceVersion of everything of ours in every namespace, and ``log`` → its size."""
    found = {}
    for kind in KINDS:
        answer = api.request("GET", f"/apis/{API_VERSION}/{KINDS[kind].info.plural}").raise_for_status()
        for item in answer.json()["items"]:
            metadata = item["metadata"]
            name = f"{kind} {metadata['namespace']}/{metadata['name']} {metadata['uid']}"
            found[name] = str(metadata["resourceVersion"])
    return found | {"log": str(len(read_log(installation)))}


def broken_silence(installation: Installation, seconds: float) -> list[str]:
    """I3: what is written while nobody asks for anything, once everything has settled."""
    with installation.api("admin") as api:
        settle(lambda: _changing(api, installation), 3 * SETTLE_SECONDS)
        before = versions(api, installation)
        time.sleep(seconds)
        return silent(before, versions(api, installation))


def _changing(api: Api, installation: Installation) -> list[str]:
    before = versions(api, installation)
    time.sleep(3)
    return silent(before, versions(api, installation))


def settle(problems: Callable[[], list[str]], seconds: float = SETTLE_SECONDS) -> list[str]:
    """What is still wrong when it is right, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    while (found := problems()) and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def verdict(installation: Installation, api: Api, work: tuple[workload.Workload, str], told: Acknowledged) -> list[str]:
    """Everything that I1, I2, I4, I5 and I6 find wrong after the work of that namespace has converged."""
    wanted, namespace = work

    def problems() -> list[str]:
        rows = read_log(installation)
        left = leftovers(installation)
        found = workload.objects(api, namespace)
        tasks = _uids(found, "Task")
        rounds = {uid: wanted.rounds[name] for name, uid in tasks.items() if name in wanted.rounds}
        artifacts = [item for item in found if item["kind"] == "Artifact"]
        return [
            *(f"Task {name} is missing or too many" for name in sorted(set(tasks) ^ set(wanted.rounds))),
            *([] if told.seen and told.ids else ["no acknowledgement was seen: nothing is known about them"]),
            *acknowledged_once(rows, told),
            *runs_end_once(rows),
            *blobs_there(rows, left.blobs),
            *accepted_once(rows, rounds),
            *artifacts_once(rows, artifacts, list(tasks.values())),
            *nothing_left(rows, left),
            *explained(found),
            *all_succeeded(found),
        ]

    return [
        *settle(problems),
        *verified(installation),
        *settle(lambda: graph_differs(installation), GRAPH_SECONDS),
    ]


def accepted_tasks(rows: Sequence[LogRow], api: Api, namespace: str) -> frozenset[str]:
    """Names of the namespace's Tasks that the log calls accepted."""
    uids = {row.entry["subject"]["uid"] for row in rows if row.type == "task.accepted"}
    return frozenset(name for name, uid in _uids(workload.objects(api, namespace), "Task").items() if uid in uids)


def _uids(objects: Sequence[Mapping[str, object]], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in objects:
        metadata = item["metadata"]
        assert isinstance(metadata, Mapping)
        if item["kind"] == kind:
            found[str(metadata["name"])] = str(metadata["uid"])
    return found
