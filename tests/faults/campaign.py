"""One plan: start the work, kill one process in the middle of it, and see that nothing of it shows in the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.e2e.api import Api
from tests.faults import evidence, workload
from tests.faults.installation import Installation
from tests.faults.invariants import explained
from tests.faults.plans import LOG_GREW, Plan
from tests.faults.witness import Witness, read_log, witnessing
from triplane.localcluster.process import Identity, is_alive

CONVERGE_SECONDS = 60.0
STRIKE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a plan."""

    plan: Plan
    """As it struck: the passage may be an earlier one than the seed said."""
    converged_seconds: float
    """From the kill."""
    accepted_at_kill: Sequence[str]
    problems: Sequence[str]

    @property
    def ok(self) -> bool:
        return not self.problems


class NeverStruck(AssertionError):
    """A place was not reached once while the work was unfinished: the plan shows nothing."""


def run_plan(installation: Installation, plan: Plan) -> Outcome:
    """Carry out the plan, in a namespace of its own. Raises ``NeverStruck``, ``AssertionError`` when the work fails
    or does not converge in time."""
    attempt: Plan | None = plan
    number = 1
    while attempt is not None:
        outcome = _attempt(installation, attempt, f"plan-{plan.seed}-{number}")
        if outcome is not None:
            return outcome
        attempt = attempt.earlier()
        number += 1
    raise NeverStruck(f"{plan}: the place was never reached while the work was unfinished")


def _attempt(installation: Installation, plan: Plan, namespace: str) -> Outcome | None:
    """None when the work was done before the place was reached."""
    ended_before = len(installation.restarted)
    workload.open_namespace(installation, namespace)
    workload.apply_people(installation, namespace)
    with installation.api("admin") as api, witnessing(installation) as witness:
        struck = _strike(installation, plan, namespace, api, witness)
        began = time.monotonic()
        workload.wait_succeeded(api, namespace, CONVERGE_SECONDS)
        converged = time.monotonic() - began
        witness.stop()
        problems = evidence.verdict(installation, api, namespace, witness.told())
        problems += [f"{name} ended by itself" for name in installation.restarted[ended_before:]]
    if problems:
        return Outcome(
            plan, converged, struck.accepted if struck else (), [*(struck.problems if struck else ()), *problems]
        )
    if struck is None:
        return None
    return Outcome(plan, converged, struck.accepted, struck.problems)


@dataclass(frozen=True, slots=True)
class _Struck:
    accepted: Sequence[str]
    problems: Sequence[str]


def _strike(installation: Installation, plan: Plan, namespace: str, api: Api, witness: Witness) -> _Struck | None:
    """Apply the work, kill, look at what stands there, start the process again."""
    with installation.held(plan.victim):
        if plan.place == LOG_GREW:
            floor = len(read_log(installation))
            workload.apply_work(installation, namespace)
            if not _grown(witness, floor + plan.passage, api, namespace):
                return None
            accepted = evidence.accepted_tasks(read_log(installation), api, namespace)
            installation.kill(plan.victim)
        else:
            victim = installation.arm(plan.victim, f"{plan.place}:{plan.passage}")
            if not is_alive(victim):
                raise NeverStruck(f"{plan}: {plan.victim} died before there was any work")
            workload.apply_work(installation, namespace)
            if not _died(installation, victim, api, namespace):
                return None
            accepted = evidence.accepted_tasks(read_log(installation), api, namespace)
        if len(accepted) == len(workload.TASKS):
            return None
        # While the process is missing: what is there must tell what it waits for.
        return _Struck(sorted(accepted), explained(workload.objects(api, namespace)))


def _died(installation: Installation, victim: Identity, api: Api, namespace: str) -> bool:
    """True when the victim ended, False when the work was done first."""
    deadline = time.monotonic() + STRIKE_SECONDS
    while not installation.struck(victim):
        if not workload.unfinished(api, namespace):
            return False
        assert time.monotonic() < deadline, f"neither killed nor done: {workload.unfinished(api, namespace)}"
        time.sleep(0.1)
    return True


def _grown(witness: Witness, size: int, api: Api, namespace: str) -> bool:
    deadline = time.monotonic() + STRIKE_SECONDS
    while witness.size < size:
        if not workload.unfinished(api, namespace):
            return False
        assert time.monotonic() < deadline, f"neither killed nor done: {workload.unfinished(api, namespace)}"
        time.sleep(0.02)
    return True
