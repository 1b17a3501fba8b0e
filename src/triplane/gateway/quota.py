"""How many octets of blobs one run may store. What is stored is counted in the session store, which outlives this
process; what is on its way is counted here, so that many uploads at once do not pass the limit together.

With several gateways each counts only its own uploads on their way: a run can pass the limit by what it sends through
the others at the same moment, once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from triplane.domain.session import RunView
from triplane.gateway.answers import Refusal

QUOTA_EXCEEDED: Final = "RunQuotaExceeded"


@dataclass(slots=True)
class _Run:
    used: int = 0
    under_way: int = 0
    uploads: int = 0


class Upload:
    """One body on its way."""

    def __init__(self, run: _Run, limit: int, name: str) -> None:
        self._run = run
        self._limit = limit
        self._name = name
        self.octets = 0

    def take(self, octets: int) -> None:
        """So many more have arrived. Raises 413 ``RunQuotaExceeded`` as soon as the run would have stored too much."""
        self.octets += octets
        self._run.under_way += octets
        if self._run.used + self._run.under_way > self._limit:
            self.end()
            raise Refusal(
                413,
                QUOTA_EXCEEDED,
                f"{self._name} may store {self._limit} octets of blobs, and has stored {self._run.used}: this one is "
                "too much. Produce less, or let whoever runs the gateway raise TRIPLANE_RUN_OCTETS",
                limit=self._limit,
                stored=self._run.used,
            )

    def stored(self, total: int) -> None:
        """It was stored; ``total`` is what counts as the run's now."""
        self._run.used = max(self._run.used, total)

    def end(self) -> None:
        """It is on its way no more, however it ended."""
        self._run.under_way -= self.octets
        self.octets = 0


class RunQuotas:
    """The runs that upload through this process now."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: dict[tuple[str, int], _Run] = {}

    @contextmanager
    def upload(self, session_uid: str, view: RunView) -> Iterator[Upload]:
        """One upload of the run."""
        key = (session_uid, view.run)
        run = self._runs.setdefault(key, _Run())
        run.used = max(run.used, view.blob_octets)
        run.uploads += 1
        upload = Upload(run, self._limit, f"run {view.run} of session {session_uid}")
        try:
            yield upload
        finally:
            upload.end()
            run.uploads -= 1
            if not run.uploads:
                del self._runs[key]
