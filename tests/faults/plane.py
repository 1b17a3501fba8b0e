"""The parts of ``make faults`` that need a database and a folder only: every system call, and many histories."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import drop_database, new_database, running_server
from tests.faults.appendstrikes import Appends
from tests.faults.crowd import Crowd, Plan
from tests.faults.storestrikes import strike_stores
from tests.faults.syscalls import Report
from tests.faults.victims import Nursery

HISTORIES = 30


@contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tri-sc-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def syscalls() -> list[str]:
    """A strike at every system call of a store and of an append, in its client and in its backend."""
    report = Report()
    began = time.monotonic()
    with Nursery() as nursery, _folder() as folder, running_server() as server:

        async def appends() -> None:
            async with Appends(new_database(server), report).opened() as struck:
                for variant in (True, False):
                    await struck.in_the_client(nursery, warm=variant)
                    await struck.in_the_backend(overtaken=variant)

        asyncio.run(strike_stores(nursery, folder, report))
        asyncio.run(appends())
    print(f"{report.table()} in {time.monotonic() - began:.0f} s", flush=True)
    return report.problems


def histories() -> list[str]:
    """Histories of many writers under faults, seeds 1 to ``HISTORIES`` or the one of ``FAULT_SEED``."""
    one = os.environ.get("FAULT_SEED")
    problems: list[str] = []
    with running_server() as server:
        for seed in [int(one)] if one else range(1, HISTORIES + 1):
            plan = Plan(seed, writers=6, appends=40, faults=18)
            folder = Path(tempfile.mkdtemp(prefix="tri-hi-"))
            database = new_database(server)
            findings = Crowd(database, folder, plan).run()
            told = ", ".join(f"{count} {result}" for result, count in sorted(findings.results.items()))
            print(f"{plan}: {told}; {len(findings.problems)} problems", flush=True)
            problems += [f"{plan}: {problem}; {folder}" for problem in findings.problems]
            if not findings.problems:
                shutil.rmtree(folder)
                drop_database(database)
    return problems


PLANE: Mapping[str, Callable[[], list[str]]] = {"syscalls": syscalls, "histories": histories}
