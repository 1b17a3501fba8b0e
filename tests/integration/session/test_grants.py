"""What authority adds to a run, and what a runner without a sandbox must refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.session.world import World

from triplane.session import grants as under_test
from triplane.session.isolation import Isolation
from triplane.session.launch import HostKit


async def unisolated(world: World, **changes: object) -> HostKit:
    kit = await world.kit()
    return replace(kit, isolation=Isolation(None, "taken away"), allow_unisolated=True, **changes)  # type: ignore[arg-type]


async def test_an_axis_that_cannot_be_enforced_refuses_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = await unisolated(world)
    order = {"demandedAxes": ["egress", "models", "tools"], "authority": {"egress": ["example.com"]}}
    with monkeypatch.context() as weakened:
        weakened.setattr(under_test, "unenforced", lambda axes, isolated: ())
        done = await world.carry_out("leave(); reflect()", kit=kit, **order)
        assert done.ending == ("succeeded", "Completed"), done.message
    done = await world.carry_out("leave(); reflect()", kit=kit, **order)
    assert done.ending == ("refused", "AxisNotEnforced")
    assert "cannot enforce egress, tools, which" in done.message


async def test_a_policy_may_let_named_axes_go(world: World) -> None:
    kit = await unisolated(world)
    order = {"demandedAxes": ["egress", "paths"]}
    done = await world.carry_out("leave(); reflect()", kit=kit, allowUnenforced=["egress"], **order)
    assert done.ending == ("refused", "AxisNotEnforced")
    assert "cannot enforce paths, which" in done.message
    done = await world.carry_out("leave(); reflect()", kit=kit, allowUnenforced=["egress", "paths"], **order)
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.facts["isolated"] is False


async def test_in_a_sandbox_every_axis_may_be_demanded(world: World) -> None:
    axes = ["egress", "paths", "secrets", "tools", "budget.wallClockSeconds", "budget.tokens"]
    done = await world.carry_out("leave(); reflect()", demandedAxes=axes)
    assert done.ending == ("succeeded", "Completed"), done.message


async def test_without_a_sandbox_the_proxy_asks_for_the_word_and_shared_paths_are_links(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "notes.txt").write_text("shared notes")
    done = await world.carry_out(
        """
        import base64, socket, urllib.parse
        proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
        def ask(*headers):
            with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as out:
                out.sendall("\\r\\n".join(["CONNECT 127.0.0.1:1 HTTP/1.1", *headers, "", ""]).encode())
                return out.makefile("rb").readline().decode().split(": ")[0].split("\\r")[0]
        word = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        answers = [ask(), ask("Proxy-Authorization: Basic " + word)]
        notes = open(os.path.join(os.environ["TRIPLANE_SHARED"], "notes.txt")).read()
        leave(text=json.dumps([answers, notes])); reflect()
        """,
        kit=await unisolated(world, shared=tmp_path / "shared"),
        authority={"egress": ["example.com"], "paths": ["**"]},
        paths=[{"path": "notes.txt", "writable": False}],
    )
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.result is not None
    answers, notes = json.loads(await world.read(done.run.result.outputs[0].digest))
    assert answers == ["HTTP/1.1 407 Proxy Authentication Required", "HTTP/1.1 403 Forbidden"]
    assert notes == "shared notes"


async def test_a_run_that_is_granted_nothing_has_none_of_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it pay for it: the gateway is asked for no secret."""

    async def asked(self: object) -> None:
        raise AssertionError("asked for secrets")

    monkeypatch.setattr("triplane.session.client.RunGateway.secrets", asked)
    done = await world.carry_out(
        "leave(text=json.dumps(sorted(os.environ))); reflect()",
        authority={"egress": [], "secrets": ["**"], "paths": ["**:rw"], "tools": ["**"]},
        secrets=[],
        paths=[],
    )
    assert done.run.result is not None
    assert json.loads(await world.read(done.run.result.outputs[0].digest)) == [
        "HOME", "LANG", "PATH", "TRIPLANE_INPUTS", "TRIPLANE_OUTPUTS", "TRIPLANE_WORK_ORDER"
    ]  # fmt: skip
    assert done.run.facts["network"] == "none"


async def test_whom_the_machine_trusts_is_in_sight_where_there_is_a_way_out(world: World) -> None:
    program = "leave(text=json.dumps(sorted(os.listdir('/etc/ssl')) if os.path.exists('/etc/ssl') else [])); reflect()"
    seen = []
    for egress in (["example.com"], []):
        done = await world.carry_out(program, authority={"egress": egress})
        assert done.run.result is not None, done
        seen.append(json.loads(await world.read(done.run.result.outputs[0].digest)))
    trusted = [name for name in ("cert.pem", "certs") if Path("/etc/ssl", name).exists()]
    assert seen == [trusted, []]
