"""TokenReview, SubjectAccessReview and single objects: for the refusals a real API server cannot be made to give."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

OWN = "gateway-account-token"
ALICE, BOB, STRANGER = "alice-token", "bob-token", "stranger-token"


@dataclass
class FakeApiServer:
    """Who its tokens are, what they may do, and what it was asked."""

    kubeconfig: Path
    users: dict[str, str] = field(default_factory=lambda: {ALICE: "alice", BOB: "bob"})
    rights: set[tuple[str, str, str, str]] = field(default_factory=set)
    """(user, verb, resource, namespace); an empty namespace covers all."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    own: str = OWN
    down: bool = False
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What GET gives, by path."""
    closed: set[str] = field(default_factory=set)
    """Paths the gateway's account may not read."""
    read: list[str] = field(default_factory=list)

    def grant(self, user: str, verb: str, resource: str, namespace: str = "") -> None:
        self.rights.add((user, verb, resource, namespace))

    def write_kubeconfig(self, url: str, token: str) -> None:
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                    "clusters": [{"name": "k", "cluster": {"server": url}}],
                    "users": [{"name": "u", "user": {"token": token}}],
                }
            )
        )

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        spec = body["spec"]
        if body["kind"] == "TokenReview":
            user = self.users.get(spec["token"])
            if user is None:
                return {"authenticated": False, "error": "unknown token"}
            return {"authenticated": True, "user": {"username": user, "uid": f"uid-{user}", "groups": ["people"]}}
        wanted = spec["resourceAttributes"]
        assert wanted["group"] in ("triplane.dev", "")
        namespaces = {"", wanted.get("namespace", "")}
        resource = wanted["resource"] if wanted["group"] else f"{wanted['resource']}/{wanted['name']}"
        return {
            "allowed": any(
                (subject, wanted["verb"], resource, namespace) in self.rights
                for namespace in namespaces
                for subject in (spec["user"], *spec["groups"])
            )
        }


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[FakeApiServer]:
    fake = FakeApiServer(folder / "gateway.kubeconfig")
    app = FastAPI()

    @app.post("/apis/{group}/{version}/{resource}")
    async def review(request: Request) -> Response:
        body = await request.json()
        fake.asked.append(body)
        if fake.down:
            return JSONResponse({}, 500)
        if request.headers.get("authorization") != f"Bearer {fake.own}":
            return JSONResponse({}, 401)
        return JSONResponse({**body, "status": fake.answer(body)}, 201)

    @app.get("/{path:path}")
    async def get(path: str, request: Request) -> Response:
        fake.read.append(f"/{path}")
        if request.headers.get("authorization") != f"Bearer {fake.own}":
            return JSONResponse({}, 401)
        if f"/{path}" in fake.closed:
            return JSONResponse({}, 403)
        found = fake.objects.get(f"/{path}")
        return JSONResponse(found or {}, 404 if found is None else 200)

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    fake.write_kubeconfig(f"http://127.0.0.1:{port}", OWN)
    try:
        yield fake
    finally:
        server.should_exit = True
        await serving
