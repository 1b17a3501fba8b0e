"""A seed is a plan: which process is killed, at which place, at which passage of it, during which work.

The same seed always gives the same plan. ``MOST`` bounds the passage so that the place is passed that often while the
small work of ``workload.py`` is unfinished, times its scale for larger work; a plan whose place was not reached is
tried again with half the passage.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.faults.workload import FIFTY, SMALL, Workload

LOG_GREW = "log.grew"
"""What is not ours has no failpoint: it is killed from outside when the log has grown by n entries."""
CLUSTER = frozenset({"kube-apiserver", "etcd"})
FIFTY_STEPS = 30
"""The seeds up to this one kill during the example of fifty steps, later ones during the small work."""

MOST: Mapping[str, Mapping[str, int]] = {
    "operator": {
        "log.append.before_commit": 24,
        "log.append.after_commit": 24,
        "kube.write.before": 24,
        "kube.write.after": 24,
        "sessions.before_commit": 10,
        "sessions.after_commit": 10,
    },
    "gateway": {
        "log.append.before_commit": 20,
        "log.append.after_commit": 20,
        "gateway.append.before": 20,
        "gateway.append.after": 20,
        "sessions.before_commit": 16,
        "sessions.after_commit": 16,
        "cas.store.before_link": 16,
        "cas.store.after_link": 16,
    },
    "runner": {
        "session.claimed": 5,
        "session.before_start": 5,
        "session.after_start": 5,
        "session.before_record": 5,
        "session.after_record": 5,
        "session.before_upload": 5,
        "session.before_finish": 5,
        "session.after_finish": 4,
    },
    "postgres": {LOG_GREW: 40},
    "kube-apiserver": {LOG_GREW: 40},
    "etcd": {LOG_GREW: 40},
}
FIRST = {("operator", "sessions.before_commit"): 3, ("operator", "sessions.after_commit"): 3}
"""The operator saves its place in the log soon after its start: those passages are not the work's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One kill."""

    seed: int
    victim: str
    """``operator``, ``gateway``, ``runner``, ``postgres``, ``kube-apiserver`` or ``etcd``."""
    place: str
    """A name of ``triplane.failpoint``, or ``LOG_GREW``."""
    passage: int
    """From 1."""
    workload: Workload

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.workload.name}: {self.victim} at {self.place}:{self.passage}"

    def earlier(self) -> "Plan | None":
        """The same place at half the passage; None when there is no earlier one."""
        first = FIRST.get((self.victim, self.place), 1)
        return None if self.passage <= first else replace(self, passage=max(first, self.passage // 2))


def plan_of(seed: int) -> Plan:
    """The plan of this seed."""
    # Text seeds hash the same on every version of Python; numbers need not.
    chance = random.Random(f"triplane kill {seed}")
    workload = FIFTY if seed <= FIFTY_STEPS else SMALL
    victim = chance.choice(sorted(MOST))
    place = chance.choice(sorted(MOST[victim]))
    most = MOST[victim][place] * workload.scale
    return Plan(seed, victim, place, chance.randint(FIRST.get((victim, place), 1), most), workload)
