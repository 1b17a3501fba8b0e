"""One run from claim to finish, on a real gateway and in a real sandbox."""

import json
from dataclasses import replace

import pytest
from tests.integration.session.world import REFLECTION, REPORT, World, sha256

from triplane.session.isolation import Isolation


async def test_a_program_that_reflects_and_leaves_its_output_succeeds(world: World) -> None:
    done = await world.carry_out(
        """
        say(type="progress", message="half", percent=50)
        say(type="message", role="assistant", text="hello")
        say(type="observation", observationId="o1", kind="fact", text="seen")
        say(type="usage", inputTokens=3, outputTokens=4, costMinorUnits=5)
        print("not a line of the protocol")
        print("to standard error", file=sys.stderr)
        leave(); reflect()
        """
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert [output.digest for output in done.run.result.outputs] == [sha256(b"# Done\n")]
    assert (done.run.result.usage.tokens, done.run.result.usage.cost_minor_units) == (7, 5)
    assert done.reflection is not None
    assert done.reflection["source"] == "harness"
    assert done.reflection["wentWell"] == REFLECTION["wentWell"]
    assert done.said("stdout") == ["not a line of the protocol"]
    assert done.said("stderr") == ["to standard error"]
    assert [record["type"] for record in done.records if "stream" not in record["payload"]] == [
        "activity",
        "message",
        "observation",
    ]


async def test_the_work_order_reaches_the_program_without_the_hosts_part(world: World) -> None:
    done = await world.carry_out(
        """
        print(sorted(order)); print(order["run"], order["session"]["name"], order["outputs"][0]["path"])
        leave(); reflect()
        """
    )

    keys, line = done.said("stdout")
    assert "harness" not in keys
    assert line == "1 session-1 /work/outputs/report.md"


async def test_inputs_are_there_verified_and_read_only(world: World) -> None:
    digest = await world.blob(b"the input\n")
    done = await world.carry_out(
        """
        path = order["inputs"][0]["path"]
        print(open(path).read().strip())
        for target in (path, "/work/inputs/new", "/work/order.json", "/work/program", "/work/new", "/usr/bin/x", "/x"):
            try: open(target, "a"); print("wrote", target)
            except OSError as error: pass
        leave(); reflect()
        """,
        inputs=[{"name": "text", "path": "/work/inputs/text", "digest": digest, "type": "File"}],
    )

    assert done.said("stdout") == ["the input"]
    assert done.ending == ("succeeded", "Completed")


async def test_the_environment_is_exactly_the_documented_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "host-secret")
    done = await world.carry_out(
        "print(json.dumps(dict(os.environ))); leave(); reflect()",
        harness={
            "program": "agent.py",
            "interpreter": "python3",
            "args": [],
            "env": [{"name": "MODE", "value": "$(id); `id`"}],
        },
    )

    assert json.loads(done.said("stdout")[0]) == {
        "TRIPLANE_WORK_ORDER": "/work/order.json",
        "TRIPLANE_INPUTS": "/work/inputs",
        "TRIPLANE_OUTPUTS": "/work/outputs",
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "MODE": "$(id); `id`",
    }


async def test_arguments_are_literal(world: World) -> None:
    odd = ["; touch /work/outputs/owned", "$(id)", "`id`", "a b", "*", "'\"", "--", "-c", "\\n", "|cat", "&& id", ""]
    done = await world.carry_out(
        "print(json.dumps(sys.argv[1:])); print(os.listdir('/work/outputs')); leave(); reflect()",
        harness={"program": "agent.py", "interpreter": "python3", "args": odd, "env": []},
    )

    assert json.loads(done.said("stdout")[0]) == odd
    assert done.said("stdout")[1] == "[]"


@pytest.mark.parametrize(
    ("source", "ending"),
    [
        pytest.param("leave()", ("failed", "NoReflection"), id="no reflection, no success"),
        pytest.param("leave(); reflect(); sys.exit(3)", ("failed", "HarnessFailed"), id="exit code 3 fails"),
        pytest.param(
            "leave(); reflect(); os.kill(os.getpid(), 9)", ("failed", "HarnessFailed"), id="death by signal fails"
        ),
        pytest.param("reflect()", ("failed", "OutputMissing"), id="a missing output fails"),
        pytest.param(
            "leave(text='\\0'); reflect()", ("failed", "ContractNotMet"), id="the gateway judges the contract"
        ),
        pytest.param("import yaml", ("failed", "HarnessFailed"), id="the runner's packages are not there"),
    ],
)
async def test_endings(world: World, source: str, ending: tuple[str, str]) -> None:
    done = await world.carry_out(source)

    assert done.ending == ending, done.message
    if "reflect()" not in source:
        assert done.reflection is not None
        assert done.reflection["source"] == "host"


async def test_a_failing_programs_last_words_are_in_the_message(world: World) -> None:
    done = await world.carry_out("raise RuntimeError('the disk is on fire')")

    assert "exit code 1" in done.message
    assert "the disk is on fire" in done.message


async def test_a_run_over_its_time_is_killed_and_says_so(world: World) -> None:
    done = await world.carry_out(
        """
        import signal, time
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        print("started", flush=True)
        time.sleep(300)
        """,
        timeoutSeconds=1,
    )

    assert done.ending == ("timed_out", "TimedOut")
    assert "1 s" in done.message
    assert done.said("stdout") == ["started"]


async def test_the_facts_name_what_ran(world: World) -> None:
    name = world.program("leave(); reflect()")
    done = await world.carry_out()

    facts = done.run.facts
    assert facts["isolated"] is True
    assert facts["isolation"].startswith("bubblewrap 0.")
    materials = {material["role"]: material for material in facts["materials"]}
    assert set(materials) == {"program", "interpreter", "sandbox"}
    assert materials["program"] == {
        "role": "program",
        "name": name,
        "digest": sha256((world.programs / name).read_bytes()),
        "basis": "content",
    }
    assert all(material["digest"] for material in facts["materials"])


async def test_a_program_may_be_a_folder_with_modules(world: World) -> None:
    world.program("WORD = 'from a sibling'", "tool/sibling.py", prelude=False)
    world.program("import sibling; print(sibling.WORD); leave(); reflect()", "tool/main.py")
    done = await world.carry_out(
        harness={"program": "tool", "entrypoint": "main.py", "interpreter": "python3", "args": [], "env": []}
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["from a sibling"]


async def test_a_program_may_be_a_stored_blob(world: World) -> None:
    world.program("print('from the store'); leave(); reflect()")
    digest = await world.blob((world.programs / "agent.py").read_bytes())
    (world.programs / "agent.py").unlink()
    done = await world.carry_out(harness={"digest": digest, "interpreter": "python3", "args": [], "env": []})

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["from the store"]


async def test_a_program_may_run_without_an_interpreter(world: World) -> None:
    world.program(
        '#!/bin/sh\necho "$0 $1"\necho \'{"type":"reflection","wentWell":["ran"],"wentBadly":[]}\'\n'
        'echo done > "$TRIPLANE_OUTPUTS/report.md"\n',
        "tool.sh",
        prelude=False,
    )
    (world.programs / "tool.sh").chmod(0o755)
    done = await world.carry_out(harness={"program": "tool.sh", "interpreter": "none", "args": ["x"], "env": []})

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["/work/program x"]


@pytest.mark.parametrize(
    ("harness", "reason", "words"),
    [
        pytest.param({"program": "absent.py"}, "ProgramNotApproved", ["absent.py"], id="not in the approved folder"),
        pytest.param({"program": "link.py"}, "ProgramRefused", ["symbolic link"], id="a link out of the folder"),
        pytest.param({"program": "away/agent.py"}, "ProgramRefused", ["symbolic link"], id="through a linked folder"),
        pytest.param({"program": "../home/programs/agent.py"}, "HarnessInvalid", ["program"], id="a path with dots"),
        pytest.param({"program": "/etc/passwd"}, "HarnessInvalid", ["program"], id="an absolute path"),
        pytest.param(
            {"program": "agent.py", "digest": "sha256:" + "0" * 64},
            "ProgramChanged",
            ["sha256:" + "0" * 64],
            id="another digest than the pinned one",
        ),
        pytest.param({"program": "agent.py", "entrypoint": "x"}, "HarnessInvalid", ["x"], id="entrypoint of a file"),
        pytest.param({"program": "tool"}, "HarnessInvalid", ["entrypoint"], id="a folder without entrypoint"),
        pytest.param({}, "HarnessInvalid", ["names neither"], id="neither program nor digest"),
        pytest.param(
            {"program": "agent.py", "env": [{"name": "LD_PRELOAD", "value": "x"}]},
            "HarnessInvalid",
            ["LD_PRELOAD"],
            id="a variable of the loader",
        ),
        pytest.param(
            {"digest": "sha256:" + "0" * 64}, "InputUnusable", ["sha256:" + "0" * 64], id="a blob nobody stored"
        ),
    ],
)
async def test_programs_that_are_refused(
    world: World, harness: dict[str, object], reason: str, words: list[str]
) -> None:
    world.program("leave(); reflect()")
    world.program("x = 1", "tool/main.py")
    (world.home / "elsewhere").mkdir()
    (world.home / "elsewhere" / "agent.py").write_text("print('escaped')")
    (world.programs / "link.py").symlink_to(world.home / "elsewhere" / "agent.py")
    (world.programs / "away").symlink_to(world.home / "elsewhere")
    done = await world.carry_out(harness=harness)

    assert done.ending == ("refused", reason), done.message
    assert all(word in done.message for word in words), done.message
    assert done.run.started_at is None
    assert done.reflection is not None
    assert done.reflection["source"] == "host"


async def test_an_altered_program_is_refused_with_both_digests(world: World) -> None:
    world.program("leave(); reflect()")
    pinned = sha256((world.programs / "agent.py").read_bytes())
    world.program("leave(text='# Done otherwise'); reflect()")
    done = await world.carry_out(harness={"program": "agent.py", "digest": pinned})

    assert done.ending == ("refused", "ProgramChanged")
    assert pinned in done.message
    assert sha256((world.programs / "agent.py").read_bytes()) in done.message


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([{"name": "a", "path": "/work/inputs/../order.json"}], id="a path with dots"),
        pytest.param([{"name": "a", "path": "/etc/passwd"}], id="a path elsewhere"),
        pytest.param(
            [{"name": "a", "path": "/work/inputs/a"}, {"name": "a", "path": "/work/inputs/a"}], id="a name taken twice"
        ),
        pytest.param(
            [{"name": "a", "path": "/work/inputs/a"}, {"name": "b", "path": "/work/inputs/a/b"}],
            id="a file where a folder must be",
        ),
        pytest.param([{"name": "a", "path": "/work/inputs/a", "type": "Directory"}], id="an archive that is none"),
        pytest.param([{"name": "a", "path": "/work/inputs/a", "digest": "sha256:" + "1" * 64}], id="a missing blob"),
    ],
)
async def test_inputs_that_are_refused(world: World, inputs: list[dict[str, str]]) -> None:
    digest = await world.blob(b"no archive")
    done = await world.carry_out(
        "leave(); reflect()", inputs=[{"digest": digest, "type": "File", **item} for item in inputs]
    )

    assert done.ending == ("refused", "InputUnusable"), done.message
    assert "input a" in done.message or "input b" in done.message or "sha256:1" in done.message


async def test_nothing_of_a_run_stays_on_the_host(world: World) -> None:
    done = await world.carry_out(
        """
        os.chdir("/work/outputs")
        for _ in range(1500):
            os.mkdir("a-rather-long-name"); os.chdir("a-rather-long-name")
        os.makedirs("/work/outputs/locked/in"); os.chmod("/work/outputs/locked", 0)
        os.symlink("/etc", "/work/outputs/link"); os.mkfifo("/work/outputs/pipe")
        leave(); reflect()
        """
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert list((world.home / "run" / "sessions").iterdir()) == []


async def test_tokens_do_not_reach_the_journal(world: World) -> None:
    kit = replace(await world.kit(), service_token=lambda: "service-token-value")
    done = await world.carry_out(
        "print('x service-token-value y'); print(open('/work/order.json').read().count('trp1')); leave(); reflect()",
        kit=kit,
    )

    assert done.said("stdout") == ["x [redacted] y", "0"]


async def test_without_a_sandbox_the_run_is_refused(world: World) -> None:
    kit = replace(await world.kit(), isolation=Isolation(None, "bubblewrap is broken here"))
    done = await world.carry_out("leave(); reflect()", kit=kit)

    assert done.ending == ("refused", "NoSandbox")
    assert "bubblewrap is broken here" in done.message
    assert "TRIPLANE_ALLOW_UNISOLATED" in done.message


async def test_unisolated_runs_happen_only_when_allowed_and_say_so(world: World) -> None:
    kit = replace(await world.kit(), isolation=Isolation(None, "none"), allow_unisolated=True)
    digest = await world.blob(b"the input\n")
    done = await world.carry_out(
        "print(open(order['inputs'][0]['path']).read().strip()); leave(); reflect()",
        kit=kit,
        inputs=[{"name": "text", "path": "/work/inputs/text", "digest": digest, "type": "File"}],
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["the input"]
    assert done.run.facts["isolated"] is False
    assert "sandbox" not in {material["role"] for material in done.run.facts["materials"]}


async def test_a_reviewer_gets_outputs_in_a_folder_of_their_own(world: World) -> None:
    digest = await world.blob(b"# Report\n")
    done = await world.carry_out(
        """
        print(open("/work/inputs/outputs/report").read().strip())
        leave(); reflect()
        """,
        role="reviewer",
        inputs=[{"name": "outputs/report", "path": "/work/inputs/outputs/report", "digest": digest, "type": "File"}],
        outputs=[REPORT],
    )

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.said("stdout") == ["# Report"]
