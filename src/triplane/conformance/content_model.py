"""``KeptContent`` against a model of a dozen lines: any order of any operations."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from triplane.conformance.contentsubject import Opening, Subject, digests, read, sha256, stream
from triplane.errors import BlobMissing, Corrupt, TooLarge

T = TypeVar("T")
CONTENTS = {
    "nothing": b"",
    "a letter": b"a",
    "a word": b"another",
    "zeros": b"\x00" * 70_000,
    "sent in parts": bytes(range(256)) * 33_000,
}
"""By name: they are too large to be shown."""
DIGESTS = {name: sha256(content) for name, content in CONTENTS.items()}
WRONG = {"emptied": b"", "altered": b"altered", "longer": b"\xff" * 70_000}
HOLDERS = ["backup", "export"]
CONTENT = st.sampled_from(list(CONTENTS))


class StoreAndModel(RuleBasedStateMachine):
    """The model: what should be there, what of it was altered behind the store's back, who holds what."""

    def __init__(self, opened: AbstractAsyncContextManager[Subject]) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.opened = opened
        self.subject = self.run(opened.__aenter__())
        self.store = self.subject.store
        self.there: dict[str, bytes] = {}
        self.bad: set[str] = set()
        self.aside: set[str] = set()
        self.holds: set[tuple[str, str]] = set()
        self.reported: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def teardown(self) -> None:
        self.run(self.opened.__aexit__(None, None, None))
        self.loop.close()

    def found_bad(self, digest: str) -> None:
        self.bad.discard(digest)
        self.there.pop(digest)
        self.aside.add(digest)
        self.reported.append(digest)

    @rule(name=CONTENT, streamed=st.booleans(), cut=st.sampled_from([7_001, 65_536, 300_000]), elsewhere=st.booleans())
    def stores(self, name: str, streamed: bool, cut: int, elsewhere: bool) -> None:
        digest = DIGESTS[name]
        content = CONTENTS[name]
        # Another process of the same store reports for itself.
        store = self.subject.other if elsewhere and digest not in self.bad else self.store
        chunks = [content[start : start + cut] for start in range(0, len(content), cut)]
        assert self.run(store.store(stream(chunks) if streamed else content, expect=digest)) == digest
        if digest in self.bad:
            self.found_bad(digest)
        self.there[digest] = content

    @rule(name=CONTENT, streamed=st.booleans())
    def stores_what_was_not_expected(self, name: str, streamed: bool) -> None:
        content = CONTENTS[name]
        with pytest.raises(Corrupt):
            self.run(self.store.store(stream([content]) if streamed else content, expect=sha256(b"what was expected")))

    @rule(name=st.sampled_from(list(CONTENTS)[1:]), streamed=st.booleans())
    def stores_too_much(self, name: str, streamed: bool) -> None:
        content = CONTENTS[name]
        with pytest.raises(TooLarge):
            self.run(self.store.store(stream([content]) if streamed else content, limit=len(content) - 1))

    @rule(name=CONTENT, wrong=st.sampled_from(list(WRONG)))
    def somebody_alters(self, name: str, wrong: str) -> None:
        digest = DIGESTS[name]
        if digest in self.there and WRONG[wrong] != CONTENTS[name]:
            self.run(self.subject.tamper(digest, WRONG[wrong]))
            self.there[digest] = WRONG[wrong]
            self.bad.add(digest)

    @rule(name=CONTENT)
    def reads(self, name: str) -> None:
        digest = DIGESTS[name]
        if digest in self.bad:
            with pytest.raises(Corrupt, match=digest):
                self.run(read(self.store, digest))
            self.found_bad(digest)
        elif digest in self.there:
            assert sha256(self.run(read(self.store, digest))) == digest
        else:
            with pytest.raises(BlobMissing, match="quarantined" if digest in self.aside else "no blob"):
                self.run(read(self.store, digest))

    @rule(name=CONTENT)
    def asks(self, name: str) -> None:
        digest = DIGESTS[name]
        assert self.run(self.store.exists(digest)) == (digest in self.there)
        if digest in self.there:
            assert self.run(self.store.size(digest)) == len(self.there[digest])
        else:
            with pytest.raises(BlobMissing):
                self.run(self.store.size(digest))

    @rule(name=CONTENT)
    def erases(self, name: str) -> None:
        digest = DIGESTS[name]
        assert self.run(self.store.delete(digest)) == (digest in self.there)
        self.there.pop(digest, None)
        self.bad.discard(digest)

    @rule(name=CONTENT, holder=st.sampled_from(HOLDERS))
    def holds_it(self, name: str, holder: str) -> None:
        digest = DIGESTS[name]
        if digest in self.there:
            self.run(self.store.hold(digest, holder, 3600))
            self.holds.add((digest, holder))
        elif not any(held == digest for held, _ in self.holds):
            with pytest.raises(BlobMissing):
                self.run(self.store.hold(digest, holder, 3600))

    @rule(name=CONTENT, holder=st.sampled_from(HOLDERS))
    def releases(self, name: str, holder: str) -> None:
        digest = DIGESTS[name]
        assert self.run(self.store.release(digest, holder)) == ((digest, holder) in self.holds)
        self.holds.discard((digest, holder))

    @rule(name=CONTENT, hours=st.sampled_from([-1, 1]), elsewhere=st.booleans())
    def collects(self, name: str, hours: int, elsewhere: bool) -> None:
        digest = DIGESTS[name]

        async def collect() -> bool:
            store = self.subject.other if elsewhere else self.store
            async with store.lease(60) as lease:
                return await store.collect(digest, before=lease.began + timedelta(hours=hours))

        held = any(blob == digest for blob, _ in self.holds)
        expected = hours > 0 and digest in self.there and not held
        assert self.run(collect()) == expected
        if expected:
            self.there.pop(digest)
            self.bad.discard(digest)

    @rule()
    def tidies(self) -> None:
        async def tidy() -> None:
            async with self.store.lease(60) as lease:
                await self.store.tidy(before=lease.began + timedelta(hours=1))

        self.run(tidy())

    @invariant()
    def lists_what_is_there(self) -> None:
        assert self.run(digests(self.store)) == sorted(self.there)
        assert self.run(self.stored()) == {digest: len(content) for digest, content in self.there.items()}

    async def stored(self) -> dict[str, int]:
        return {blob.digest: blob.size async for blob in self.subject.other.stored()}

    @invariant()
    def knows_the_holds(self) -> None:
        assert self.run(self.store.held()) == {digest for digest, _ in self.holds}

    @invariant()
    def has_reported_everything_bad_once(self) -> None:
        assert self.subject.reported == self.reported


def test_any_history_is_that_of_the_model(opening: Opening) -> None:
    run_state_machine_as_test(
        lambda: StoreAndModel(opening()),  # type: ignore[arg-type]  # it takes any maker of machines
        settings=settings(
            max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
