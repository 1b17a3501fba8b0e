"""A program that ended well without a reflection is asked for one, once, in a real sandbox."""

import asyncio
import json

import pytest
from tests.integration.session.world import REFLECTION, World, sha256

from triplane.session import asking

ASKED = "os.environ.get('TRIPLANE_ASK') == 'reflection'"
FIRST = "leave(); say(type='usage', inputTokens=3, outputTokens=0, costMinorUnits=0)"


async def test_it_reflects_when_it_is_asked(world: World) -> None:
    done = await world.carry_out(
        f"""
        if {ASKED}:
            order = json.load(open(os.environ['TRIPLANE_WORK_ORDER']))
            print(json.dumps([order['ask'], order['task']['name'], open('/work/outputs/report.md').read()]))
            say(type='usage', inputTokens=4, outputTokens=1, costMinorUnits=0)
            reflect()
        else:
            print('ask' in json.load(open(os.environ['TRIPLANE_WORK_ORDER'])))
            {FIRST}
        """
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.reflection is not None
    assert (done.reflection["source"], done.reflection["wentWell"]) == ("harness", REFLECTION["wentWell"])
    assert done.said("stdout") == ["False", json.dumps(["reflection", "work", "# Done\n"])]
    assert [r["payload"]["message"] for r in done.records if r["type"] == "activity"] == [
        "the host asks once more for a reflection"
    ]
    assert done.run.result is not None
    assert done.run.result.usage.tokens == 8, "what it used to answer comes on top"


async def test_an_invalid_reflection_is_asked_for_again(world: World) -> None:
    done = await world.carry_out(
        f"reflect() if {ASKED} else leave() or say(type='reflection', wentWell=[], wentBadly=[], confidence=101)"
    )
    assert done.ending == ("succeeded", "Completed"), done.message


async def test_it_is_asked_once(world: World) -> None:
    done = await world.carry_out("leave(); print('started')")
    assert done.ending == ("failed", "NoReflection")
    assert "asked once more" in done.message
    assert done.said("stdout") == ["started"], "asked, it could not even leave its output"
    assert done.reflection is not None
    assert done.reflection["source"] == "host"


async def test_what_it_left_cannot_be_altered_by_the_answer(world: World) -> None:
    done = await world.carry_out(
        f"""
        if {ASKED}:
            for attempt in (lambda: leave(text='other'), lambda: leave(name='more.md'),
                            lambda: os.remove('/work/outputs/report.md')):
                try:
                    attempt()
                except OSError as error:
                    print(error.strerror)
            reflect()
        else:
            leave()
        """
    )
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["Read-only file system"] * 3
    assert done.run.result is not None
    assert [output.digest for output in done.run.result.outputs] == [sha256(b"# Done\n")]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(f"leave(); sys.exit(0 if not {ASKED} else (reflect(), 3)[1])", id="however it ends then"),
        pytest.param(
            f"leave(); ({ASKED}) and (reflect(), sys.stdout.flush(), os.kill(os.getpid(), 9))", id="also by a signal"
        ),
    ],
)
async def test_only_what_it_says_counts(world: World, source: str) -> None:
    assert (await world.carry_out(source.replace("leave();", f"({ASKED}) or leave();"))).ending == (
        "succeeded",
        "Completed",
    )


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("leave(); sys.exit(3)", "HarnessFailed", id="one that failed"),
        pytest.param("import time; leave(); time.sleep(60)", "TimedOut", id="one that was out of time"),
    ],
)
async def test_nobody_else_is_asked(world: World, source: str, reason: str) -> None:
    done = await world.carry_out(source, timeoutSeconds=2)
    assert done.ending[1] == reason
    assert not [record for record in done.records if record["type"] == "activity"]


async def test_an_answer_takes_no_longer_than_it_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ASK_SECONDS", 0.5)
    async with asyncio.timeout(20):
        done = await world.carry_out(f"import time; time.sleep(300) if {ASKED} else leave()")
    assert done.ending == ("failed", "NoReflection")


async def test_whoever_is_asked_has_no_way_out_any_more(world: World) -> None:
    done = await world.carry_out(
        f"""
        print(sorted(name for name in os.environ if 'proxy' in name.lower() or name.startswith('TRIPLANE_')))
        try:
            import socket
            socket.create_connection(('127.0.0.1', int(os.environ.get('HTTPS_PROXY', ':3128').rpartition(':')[2])), 2)
            print('a door stands open')
        except OSError as error:
            print(error.strerror)
        reflect() if {ASKED} else leave()
        """,
        authority={"egress": ["example.com"]},
    )
    assert done.ending == ("succeeded", "Completed"), done.message
    first, door, asked, shut = done.said("stdout")
    assert "HTTPS_PROXY" in first
    assert door == "a door stands open"
    assert "proxy" not in asked.lower()
    assert "TRIPLANE_ASK" in asked
    assert shut == "Connection refused"
