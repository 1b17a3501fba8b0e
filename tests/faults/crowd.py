"""Many processes append to one log while everything they depend on fails; what they wrote down is then checked.

One seed names the writers' choices and the order of the faults. The moments are those of the machine, so a seed repeats
the kind of run, not its every interleaving; a history that is not sound is kept beside the log it is of.
"""

import itertools
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg.conninfo import make_conninfo

from tests.conftest import Database
from tests.faults.history import Attempt, Entry, Epoch, History, Problem, Result, check, entry_of
from tests.faults.rules import LoseReply
from tests.faults.scribe import VALUE, Task, read, write
from tests.faults.tcpproxy import DatabaseProxy, statement

DONE_SECONDS = 180.0
GOING_ON, GOING_ON_SECONDS = 3, 30.0
LEADER = "leader"
"""The writer name that two processes take from each other, by epochs."""
RETRY_SECONDS = 1.0
"""Shorter than in production, so that there are unknown outcomes within seconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many write how much, and how much befalls them."""

    seed: int
    writers: int = 4
    lanes: int = 3
    appends: int = 25
    faults: int = 10
    kinds: tuple[str, ...] = ()
    """Of the faults; empty for all."""
    durable: bool = True

    def __str__(self) -> str:
        return f"{self.writers} writers × {self.lanes} × {self.appends} appends, {self.faults} faults, seed {self.seed}"


@dataclass
class Findings:
    """What came of a run."""

    problems: Sequence[Problem]
    results: Counter[str]
    """Attempts by their result."""
    faults: Counter[str]
    entries: int


class Crowd:
    """Writers, a reader, and what befalls them."""

    def __init__(self, database: Database, folder: Path, plan: Plan) -> None:
        self._database = database
        self._folder = folder
        self._plan = plan
        self._chance = random.Random(plan.seed)  # repeatable, not secret
        self._proxy = DatabaseProxy(database.server.embedded.socket, folder / "proxy")
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["tests.faults.scribe"])
        self._writers: dict[int, BaseProcess] = {}
        self._tasks: dict[int, Task] = {}
        self._struck: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    def run(self) -> Findings:
        """The whole of it; raises ``AssertionError`` when somebody does not come to an end."""
        before = len(self._entries())
        self._proxy.start()
        notes = self._folder / "reader"
        reader = self._processes.Process(target=read, args=(self._dsn("verifier"), notes), daemon=True)
        reader.start()
        try:
            for place in range(self._plan.writers):
                self._start(LEADER if place < 2 else f"writer{place}")
            self._befall()
            self._wait("the writers end", lambda: not any(each.is_alive() for each in self._writers.values()))
            self._wait("the connections of the dead are gone", lambda: self._backends() == [])
            log = self._entries()
            self._wait("the reader has seen everything", lambda: len(list(_lines(notes))) >= len(log))
        finally:
            for process in (*self._writers.values(), reader):
                process.kill()
                process.join()
            self._proxy.stop()
        history = self._history(notes)
        return Findings(
            check(history, log, before=before),
            Counter(str(attempt.result) for attempt in history.attempts),
            self._struck,
            len(log),
        )

    def _dsn(self, login: str) -> str:
        return make_conninfo(self._database.dsn(login), host=str(self._proxy.folder))

    def _start(self, writer: str) -> None:
        number = next(self._numbers)
        task = Task(
            dsn=self._dsn("operator"),
            writer=writer,
            number=number,
            seed=self._plan.seed * 1000 + number,
            lanes=self._plan.lanes,
            appends=self._plan.appends,
            leads=writer == LEADER,
            notes=self._folder / f"writer-{number}",
            retry_seconds=RETRY_SECONDS,
            durable=self._plan.durable,
        )
        process = self._processes.Process(target=write, args=(task,), daemon=True)
        process.start()
        self._writers[number], self._tasks[number] = process, task

    # What befalls them

    def _befall(self) -> None:
        """One fault after the other, each kind before any comes again."""
        kinds = self._kinds()
        order: list[str] = []
        while len(order) < self._plan.faults:
            order += self._chance.sample(self._plan.kinds or sorted(kinds), len(self._plan.kinds or kinds))
        for kind in order[: self._plan.faults]:
            if not self._living():
                self._start(f"writer{next(self._numbers)}")  # there is always somebody to be struck
            self._let_them_go_on()
            time.sleep(self._chance.uniform(0.05, 0.3))
            kinds[kind]()
            self._struck[kind] += 1

    def _let_them_go_on(self) -> None:
        """Until some more appends were acknowledged, so that every fault meets somebody at work."""
        wanted = self._acknowledged() + GOING_ON
        deadline = time.monotonic() + GOING_ON_SECONDS
        while self._acknowledged() < wanted and self._living() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _acknowledged(self) -> int:
        return sum(
            task.notes.read_bytes().count(b'"what":"ok"') for task in self._tasks.values() if task.notes.exists()
        )

    def _kinds(self) -> Mapping[str, Callable[[], None]]:
        return {
            "connections cut": self._proxy.cut,
            "silence": self._silence,
            "reply to a commit lost": self._lose_reply,
            "connections refused": self._refuse,
            "writer stopped": self._stop,
            "writer killed": self._kill,
            "backends ended": self._end_backends,
            "backend killed": self._kill_backend,
            "server killed": self._restart,
        }

    def _silence(self) -> None:
        self._proxy.frozen = True
        time.sleep(self._chance.uniform(0.2, 0.6))
        self._proxy.frozen = False

    def _lose_reply(self) -> None:
        with self._proxy.rule(statement(r"log\.log_append"), LoseReply(), times=2) as rule:
            deadline = time.monotonic() + 2
            while not rule.struck and time.monotonic() < deadline and self._living():
                time.sleep(0.01)

    def _refuse(self) -> None:
        self._proxy.refusing = True
        self._proxy.cut()
        time.sleep(self._chance.uniform(0.2, 0.5))
        self._proxy.refusing = False

    def _stop(self) -> None:
        with self._some_writer() as (_, process):
            os.kill(process.pid or 0, signal.SIGSTOP)
            time.sleep(self._chance.uniform(0.2, 0.6))
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGCONT)

    def _kill(self) -> None:
        with self._some_writer() as (number, process):
            process.kill()
            process.join()
            self._start(self._tasks[number].writer)

    def _end_backends(self) -> None:
        with suppress(psycopg.OperationalError), self._database.superuser() as superuser:
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'triplane log %append'"
            )

    def _kill_backend(self) -> None:
        backends = self._backends()
        if backends:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(backends), signal.SIGKILL)

    def _restart(self) -> None:
        self._database.server.embedded.kill()
        self._database.server.embedded.start()

    @contextmanager
    def _some_writer(self) -> Iterator[tuple[int, BaseProcess]]:
        number = self._chance.choice(self._living() or sorted(self._writers))
        yield number, self._writers[number]

    def _living(self) -> list[int]:
        return sorted(number for number, process in self._writers.items() if process.is_alive())

    def _backends(self) -> list[int]:
        """Process ids of those that serve appenders; of nobody while the server recovers."""
        deadline = time.monotonic() + DONE_SECONDS
        while True:
            try:
                with self._database.superuser() as superuser:
                    rows = superuser.execute(
                        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'triplane log %append'"
                    ).fetchall()
                return [row[0] for row in rows]
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server does not come back"
                time.sleep(0.05)

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DONE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"{self._plan}: not within {DONE_SECONDS:.0f} s: {what}; {self._folder}"
            time.sleep(0.05)

    # What they wrote down

    def _entries(self) -> list[Entry]:
        with self._database.superuser() as superuser:
            rows = superuser.execute(
                "SELECT octets FROM log.entries WHERE origin = %s ORDER BY seq", (self._database.origin,)
            )
            return [entry_of(bytes(row[0]), VALUE) for row in rows.fetchall()]

    def _history(self, reader: Path) -> History:
        attempts: list[Attempt] = []
        epochs: list[Epoch] = []
        for task in self._tasks.values():
            found = _Book(task.writer, task.number)
            for line in _lines(task.notes):
                found.note(line)
            attempts += found.attempts()
            epochs += found.epochs
        seen = tuple((line["seq"], line["leaf"]) for line in _lines(reader))
        return History(tuple(attempts), tuple(epochs), {"the reader": seen})


@dataclass
class _Book:
    """One writer's notes, being read."""

    writer: str
    number: int
    epoch: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    _attempts: dict[int, Attempt] = field(default_factory=dict)

    def note(self, line: Mapping[str, Any]) -> None:
        match line["what"]:
            case "epoch":
                self.epoch = line["number"]
                self.epochs.append(Epoch(self.writer, self.epoch, line["at"]))
            case "invoke":
                bodies = tuple((body[0], body[1]) for body in line["bodies"])
                self._attempts[line["attempt"]] = Attempt(self.writer, bodies, line["at"])
            case "ok" | "fail" | "info" as result:
                receipts = tuple((each[0], each[1], each[2]) for each in line.get("receipts", ()))
                attempt = self._attempts[line["attempt"]]
                # What was queued before a new epoch is appended under that one: it counts as of the end.
                self._attempts[line["attempt"]] = replace(
                    attempt, ended=line["at"], result=Result(result), receipts=receipts, epoch=self.epoch
                )

    def attempts(self) -> list[Attempt]:
        """All of them; those that never ended are of the last epoch the writer had."""
        return [
            attempt if attempt.ended is not None else replace(attempt, epoch=self.epoch)
            for attempt in self._attempts.values()
        ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines only: the last may have been cut by a kill."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield orjson.loads(line)
