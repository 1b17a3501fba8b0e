"""What becomes of a secret once a run has it: a hostile or careless harness, and its neighbours.

Each leak is first seen with the check that stops it taken away.
"""

import asyncio
import base64
import json
import os
import re
import resource
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.attacks.demoted import pytest_as_ordinary_user
from tests.integration.session.processes import until
from tests.integration.session.world import Done, World, make_world

from triplane.domain.redaction import KnownSecrets
from triplane.session.client import RunGateway
from triplane.session.given import GivenSecrets, SecretValue
from triplane.session.isolation import Isolation

pytestmark = pytest.mark.attacks
VALUE = "s3cr3t/value+with=odd&chars"
MANY_LINES = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nAoIBAQC7VJTUt9Us8cKjMzEfYy\n-----END KEY-----\n"
LEAKS = {
    "as it is": VALUE,
    "within a word": f"xx{VALUE}yy",
    "URL-encoded": quote(VALUE, safe=""),
    "in a header of basic authentication": base64.b64encode(f"user:{VALUE}".encode()).decode(),
    "in base64": base64.b64encode(VALUE.encode()).decode(),
    "in base64 for URLs": base64.urlsafe_b64encode(VALUE.encode()).decode(),
    "in hexadecimal": VALUE.encode().hex(),
}
USE = {"name": "github", "key": "token", "env": "GITHUB_TOKEN"}


def given(value: str = VALUE, env: str = "GITHUB_TOKEN") -> GivenSecrets:
    return GivenSecrets((SecretValue("github", "token", env, value, "secret-uid", "7"),))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path / "home")
    async with made.serving():
        yield made


@pytest.fixture
def gives(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the gateway gives; who may have it is tests/attacks/test_borrowed_secrets.py."""

    def set_to(values: GivenSecrets) -> None:
        async def secrets(self: RunGateway) -> GivenSecrets:
            return values

        monkeypatch.setattr(RunGateway, "secrets", secrets)

    set_to(given())
    return set_to


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weakened check: no value is known."""
    known = KnownSecrets.__init__
    monkeypatch.setattr(KnownSecrets, "__init__", lambda self, values: known(self, ()))


async def stored(world: World, done: Done) -> str:
    """Everything that was kept of the world's runs, as text."""
    found = [json.dumps(done.records, ensure_ascii=False), done.message, json.dumps(done.run.facts)]
    digests = [digest async for digest in world.backends.content.list_digests()]
    found += [(await world.read(digest)).decode("utf-8", "replace") for digest in digests]
    found += [item.octets.decode() for item in await world.backends.log.query()]
    return "\n".join(found)


def leaked(text: str, spellings: Iterable[str] = LEAKS.values()) -> list[str]:
    cores = [spelling.strip("=")[3:-3] for spelling in spellings]
    return [core for core in cores if core in text or json.dumps(core)[1:-1] in text]


TELLS = """
value = os.environ["GITHUB_TOKEN"]
for way, leak in json.loads(LEAKS).items():
    print(leak)
    print("said: " + json.dumps({"text": leak}))
    print(leak, file=sys.stderr)
    say(type="message", text=leak)
    say(type="progress", message=leak)
    say(type="observation", observationId="a" + way, kind=leak, text=leak)
    say(type="reflection", wentWell=[leak], wentBadly=[leak], lessons=[leak])
leave()
""".replace("LEAKS", repr(json.dumps(LEAKS)))


async def test_a_secret_is_redacted_from_everything_that_is_kept(
    world: World, gives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as weakened:
        forgetful(weakened)
        careless = await world.carry_out(TELLS, secrets=[USE])
        assert careless.ending == ("succeeded", "Completed"), careless.message
        assert len(leaked(await stored(world, careless))) == len(LEAKS)
    for digest in [digest async for digest in world.backends.content.list_digests()]:
        await world.backends.content.delete(digest)
    world.backends.log.__init__(writer="gateway")  # type: ignore[misc]

    done = await world.carry_out(TELLS, secrets=[USE])
    assert done.ending == ("succeeded", "Completed"), done.message
    kept = await stored(world, done)
    assert leaked(kept) == []
    assert kept.count("[redacted]") >= 7 * len(LEAKS)


async def test_a_secret_does_not_come_out_in_the_reason_of_a_failure(
    world: World, gives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "sys.exit('cannot log in with ' + os.environ['GITHUB_TOKEN'])"
    with monkeypatch.context() as weakened:
        forgetful(weakened)
        assert VALUE in (await world.carry_out(program, secrets=[USE])).message
    done = await world.carry_out(program, secrets=[USE])
    assert done.ending == ("failed", "HarnessFailed")
    assert "cannot log in with [redacted]" in done.message
    assert done.reflection is not None
    assert leaked(json.dumps(done.reflection)) == []


async def test_a_secret_of_many_lines_is_redacted_line_by_line(world: World, gives: Any) -> None:
    gives(given(MANY_LINES))
    done = await world.carry_out("print(os.environ['GITHUB_TOKEN']); leave(); reflect()", secrets=[USE])
    assert "MIIEvQIBADANBgkqhkiG9w0BAQ" not in await stored(world, done)
    assert "[redacted]" in done.said("stdout")


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
async def test_an_output_that_holds_a_secret_is_not_stored(
    world: World, gives: Any, leak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it lies across two pieces of what is read."""
    program = f"leave(text='a' * ((1 << 20) - 5) + {leak!r}); reflect()"
    with monkeypatch.context() as weakened:
        forgetful(weakened)
        assert (await world.carry_out(program, secrets=[USE])).ending == ("succeeded", "Completed")
    before = {digest async for digest in world.backends.content.list_digests()}
    done = await world.carry_out(program, secrets=[USE])
    assert done.ending == ("failed", "SecretInOutput")
    assert "output report: /work/outputs/report.md holds the value of a secret" in done.message
    for digest in {digest async for digest in world.backends.content.list_digests()} - before:
        assert leaked((await world.read(digest)).decode(), [leak]) == []


async def test_the_facts_of_a_run_name_its_secrets_and_no_value(world: World, gives: Any) -> None:
    done = await world.carry_out("leave(); reflect()", secrets=[USE])
    assert done.run.facts["secrets"] == [{**USE, "uid": "secret-uid", "resourceVersion": "7"}]
    assert VALUE not in json.dumps(done.run.facts)


@pytest.mark.parametrize(
    "env", ["PATH", "HOME", "LD_PRELOAD", "PYTHONPATH", "TRIPLANE_WORK_ORDER", "HTTPS_PROXY", "SSL_CERT_FILE", "MINE"]
)
async def test_a_secret_takes_the_place_of_no_other_variable(world: World, gives: Any, env: str) -> None:
    gives(given(env=env))
    harness = {"program": "agent.py", "interpreter": "python3", "args": [], "env": [{"name": "MINE", "value": "x"}]}
    done = await world.carry_out("leave(); reflect()", secrets=[{**USE, "env": env}], harness=harness)
    assert done.ending == ("refused", "SecretForbidden")
    assert f"cannot become variable {env}" in done.message


# Neighbours: what another run on the same machine can find.

KEEPS = """
import time
open("/dev/shm/kept-" + os.environ["MARK"], "w").write(os.environ["GITHUB_TOKEN"])
open(os.path.join(os.environ["TRIPLANE_OUTPUTS"], "kept"), "w").write(os.environ["GITHUB_TOKEN"])
print("kept", flush=True)
time.sleep(600)
"""
SEARCHES = """
wanted, found = sys.argv[1][::-1], []  # reversed, or it would find itself
def look(path):
    try:
        with open(path, "rb") as file:
            if wanted.encode() in file.read(1 << 20):
                found.append(path)
    except OSError:
        pass
own = str(os.getpid())
for process in os.listdir("/proc"):
    if process.isdigit() and process != own:
        for name in ("environ", "cmdline"):
            look(f"/proc/{process}/{name}")
for top in sys.argv[2:]:
    for folder, folders, files in os.walk(top):
        for name in files:
            look(os.path.join(folder, name))
leave(text=json.dumps(sorted(path for path in found if "order.json" not in path))); reflect()
"""


async def _neighbour(world: World, value: str, mark: str, *, isolated: bool) -> list[str]:
    """Where a run finds the value that another run at work beside it was given."""
    kit = await world.kit()
    if not isolated:
        kit = replace(kit, isolation=Isolation(None, "taken away"), allow_unisolated=True)
    world.program(KEEPS, "keeps.py")
    world.program(SEARCHES, "searches.py")
    keeps = {"program": "keeps.py", "interpreter": "python3", "args": [], "env": [{"name": "MARK", "value": mark}]}
    searches = {"program": "searches.py", "interpreter": "python3", "env": []}
    places = [str(kit.sessions), "/dev/shm", *(["/work", "/tmp"] if isolated else [])]
    keeping = asyncio.create_task(world.carry_out(kit=kit, harness=keeps, secrets=[USE], timeoutSeconds=50))
    sessions = world.backends.sessions

    async def has_kept() -> bool:
        view = await sessions.get(f"00000000-0000-4000-8000-{world._number:012d}", records=True)
        return view is not None and bool(view.record_digests)

    try:
        async with asyncio.timeout(30):
            while not await has_kept():
                await asyncio.sleep(0.05)
        done = await world.carry_out(kit=kit, harness=searches | {"args": [value[::-1], *places]})
        assert done.ending == ("succeeded", "Completed"), done.message
        assert done.run.result is not None
        return [str(path) for path in json.loads(await world.read(done.run.result.outputs[0].digest))]
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        Path(f"/dev/shm/kept-{mark}").unlink(missing_ok=True)


async def test_another_run_finds_it_neither_in_proc_nor_in_files(world: World, gives: Any) -> None:
    value, mark = f"value-{uuid.uuid4().hex}", uuid.uuid4().hex
    gives(given(value))
    outside = await _neighbour(world, value, mark, isolated=False)
    assert any(re.fullmatch(r"/proc/\d+/environ", path) for path in outside), outside
    assert any(path.endswith("/outputs/kept") for path in outside), outside
    assert f"/dev/shm/kept-{mark}" in outside
    assert await _neighbour(world, value, mark, isolated=True) == []


async def test_no_command_line_on_the_machine_shows_it(world: World, gives: Any) -> None:
    """Everybody may read those, not only root and the runner's user."""
    value = f"value-{uuid.uuid4().hex}"
    gives(given(value))
    hosting = asyncio.create_task(
        world.carry_out("import time; print('up', flush=True); time.sleep(600)", secrets=[USE], timeoutSeconds=50)
    )

    def holders() -> list[tuple[str, bool]]:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    if value.encode() in (process / "environ").read_bytes():
                        found.append((process.name, value.encode() in (process / "cmdline").read_bytes()))
                except OSError:
                    continue
        return found

    try:
        await until(holders)
        shown = [
            path
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if value.encode() in (path.read_bytes() if path.exists() else b"")
        ]
        assert shown == []
    finally:
        hosting.cancel()
        await asyncio.gather(hosting, return_exceptions=True)


async def test_a_crash_hands_its_memory_to_nobody(world: World, gives: Any) -> None:
    """Neither to a file nor to a program: a limit of 0 keeps the kernel from writing a file alone (core(5))."""
    gives(given())
    crash = """
        import resource
        if (child := os.fork()) == 0:
            os.abort()
        _, status = os.waitpid(child, 0)
        say(type="reflection", wentWell=[f"{resource.getrlimit(resource.RLIMIT_CORE)} {os.WCOREDUMP(status)}"])
        leave()
        """
    lowest = min(1, resource.getrlimit(resource.RLIMIT_CORE)[1] % 2**64)
    done = await world.carry_out(crash, secrets=[USE])
    assert done.reflection is not None, done.message
    assert done.reflection["wentWell"] == [f"({lowest}, {lowest}) False"]


async def test_asked_once_more_the_program_has_no_secret(world: World, gives: Any) -> None:
    """Reflecting needs none."""
    done = await world.carry_out(
        """
        if os.environ.get("TRIPLANE_ASK") == "reflection":
            say(type="reflection", wentWell=["token" if "GITHUB_TOKEN" in os.environ else "no token"], wentBadly=[])
        else:
            leave()
        """,
        secrets=[USE],
    )
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.reflection is not None
    assert done.reflection["wentWell"] == ["no token"]


def test_neighbours_find_nothing_as_an_ordinary_user_either() -> None:
    if os.geteuid() != 0:
        return  # the tests above were just that
    done = pytest_as_ordinary_user(
        "tests/attacks/test_secrets_in_runs.py", "-k", "another_run_finds or no_command_line or redacted_from"
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
