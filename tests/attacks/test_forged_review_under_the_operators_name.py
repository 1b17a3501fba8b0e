"""Attack: the name of the operator's own Review can be foreseen; somebody makes a Review of that name first."""

import pytest
from tests.unit.controllers.memory_world import NAMESPACE, MemoryWorld
from tests.unit.controllers.people import entries, say, status, to_end, world

from triplane.controllers import task_review
from triplane.controllers.context import Context
from triplane.domain.naming import fingerprint, object_name

pytestmark = pytest.mark.attacks


async def attacked() -> tuple[MemoryWorld, str]:
    made = world()
    await made.settle()
    await made.run_next()
    await made.settle()
    (session,) = [item for item in made.server.of("AgentSession") if item["spec"]["role"] == "Reviewer"]
    name = object_name("t", "review-1", fingerprint(session["metadata"]["uid"], "1"))
    say(made, "mallory", name=name, findings=["written by mallory"])
    await to_end(made)
    return made, name


async def _adopting(context: Context, name: str, spec: object, at: object) -> dict[str, object]:
    return dict(await context.cluster.get("Review", NAMESPACE, name) or {})


async def test_it_is_what_the_acceptance_names_where_the_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_review, "create_review", _adopting)
    made, name = await attacked()
    (accepted,) = await entries(made, "task.accepted")
    assert accepted.entry["data"]["reviewName"] == name


async def test_somebody_else_s_review_is_not_adopted() -> None:
    made, name = await attacked()
    assert status(made)["state"] == "completed"
    (accepted,) = await entries(made, "task.accepted")
    said = accepted.entry["data"]["reviewName"]
    assert said != name
    assert made.server.objects["Review", NAMESPACE, said]["spec"]["sessionRef"]
    assert {item["reviewName"] for item in accepted.entry["data"]["reviews"]} == {said}
