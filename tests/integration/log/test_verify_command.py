"""``triplane log verify`` against a real database: what it prints, how it resumes, and how it ends."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.attacks.test_log_tampering import as_superuser
from tests.conftest import Database
from tests.contract.test_event_log import body
from typer.testing import CliRunner

from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder
from triplane.adapters.memory.signingkeys import MemorySigner
from triplane.adapters.postgres import sweep
from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore
from triplane.adapters.postgres.connection import make_pool, open_pool
from triplane.adapters.postgres.eventlog import PostgresEventLog
from triplane.audit.checkpoint import Checkpoint, sign_checkpoint
from triplane.audit.merkle import leaf_hash
from triplane.audit.notekey import KeyType, key_of
from triplane.audit.subtrees import GrowingTree
from triplane.cli.log import app
from triplane.errors import InvalidInput, InvalidNote

KEY = MemorySigner(b"the log")
Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class World:
    log: PostgresEventLog
    store: PostgresCheckpointStore
    database: Database

    async def note(self, size: int) -> bytes:
        root = bytes.fromhex((await self.log.verify_chain(last=size - 1)).root)
        return sign_checkpoint(Checkpoint(self.log.origin, size, root), self.log.origin, [KEY])

    async def publish(self, note: bytes) -> None:
        """As the notary does: first what proofs are made of, then the checkpoint."""
        tree = GrowingTree()
        for recorded in await self.log.query(limit=10_000):
            tree.add(leaf_hash(recorded.octets))
        await self.store.keep(tree.completed)
        await self.store.publish(note)

    @property
    def key(self) -> str:
        return str(key_of(self.log.origin, KeyType.ED25519, KEY))


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    log = await PostgresEventLog(database.dsn("operator"), writer="operator").open()
    pool = make_pool(database.dsn("operator"), name="test")
    await open_pool(pool)
    await log.append([body(n) for n in range(598)])
    yield World(log, PostgresCheckpointStore(pool, log.origin), database)
    await pool.close()
    await log.close()


@pytest.fixture
def run(database: Database, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command with these arguments: exit code, standard output, standard error."""
    monkeypatch.setenv("TRIPLANE_HOME", str(database.server.home))
    monkeypatch.setenv("TRIPLANE_DATABASE_NAME", database.name)
    monkeypatch.setattr(sweep, "CHUNK", 256)

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["verify", *arguments])
        if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


async def in_thread(run: Run, *arguments: str) -> tuple[int, str, str]:
    """The command brings an event loop of its own."""
    import asyncio

    return await asyncio.to_thread(run, *arguments)


async def test_it_says_what_was_verified_and_that_nothing_signed_was_compared(world: World, run: Run) -> None:
    code, out, err = await in_thread(run)
    assert code == 0
    assert out.startswith("chain verified: 600 entries, root ")
    assert "compared with no signed checkpoint" in err


async def test_it_compares_with_checkpoints_and_says_so(world: World, run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(await world.note(300))
    await world.publish(await world.note(512))
    code, out, err = await in_thread(run, "--key", world.key, "--earlier", str(kept), "-o", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["checkpoints"] == [300, 512]
    code, out, _ = await in_thread(run, "--key", world.key, "--checkpoint", str(kept))
    assert code == 0
    assert "as signed in the checkpoint of 512 entries" in out


async def test_without_a_key_the_installations_own_keys_count(world: World, run: Run, database: Database) -> None:
    signer = NotaryKeyFolder(database.server.home / "secrets").signers()[0]
    root = bytes.fromhex((await world.log.verify_chain(last=511)).root)
    await world.publish(sign_checkpoint(Checkpoint(world.log.origin, 512, root), world.log.origin, [signer]))
    code, out, err = await in_thread(run)
    assert (code, err) == (0, "")
    assert "as signed in the checkpoint of 512 entries" in out


async def test_a_checkpoint_without_its_key_is_refused(world: World, run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(await world.note(300))
    with pytest.raises(InvalidInput, match="--key"):
        await in_thread(run, "--checkpoint", str(kept))


@pytest.mark.parametrize("option", ["--checkpoint", "--earlier"])
async def test_a_checkpoint_that_is_empty_or_altered_is_named(
    world: World, run: Run, tmp_path: Path, option: str
) -> None:
    kept = tmp_path / "kept"
    for octets in (b"", (await world.note(300)).replace(b"\n300\n", b"\n301\n")):
        kept.write_bytes(octets)
        with pytest.raises(InvalidNote) as refused:
            await in_thread(run, "--key", world.key, option, str(kept))
        assert str(refused.value).startswith(f"{kept}: ")


async def test_a_range_is_said_to_be_unanchored(world: World, run: Run) -> None:
    code, _, err = await in_thread(run, "--first", "300")
    assert code == 0
    assert "UNANCHORED" in err
    assert "entry 300" in err


@pytest.mark.parametrize("option", ["--first", "--last"])
async def test_a_range_beyond_the_log_is_wrong_usage_and_no_break(world: World, run: Run, option: str) -> None:
    with pytest.raises(InvalidInput, match="has 600 entries, 0 to 599"):
        await in_thread(run, option, "5000")


async def test_it_goes_on_from_its_state_and_reads_only_what_is_new(world: World, run: Run, tmp_path: Path) -> None:
    await world.publish(await world.note(600))
    state = ("--key", world.key, "--state", str(tmp_path / "state"), "-o", "json")

    async def verified() -> dict[str, Any]:
        code, out, _ = await in_thread(run, *state)
        assert code == 0
        return dict(json.loads(out))

    assert (await verified())["first"] == 0
    again = await verified()
    assert (again["first"], again["count"], again["unanchored"]) == (512, 88, False)
    (tmp_path / "state").write_text("{}")
    with pytest.raises(InvalidInput, match="verify from the beginning"):
        await in_thread(run, *state)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param("UPDATE log.subtrees SET hash = sha256(hash) WHERE index = 1", "index 1) is ", id="altered"),
        pytest.param("DELETE FROM log.subtrees WHERE index = 1", "index 1) is missing", id="gone"),
    ],
)
async def test_hashes_kept_for_proofs_are_compared_and_what_heals_them_is_said(
    world: World, run: Run, database: Database, statement: str, said: str
) -> None:
    await world.publish(await world.note(512))
    assert (await in_thread(run, "--key", world.key))[0] == 0
    with database.superuser() as admin:
        admin.execute("ALTER TABLE log.subtrees DISABLE TRIGGER ALL")
        admin.execute(statement)  # type: ignore[arg-type]
    code, out, _ = await in_thread(run, "--key", world.key)
    assert code == 1
    assert "BROKEN at entry 256: SubtreeMismatch: the hash kept of entries 256 to 511" in out
    assert said in out
    assert "the entries themselves hold" in out
    assert "delete every row of it" in out
    with database.superuser() as admin:
        admin.execute("DELETE FROM log.subtrees")
    await world.publish(await world.note(600))  # as the notary does that finds none
    assert (await in_thread(run, "--key", world.key))[0] == 0


async def test_progress_is_one_object_a_line(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triplane.cli.log_verify._TELL_SECONDS", 0.0)
    code, _, err = await in_thread(run, "--progress", "json")
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert code == 0
    assert [line["checked"] for line in lines] == [256, 512, 600]
    assert lines[-1].keys() == {"checked", "total", "perSecond", "eta"}


async def test_a_break_is_exit_1_with_entry_reason_and_what_to_do(world: World, run: Run, database: Database) -> None:
    as_superuser(database, "UPDATE log.entries SET kind = 'Graph' WHERE seq = 400")
    code, out, _ = await in_thread(run, "--jobs", "2")
    assert code == 1
    assert "chain BROKEN at entry 400: ProjectionMismatch" in out
    assert "what to do: the entries themselves hold" in out
    code, out, _ = await in_thread(run, "-o", "json")
    assert (code, json.loads(out)["broken"]["seq"]) == (1, 400)
