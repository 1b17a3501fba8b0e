"""What an ordinary user gets on this machine, told as a line of JSON: ``python -m tests.integration.session.ordinary``.

The embedded Postgres answers; a harness is run by a real session host for a real gateway, first as the runner comes,
then with its owner's consent to run without a sandbox.
"""

import asyncio
import json
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psycopg
from tests.conftest import running_server
from tests.integration.session.world import World, make_world

from triplane.session.launch import HostKit

_PROGRAM = "print(os.getuid()); leave(); reflect()"


@dataclass(frozen=True)
class Ending:
    """How one run ended."""

    outcome: str
    reason: str
    message: str
    isolated: bool | None
    """As its start was reported; None when it never started."""
    said: list[str]


async def _carried_out(world: World, kit: HostKit) -> Ending:
    done = await world.carry_out(_PROGRAM, kit=kit)
    isolated = done.run.facts.get("isolated") if done.run.facts else None
    return Ending(*done.ending, done.message, isolated, done.said("stdout"))


async def _main() -> None:
    with running_server() as server, psycopg.connect(server.embedded.dsn) as connection:
        row = connection.execute("SHOW server_version").fetchone()
    with tempfile.TemporaryDirectory(prefix="tri-ordinary-") as folder:
        await _tell(await make_world(Path(folder) / "home"), row[0] if row else None)


async def _tell(world: World, postgres: str | None) -> None:
    async with world.serving():
        kit = await world.kit()
        found = {
            "user": os.geteuid(),
            "postgres": postgres,
            "problem": kit.isolation.problem,
            "run": asdict(await _carried_out(world, kit)),
            "consented": asdict(await _carried_out(world, replace(kit, allow_unisolated=True))),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(_main())
