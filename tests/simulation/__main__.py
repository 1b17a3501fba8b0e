"""``python -m tests.simulation [--seeds 10000] [--first 0] [--processes 2]``: exits with 1 if a seed failed."""

import argparse
import os
import sys
import time

from tests.simulation.campaign import run_seed, run_seeds
from tests.simulation.mutants import MUTANTS, without

MOST_SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Seeded simulation of the operator")
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("SEEDS", "10000")), help="how many")
    parser.add_argument("--first", type=int, default=int(os.environ.get("FIRST_SEED", "0")), help="the first one")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trace", action="store_true", help="print a hash of each history")
    parser.add_argument("--without", choices=sorted(MUTANTS), help="take a guard out; stop at the first violation")
    wanted = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a history
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    if wanted.without:
        return hunt(wanted.without, range(wanted.first, wanted.first + wanted.seeds))
    began, bad, calls, kills = time.monotonic(), 0, 0, 0
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    for number, outcome in enumerate(run_seeds(seeds, wanted.processes), start=1):
        if wanted.trace:
            print(f"history {outcome.seed} {outcome.trace}")
        calls, kills = calls + outcome.passed, kills + outcome.kills
        if outcome.wrong:
            bad += 1
            if bad <= MOST_SHOWN:
                print(f"seed {outcome.seed}:", *outcome.wrong, sep="\n  ", flush=True)
        if number % 1000 == 0:
            print(f"{number} seeds, {bad} failed, {time.monotonic() - began:.0f} s", flush=True)
    seconds = time.monotonic() - began
    print(f"{wanted.seeds} seeds in {seconds:.0f} s ({calls} calls, {kills} kills): {bad} failed")
    if bad:
        print("repeat one with: python -m tests.simulation --first N --seeds 1 --processes 1", file=sys.stderr)
    return 1 if bad else 0


def hunt(mutant: str, seeds: range) -> int:
    """0 as soon as a seed is caught by one of the checks that must catch it, 1 when none is."""
    with without(mutant):
        for seed in seeds:
            outcome = run_seed(seed)
            if any(text.startswith(MUTANTS[mutant].caught_by) for text in outcome.wrong):
                print(f"without {MUTANTS[mutant].removes}:", outcome)
                return 0
    print(f"without {MUTANTS[mutant].removes}: {len(seeds)} seeds, and nobody noticed", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
