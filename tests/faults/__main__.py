"""``make faults``: a strike at every system call of a store and an append, thirty histories of many writers, and on one
installation fifty seeded kills, every write to the API server struck on every side, and a long soak; taken up again
where an earlier call was stopped.

``FAULT_SEED=n`` does that one kill alone, ``FAULT_PLANS=n`` the seeds 1 to n alone; ``FAULT_PART=syscalls`` the strikes
alone, ``FAULT_PART=histories`` the histories alone, with ``FAULT_SEED=n`` that one. What is done stands in
``build/faults.json``, for this very program; when all of it is done the next call begins anew.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.e2e.api import Api
from tests.faults.apiproxy import ApiProxy
from tests.faults.campaign import run_plan
from tests.faults.evidence import broken_silence, settle
from tests.faults.installation import LEASE_SECONDS, Installation
from tests.faults.plane import PLANE
from tests.faults.plans import plan_of
from tests.faults.soak import soak
from tests.faults.writes import WritePlan, carry_out, every_plan, learn
from triplane.errors import TriplaneError
from triplane.localcluster.release import release

PLANS = 50
WRITE_PLANS, SOAK = "writes", "soak"
SOAK_OBJECTS, SOAK_ROUNDS = 2500, 4
"""10,000 objects in all, a quarter of them at a time."""
SILENCE_EVERY = 10
SILENCE_SECONDS = 30.0
GONE_SECONDS = 300.0
PROGRESS = Path(__file__).parents[2] / "build" / "faults.json"


def main() -> int:
    """Exit code 1 when a plan failed; its line says why, its seed repeats it."""
    if part := os.environ.get("FAULT_PART"):
        return _told(PLANE[part]())
    if one := os.environ.get("FAULT_SEED"):
        return _campaign([int(one)], {}, keep=False, whole=False)
    asked = os.environ.get("FAULT_PLANS")
    wanted = list(range(1, int(asked or PLANS) + 1))
    done = _read_progress()
    parts = () if asked else (*PLANE, WRITE_PLANS, SOAK)
    if all(done.get(name, {}).get("ok") for name in (*map(str, wanted), *parts)):
        done = {}
    left = [seed for seed in wanted if not done.get(str(seed), {}).get("ok")]
    if len(left) < len(wanted):
        print(f"{len(wanted) - len(left)} of {len(wanted)} plans are done already ({PROGRESS})", flush=True)
    return _campaign(left, done, keep=True, whole=not asked)


def _campaign(seeds: list[int], done: Mapping[str, Any], *, keep: bool, whole: bool) -> int:
    results = dict(done)
    failed: list[str] = []
    home = Path(tempfile.mkdtemp(prefix="tri-fl-"))
    installation = Installation(home, lease_seconds=LEASE_SECONDS)
    began = time.monotonic()

    def note(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        if keep:
            _write_progress(results)

    try:
        for name, plane in PLANE.items() if whole else ():
            if not results.get(name, {}).get("ok"):
                problems = plane()
                note(name, {"ok": not problems, "problems": problems})
                failed += problems
        installation.start()
        for number, seed in enumerate(seeds, start=1):
            result = _one(installation, seed)
            note(str(seed), result)
            if not result["ok"]:
                failed.append(f"{plan_of(seed)}; FAULT_SEED={seed} make faults")
            if number % SILENCE_EVERY == 0 or number == len(seeds):
                failed += _quiet(installation)
        for name, part in ((WRITE_PLANS, _writes), (SOAK, _soak)) if whole else ():
            if not results.get(name, {}).get("ok"):
                problems = part(installation)
                note(name, {"ok": not problems, "problems": problems})
                failed += problems
    finally:
        installation.stop()
        if not failed:
            shutil.rmtree(home, ignore_errors=True)
    took = time.monotonic() - began
    print(f"{len(seeds)} plans in {took:.0f} s: {len(failed)} failures")
    for line in failed:
        print(f"  {line}")
    if failed:
        print(f"logs and data of the processes: {home}")
    return 1 if failed else 0


def _told(problems: list[str]) -> int:
    print(f"{len(problems)} problems", *problems, sep="\n  ")
    return 1 if problems else 0


def _writes(installation: Installation) -> list[str]:
    """Every write of a Task's life, on every side of it."""
    settings = installation.settings
    proxy = ApiProxy(installation.cluster.server, settings.cluster / "pki" / "ca.crt", settings.run / "proxy").start()
    try:
        through = proxy.kubeconfig(settings.secrets / "kubeconfig-operator", settings.run / "kubeconfig-proxy")
        with installation.given("operator", TRIPLANE_KUBECONFIG=str(through)), installation.api("admin") as api:
            plans = every_plan(len(learn(installation, api, proxy)))
            print(f"{len(plans)} plans for writes … ", end="", flush=True)
            problems = [found for plan in plans if (found := _written(plan, installation, api, proxy))]
    finally:
        proxy.stop()
    print("; ".join(problems) or "converged", flush=True)
    return problems


def _written(plan: WritePlan, installation: Installation, api: Api, proxy: ApiProxy) -> str:
    try:
        carry_out(plan, installation, api, proxy)
    except (AssertionError, TriplaneError, OSError) as error:
        return f"{plan}: {type(error).__name__}: {error}"
    return ""


def _soak(installation: Installation) -> list[str]:
    print(f"{SOAK_OBJECTS * SOAK_ROUNDS} objects come, change and go … ", end="", flush=True)
    with installation.api("admin") as api:
        try:
            found = soak(installation, api, objects=SOAK_OBJECTS, rounds=SOAK_ROUNDS)
        except AssertionError as error:
            return [f"soak: {error}"]
    print(f"{found.seconds:.0f} s, the operator's MiB after each round: {list(found.rss)}", flush=True)
    return found.problems()


def _one(installation: Installation, seed: int) -> dict[str, Any]:
    plan, began = plan_of(seed), time.monotonic()
    print(f"{plan} … ", end="", flush=True)
    try:
        outcome = run_plan(installation, plan)
        problems, struck, converged = list(outcome.problems), outcome.plan.passage, outcome.converged_seconds
    except (AssertionError, TriplaneError, OSError) as error:
        problems, struck, converged = [f"{type(error).__name__}: {error}"], None, None
    took = time.monotonic() - began
    moved = "" if struck in {None, plan.passage} else f", struck at passage {struck}"
    print(
        f"FAILED in {took:.1f} s" if problems else f"converged in {converged:.1f} s, {took:.1f} s in all{moved}",
        flush=True,
    )
    for line in problems:
        print(f"    {line}", flush=True)
    return {
        "ok": not problems,
        "victim": plan.victim,
        "place": plan.place,
        "passage": struck,
        "converged": converged,
        "seconds": round(took, 1),
        "problems": problems,
    }


def _quiet(installation: Installation) -> list[str]:
    """Ten plans' work stands there finished: nothing may be written; then its namespaces go, and nothing stays."""
    print(f"silence for {SILENCE_SECONDS:.0f} s … ", end="", flush=True)
    broken = broken_silence(installation, SILENCE_SECONDS)
    with installation.api("admin") as api:
        for name in _namespaces(api):
            api.request("DELETE", f"/api/v1/namespaces/{name}").raise_for_status()
        stay = settle(lambda: _namespaces(api), GONE_SECONDS)
    broken += [f"namespace {name} was not deleted within {GONE_SECONDS:.0f} s" for name in stay]
    print("; ".join(broken) or "kept", flush=True)
    return broken


def _namespaces(api: Api) -> list[str]:
    items = api.request("GET", "/api/v1/namespaces").raise_for_status().json()["items"]
    names = (str(item["metadata"]["name"]) for item in items)
    return [name for name in names if name.startswith("plan-")]


def _read_progress() -> dict[str, Any]:
    try:
        kept = json.loads(PROGRESS.read_text())
    except (OSError, ValueError):
        return {}
    return dict(kept["plans"]) if kept.get("release") == release() else {}


def _write_progress(results: Mapping[str, Any]) -> None:
    PROGRESS.parent.mkdir(exist_ok=True)
    scratch = PROGRESS.with_suffix(".tmp")
    scratch.write_text(json.dumps({"release": release(), "plans": results}, indent=1) + "\n")
    scratch.replace(PROGRESS)


if __name__ == "__main__":
    sys.exit(main())
