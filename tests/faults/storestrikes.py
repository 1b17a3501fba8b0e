"""A store in a folder, struck at every system call."""

import asyncio
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.inject import NOTHING, Strike, Tracer
from tests.faults.syscalls import FILE_ERRORS, Report, some, strikes
from tests.faults.victims import LARGE, SMALL, Nursery, Outcome
from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.audit.digest import digest_of_bytes
from triplane.errors import BlobMissing, TriplaneError


@dataclass(frozen=True, slots=True)
class StoreCase:
    """One way to store."""

    name: str
    content: str
    opened: bool = True
    """Whether the store was opened before the window in which it is struck."""
    there: bytes | None = None
    """What already is in the blob's place."""
    deed: str = "store"

    @property
    def octets(self) -> bytes:
        return SMALL if self.content == "small" else LARGE


STORE_CASES = (
    StoreCase("store a small blob", "small"),
    StoreCase("store a blob in chunks", "large"),
    StoreCase("open a new store and store", "small", opened=False),
    StoreCase("store what is there", "small", there=SMALL),
    StoreCase("store what is there, in chunks", "large", there=LARGE),
    StoreCase("store where bad octets are", "small", there=b"bad"),
)


CARELESS = StoreCase("store without a temporary file", "large", deed="store carelessly")
"""To see that the campaign finds what the protection prevents."""


async def strike_stores(
    nursery: Nursery,
    folder: Path,
    report: Report,
    *,
    cases: Sequence[StoreCase] = STORE_CASES,
    seed: int = 0,
    each: int | None = None,
) -> None:
    """Every way to store, ``each`` strikes of it drawn by the seed, or all."""
    for number, case in enumerate(cases):
        root = folder / f"{number}-0"
        await _prepare(root, case)
        outcome, tracer = await asyncio.to_thread(_stored, nursery, root, case, NOTHING)
        assert outcome.acknowledged, f"{case.name} fails by itself: {outcome}"
        every = strikes(tracer.calls, FILE_ERRORS, start=2)  # the first is the wait at the gate
        for place, strike in enumerate(some(every, seed, each), start=1):
            root = folder / f"{number}-{place}"
            await _prepare(root, case)
            outcome, tracer = await asyncio.to_thread(_stored, nursery, root, case, strike)
            problems = [f"never struck: {tracer.calls}"] if tracer.struck is None else []
            problems += await _after_store(root, case, strike, outcome)
            report.note(case.name, strike, outcome.word, problems)


def _stored(nursery: Nursery, root: Path, case: StoreCase, strike: Strike) -> tuple[Outcome, Tracer]:
    pid = nursery.begin(case.deed, root=str(root), content=case.content, opened=case.opened)
    with Tracer(pid, strike) as tracer:
        nursery.go()
        outcome = nursery.outcome()
    return outcome, tracer


def _leaf(root: Path, case: StoreCase) -> Path:
    digits = digest_of_bytes(case.octets).removeprefix("sha256:")
    return root / "blobs" / "sha256" / digits[:2] / digits[2:4] / digits


async def _prepare(root: Path, case: StoreCase) -> None:
    if case.there is not None:
        await FilesystemContentStore(root).store(case.octets)
        leaf = _leaf(root, case)
        if case.there != case.octets:
            leaf.chmod(0o644)
            leaf.write_bytes(case.there)


async def _after_store(root: Path, case: StoreCase, strike: Strike, outcome: Outcome) -> list[str]:
    """What is wrong after one strike."""
    problems: list[str] = []
    leaf, digest = _leaf(root, case), digest_of_bytes(case.octets)
    if outcome.raised:
        problems.append(f"raised {outcome.raised}")
    if outcome.refused and (not outcome.refused.startswith("Unavailable: content store at ") or strike.error is None):
        problems.append(f"refused with {outcome.refused}")
    if strike.error == "EINTR" and not outcome.acknowledged:
        problems.append(f"an interrupted call was not repeated: {outcome}")
    seen = leaf.read_bytes() if leaf.exists() else None
    bad = case.there if case.there != case.octets else None
    if seen not in {None, case.octets, bad}:
        problems.append(f"{len(seen or b'')} octets of {len(case.octets)} are to be seen under the blob's name")
    if outcome.acknowledged and seen != case.octets:
        problems.append("acknowledged and not there")
    if case.there == case.octets and seen != case.octets:
        problems.append("what was acknowledged before is gone")
    store = FilesystemContentStore(root)  # as after a restart: sweeps what the dead left
    try:
        if await _read(store, digest) != case.octets:
            problems.append("resolves to something else")
    except BlobMissing:
        if outcome.acknowledged:
            problems.append("acknowledged and does not resolve")
    except TriplaneError as error:
        if seen != bad:
            problems.append(f"does not resolve: {error}")
    if await store.store(case.octets) != digest or await _read(store, digest) != case.octets:
        problems.append("stored again it does not resolve")
    if stat.S_IMODE(leaf.stat().st_mode) != 0o444:
        problems.append(f"its mode is {leaf.stat().st_mode:o}")
    aside = {path for path in root.rglob("*") if path.is_file() and path != leaf}
    if any(path.parent.name != "quarantine" or path.read_bytes() != bad for path in aside):
        problems.append(f"left behind: {sorted(map(str, aside))}")
    return problems


async def _read(store: FilesystemContentStore, digest: str) -> bytes:
    return b"".join([chunk async for chunk in store.resolve(digest)])
