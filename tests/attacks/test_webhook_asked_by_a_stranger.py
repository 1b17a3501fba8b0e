"""Somebody who reaches the webhook asks it themselves: to learn what exists, or to make the log say what never was.

The weakened webhook answers whoever asks, as one without the API server's token does.
"""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from triplane.admission.app import Layers, create_app
from triplane.admission.asked import Asked, Outcome, Reads
from triplane.domain.admission import Violation

pytestmark = pytest.mark.attacks

REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {
        "uid": "u",
        "kind": {"kind": "Task"},
        "operation": "CREATE",
        "namespace": "demo",
        "name": "never-made",
        "userInfo": {"username": "bob"},
        "object": {"metadata": {"name": "never-made"}, "spec": {}},
    },
}


class Recorder:
    """A layer that takes note of whoever is said to have asked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, asked: Asked, reads: Reads) -> Outcome:
        self.seen.append(str(asked.user["username"]))
        return Outcome((Violation("spec", "no"),))


class Nothing:
    async def get(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        return None


async def ask(caller: str | None, **headers: str) -> tuple[int, list[str]]:
    recorder = Recorder()
    app = create_app(Layers((recorder,), Nothing()), caller)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://webhook") as stranger:
        answer = await stranger.post("/review/x", json=REVIEW, headers=headers)
    return answer.status_code, recorder.seen


async def test_a_webhook_that_knows_no_caller_blames_whomever_a_stranger_names() -> None:
    assert await ask(None) == (200, ["bob"])


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="without a token"),
        pytest.param({"Authorization": "Bearer guess"}, id="with a guess"),
        pytest.param({"Authorization": "Bearer "}, id="with an empty one"),
        pytest.param({"Authorization": "the-token"}, id="with the token alone"),
    ],
)
async def test_a_stranger_is_not_answered_and_leaves_no_trace(headers: dict[str, str]) -> None:
    assert await ask("the-token", **headers) == (401, [])


async def test_the_api_server_is_answered() -> None:
    assert await ask("the-token", Authorization="Bearer the-token") == (200, ["bob"])
