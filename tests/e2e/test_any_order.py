"""Objects applied in any order converge to the same final resources, and applied again they change nothing.

The orders are seeded; ``ORDER_SEEDS=7,8`` runs others. Every order has a namespace of its own on one installation.
"""

import copy
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.manifests import EXAMPLES, Owned, example
from tests.e2e.stack import Stack, has

from triplane.api.kinds import KINDS

pytestmark = pytest.mark.e2e

SEEDS = [int(seed) for seed in os.environ.get("ORDER_SEEDS", "1,2,3").split(",")]
QUIET_SECONDS = 3.0
Final = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def installed() -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix="tri-or-"))
    stack = Stack.start(home, programs=EXAMPLES / "programs")
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def in_file_order(installed: Stack) -> Final:
    """What the objects come to in the order of their files."""
    return converge(installed, "order-files", lambda objects: objects, random.Random(0))


def converge(stack: Stack, namespace: str, arrange: Any, rng: random.Random) -> Final:
    """Apply the objects one by one, some at once and some after a while, and wait for the end."""
    stack.people(namespace)
    for user, obj in arrange(list(example("06-gitops-order", namespace))):
        stack.apply(obj, as_=user)
        time.sleep(rng.choice([0, 0, 0.3, 1.0]))
    stack.wait("Node", namespace, "ledger", has("Succeeded", "True"), seconds=90)
    stack.wait("Task", namespace, "audit", has("Succeeded", "True"), seconds=60)
    quiet(stack, namespace)
    return final(stack, namespace)


def versions(stack: Stack, namespace: str) -> dict[tuple[str, str], str]:
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["resourceVersion"]
        for kind in KINDS
        for obj in stack.list(kind, namespace)
    }


def quiet(stack: Stack, namespace: str) -> dict[tuple[str, str], str]:
    """Wait until nothing has been written for a while; the versions of everything then."""
    seen, since = versions(stack, namespace), time.monotonic()
    deadline = since + 60
    while time.monotonic() - since < QUIET_SECONDS:
        assert time.monotonic() < deadline, "something is written again and again"
        time.sleep(0.5)
        now = versions(stack, namespace)
        if now != seen:
            seen, since = now, time.monotonic()
    return seen


def final(stack: Stack, namespace: str) -> Final:
    """Every object without what differs from one installation, incarnation or moment to another."""
    found: Final = {}
    for kind in KINDS:
        for obj in stack.list(kind, namespace):
            found[kind, plain(obj["metadata"]["name"])] = normalised(obj)
    return found


def plain(text: str) -> str:
    """Names of children end in a fingerprint of UIDs."""
    return re.sub(r"-[0-9a-f]{8,}\b", "-#", text)


MOVING = re.compile(r"(At|Time|Seconds|Milliseconds|Revision)$")
DROPPED = {"uid", "resourceVersion", "managedFields", "generation", "observedGeneration", "namespace", "publicId",
           "snapshotDigest", "snapshot", "workflowGeneration", "runner"}  # fmt: skip


def normalised(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: normalised(child)
            for key, child in sorted(value.items())
            if key not in DROPPED and not MOVING.search(key) and key not in ("creationTimestamp",)
        }
    if isinstance(value, list):
        return [normalised(child) for child in value]
    return re.sub(r"order-\w+", "NS", plain(value)) if isinstance(value, str) else value


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_converges_to_the_same_and_again_changes_nothing(
    installed: Stack, in_file_order: Final, seed: int
) -> None:
    rng = random.Random(seed)
    namespace = f"order-{seed}"

    def shuffled(objects: list[Owned]) -> list[Owned]:
        mixed = copy.copy(objects)
        rng.shuffle(mixed)
        return mixed

    reached = converge(installed, namespace, shuffled, rng)
    assert reached.keys() == in_file_order.keys()
    for key, expected in in_file_order.items():
        assert reached[key] == expected, key

    before = quiet(installed, namespace)
    for user, obj in shuffled(list(example("06-gitops-order", namespace))):
        installed.apply(obj, as_=user)
    time.sleep(QUIET_SECONDS)
    assert versions(installed, namespace) == before
