"""Callers of the system, who remember what they were told.

A plan's faults must not take back an answer. One witness asks the gateway for principals of new users all the while;
another reads the log as it grows. What the gateway's own log says it answered to runners is a third.
"""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson
import psycopg

from tests.faults.installation import Installation, read_json_lines
from tests.faults.invariants import Acknowledged, LogRow
from triplane.adapters.postgres.connection import dsn
from triplane.wiring import gateway_url, service_token

ASK_SECONDS = 0.5
READ_SECONDS = 0.1


def read_log(installation: Installation, after: int = -1) -> list[LogRow]:
    """The entries as they lie in the database, past everything of ours that reads them."""
    with psycopg.connect(dsn(installation.settings, "verifier"), connect_timeout=5) as connection:
        rows = connection.execute(
            "SELECT seq, octets FROM log.entries WHERE seq > %s ORDER BY seq", (after,)
        ).fetchall()
    return [LogRow(seq, bytes(octets), orjson.loads(bytes(octets))) for seq, octets in rows]


class Witness:
    """Asks and reads in two threads between ``start`` and ``stop``."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._ending = threading.Event()
        self._users: dict[str, str | None] = {}
        self.seen: dict[int, bytes] = {}
        self.size = 0
        """Entries of the log as last read."""
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in (self._ask, self._read)]

    def start(self) -> None:
        """Begin to ask and to read; ``size`` is known when this returns."""
        rows = read_log(self._installation)
        self.size = len(rows)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def told(self) -> Acknowledged:
        """What was answered so far. A user whose question had no answer is asked for again: then the id must be the
        one that an answer lost on its way had."""
        ids = {f"principal.created/{id_}/0" for id_ in self._users.values() if id_ is not None}
        for user, id_ in list(self._users.items()):
            if id_ is None:
                ids.add(f"principal.created/{self._question(user)}/0")
        return Acknowledged(
            frozenset(ids | set(_answered_to_runners(self._installation))), frozenset(), dict(self.seen)
        )

    def _ask(self) -> None:
        while not self._ending.is_set():
            user = f"witness-{uuid.uuid4().hex}"
            self._users[user] = None
            with contextlib.suppress(httpx.HTTPError):
                self._users[user] = self._question(user)
            self._ending.wait(ASK_SECONDS)

    def _question(self, user: str) -> str:
        settings = self._installation.settings
        answer = httpx.post(
            f"{gateway_url(settings)}/v1/principals",
            json={"username": user, "uid": ""},
            headers={"Authorization": f"Bearer {service_token(settings, 'operator')}"},
            timeout=20.0, trust_env=False,
        )  # fmt: skip
        return str(answer.raise_for_status().json()["id"])

    def _read(self) -> None:
        while not self._ending.wait(READ_SECONDS):
            with contextlib.suppress(psycopg.Error):
                for row in read_log(self._installation, self.size - 1):
                    self.seen[row.seq] = row.octets
                    self.size = row.seq + 1


def _answered_to_runners(installation: Installation) -> Iterator[str]:
    for line in read_json_lines(installation.services["gateway"].process.log):
        if line.get("event") in {"run claimed", "run finished"}:
            yield f"{line['event'].replace(' ', '.')}/{line['session']}/{line['run']}"


@contextmanager
def witnessing(installation: Installation) -> Iterator[Witness]:
    """A witness for the time of the block."""
    witness = Witness(installation)
    witness.start()
    try:
        yield witness
    finally:
        witness.stop()
