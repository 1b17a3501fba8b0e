"""One plan: start the work, kill one process in the middle of it, and see that nothing of it shows in the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.api import Api
from tests.faults import evidence, workload
from tests.faults.installation import Installation
from tests.faults.invariants import explained, same_digests
from tests.faults.plans import CLUSTER, LOG_GREW, Plan
from tests.faults.witness import Witness, read_log, witnessing
from triplane.localcluster.identity import Identity, is_alive

CONVERGE_SECONDS = 60.0
"""After the kill, over and above what the whole work takes when nothing disturbs it."""
STRIKE_SECONDS = 60.0
UNDISTURBED_SECONDS = 240.0
ASK_SECONDS = 0.5


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


@dataclass(frozen=True, slots=True)
class Reference:
    """The work as it is when nothing disturbs it."""

    seconds: float
    digests: Mapping[tuple[str, str], str]


_references: dict[tuple[int, str], Reference] = {}


def reference(installation: Installation, work: workload.Workload) -> Reference:
    """How long the work takes and what comes of it, undisturbed: done once per installation."""
    key = (id(installation), work.name)
    if key not in _references:
        namespace = f"plan-0-{work.name.replace(' ', '-')}"
        workload.prepare(installation, work, namespace)
        with installation.api("admin") as api, witnessing(installation) as witness:
            workload.apply_work(installation, work, namespace)
            took = workload.wait_succeeded(api, work, namespace, UNDISTURBED_SECONDS)
            witness.stop()
            problems = evidence.verdict(installation, api, (work, namespace), witness.told())
            assert problems == [], f"the undisturbed run is not sound: {problems}"
            found = workload.digests(api, work, namespace)
        assert len(found) >= len(work.rounds), f"the undisturbed run has outputs of {sorted(found)} only"
        _references[key] = Reference(took, found)
    return _references[key]


def _attempt(installation: Installation, plan: Plan, namespace: str) -> Outcome | None:
    """None when the work was done before the place was reached."""
    undisturbed = reference(installation, plan.workload)
    ended_before = len(installation.restarted)
    workload.prepare(installation, plan.workload, namespace)
    with installation.api("admin") as api, witnessing(installation) as witness:
        struck = _strike(installation, plan, namespace, api, witness)
        began = time.monotonic()
        workload.wait_succeeded(api, plan.workload, namespace, undisturbed.seconds + CONVERGE_SECONDS)
        converged = time.monotonic() - began
        witness.stop()
        problems = evidence.verdict(installation, api, (plan.workload, namespace), witness.told())
        problems += same_digests(undisturbed.digests, workload.digests(api, plan.workload, namespace))
        problems += [f"{name} ended by itself" for name in _ended(installation, plan, ended_before)]
    if problems:
        return Outcome(
            plan, converged, struck.accepted if struck else (), [*(struck.problems if struck else ()), *problems]
        )
    if struck is None:
        return None
    return Outcome(plan, converged, struck.accepted, struck.problems)


def _ended(installation: Installation, plan: Plan, before: int) -> list[str]:
    """Who ended though nobody killed it. The rest of the control plane may go down with its API server or etcd."""
    others = {"kube-controller-manager", *CLUSTER} if plan.victim in CLUSTER else set()
    return [name for name in installation.restarted[before:] if name not in others]


@dataclass(frozen=True, slots=True)
class _Struck:
    accepted: Sequence[str]
    problems: Sequence[str]


def _strike(installation: Installation, plan: Plan, namespace: str, api: Api, witness: Witness) -> _Struck | None:
    """Apply the work, kill, look at what stands there, start the process again."""
    with installation.held(plan.victim):
        if plan.place == LOG_GREW:
            floor = len(read_log(installation))
            workload.apply_work(installation, plan.workload, namespace)
            if not _grown(installation, witness, floor + plan.passage, plan, namespace):
                return None
            # Asked while both can answer.
            accepted = evidence.accepted_tasks(read_log(installation), api, namespace)
            installation.kill(plan.victim)
        else:
            victim = installation.arm(plan.victim, f"{plan.place}:{plan.passage}")
            if not is_alive(victim):
                raise NeverStruck(f"{plan}: {plan.victim} died before there was any work")
            workload.apply_work(installation, plan.workload, namespace)
            if not _died(installation, victim, plan, namespace):
                return None
            accepted = evidence.accepted_tasks(read_log(installation), api, namespace)
        if len(accepted) == len(plan.workload.rounds):
            return None
        if plan.victim in CLUSTER:  # then there is nobody to ask
            return _Struck(sorted(accepted), [])
        # While the process is missing: what is there must tell what it waits for.
        return _Struck(sorted(accepted), explained(workload.objects(api, namespace)))


def _died(installation: Installation, victim: Identity, plan: Plan, namespace: str) -> bool:
    """True when the victim ended, False when the work was done first."""
    return _before_the_end(installation, lambda: installation.struck(victim), plan, namespace)


def _grown(installation: Installation, witness: Witness, size: int, plan: Plan, namespace: str) -> bool:
    return _before_the_end(installation, lambda: witness.size >= size, plan, namespace)


def _before_the_end(installation: Installation, happened: Callable[[], bool], plan: Plan, namespace: str) -> bool:
    """True when it happens, False when the work is done first."""
    deadline = time.monotonic() + reference(installation, plan.workload).seconds + STRIKE_SECONDS
    asked = 0.0
    with installation.api("admin") as api:
        while not happened():
            now = time.monotonic()
            if now - asked > ASK_SECONDS:
                asked = now
                waiting = workload.unfinished(api, plan.workload, namespace)
                if not waiting:
                    return False
                assert now < deadline, f"{plan}: neither killed nor done: {'; '.join(waiting[:5])}"
            time.sleep(0.02)
    return True
