"""A tool answers with escape sequences, line breaks and text that runs backwards: nothing of it is obeyed where people
read of it."""

import json
from pathlib import Path

import pytest
from tests.integration.session.test_tool_runs import CLIENT, granting, logged, pretend
from tests.integration.session.world import World, make_world

from triplane.cli.output import one_line
from triplane.domain import journal as cleaning
from triplane.gateway import tools as reports

pytestmark = pytest.mark.attacks
HARNESS = CLIENT + "print(json.dumps(ask('tools/call', {'name': 'pretend__ansi'}))[:0] + 'called'); leave(); reflect()"


async def _stored(home: Path) -> tuple[str, World]:
    world = await make_world(home)
    async with world.serving():
        done = await world.carry_out(HARNESS, tools=[pretend(world)], authority=granting("pretend/*"))
        assert done.ending == ("succeeded", "Completed"), done.message
        (entry,) = await logged(world, done)
        stored = json.loads(await world.read(entry["output"]))
        return stored["content"][0]["text"] + json.dumps(entry) + json.dumps(done.records), world


async def test_uncleaned_it_would_be_stored_as_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "clean_json", lambda value: value)
    text, _ = await _stored(tmp_path / "home")
    assert "\x1b[2J" in text


async def test_it_is_stored_spelled_out(tmp_path: Path) -> None:
    text, _ = await _stored(tmp_path / "home")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\r" not in text
    assert "\\e[2J" in text


def test_in_a_one_line_field_it_stays_on_one_line() -> None:
    assert "\n" not in one_line("done\n2026-01-01 ERROR forged")
    assert cleaning.escape_text("a\nb", lines=True) == "a\\nb"
