"""Example 11 without a cluster: its own programs and manifests, by way of a real gateway and a real session host."""

import asyncio
import json
from dataclasses import replace
from typing import Any

from tests.e2e.manifests import EXAMPLES, example
from tests.integration.session.test_tool_runs import frozen, logged
from tests.integration.session.world import World


async def test_the_rent_is_paid_once_bob_agrees_and_no_account_is_closed(world: World) -> None:
    objects = {(obj["kind"], obj["metadata"]["name"]): obj["spec"] for _, obj in example("11-tools", "demo")}
    task = objects["Task", "rent"]
    report = task["outputs"][0]

    async def bob() -> None:
        while not (asked := await world.backends.sessions.questions(["00000000-0000-4000-8000-000000000001"])):
            await asyncio.sleep(0.02)
        shown: dict[str, Any] = json.loads(await world.read(asked[0].digest))
        assert shown == {"tool": "ledger/transfer", "arguments": {"amount": 600, "source": "cash", "target": "rent"}}
        assert asked[0].approvers == ("system:serviceaccount:people:bob",)
        await world.backends.sessions.answer(
            asked[0].session_uid, asked[0].invocation, approved=True, review="r", principal="bob"
        )

    answering = asyncio.create_task(bob())
    done = await world.carry_out(
        kit=replace(await world.kit(), programs=EXAMPLES / "programs"),
        harness={**objects["Harness", "treasurer"]["exec"], "interpreter": "python3", "args": [], "env": []},
        tools=[frozen(name, objects["Tool", name]) for name in task["tools"]],
        authority={**task["authority"]["mayUse"], "egress": []},
        outputs=[{**report, "path": f"/work/outputs/{report['path']}"}],
    )
    await answering

    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.result is not None
    left = json.loads(await world.read(done.run.result.outputs[0].digest))
    assert left["offered"] == ["clock__now", "ledger__balance", "ledger__transfer"]
    assert (left["before"], left["after"]) == (900, 1500)
    assert "ToolDenied" in left["refused"]
    assert [(entry["tool"], entry["status"], entry["approval"]) for entry in await logged(world, done)] == [
        ("clock/now", "succeeded", "not_required"),
        ("ledger/balance", "succeeded", "not_required"),
        ("ledger/close_account", "refused", "not_asked"),
        ("ledger/transfer", "succeeded", "approved"),
        ("ledger/balance", "succeeded", "not_required"),
    ]
    assert done.run.result.usage.cost_minor_units == 3
