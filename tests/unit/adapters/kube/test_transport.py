"""Answers a healthy API server does not give on request: a scripted HTTP server gives them over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from triplane.adapters.kube import transport as transport_module
from triplane.adapters.kube.cluster import KubeCluster
from triplane.adapters.kube.login import is_loopback
from triplane.errors import Forbidden, Unavailable

Reply = tuple[int, dict[str, str], dict[str, object]]

LIST: Reply = (200, {}, {"metadata": {"resourceVersion": "7"}, "items": []})
GRAPH = {"kind": "Graph", "metadata": {"name": "g", "namespace": "team", "uid": "u", "resourceVersion": "1"}}
MADE: Reply = (201, {}, GRAPH)


def status(code: int, reason: str, **headers: str) -> Reply:
    return code, headers, {"kind": "Status", "code": code, "reason": reason, "message": f"because {reason}"}


class Script:
    """Replies in order; None cuts the connection after the request was read."""

    def __init__(self, replies: Sequence[Reply | None]) -> None:
        self.replies = list(replies)
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.times: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    (int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length")), 0
                )
                self.bodies.append(await reader.readexactly(length))
                self.requests.append(head.split(" HTTP")[0])
                self.times.append(asyncio.get_running_loop().time())
                reply = self.replies.pop(0)
                if reply is None:
                    break
                code, headers, body = reply
                content = json.dumps(body).encode()
                lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(content)}", "Content-Type: application/json"]
                lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@asynccontextmanager
async def scripted(
    tmp_path: Path, *replies: Reply | None, meter: transport_module.Meter = transport_module.UNMETERED
) -> AsyncIterator[tuple[KubeCluster, Script]]:
    script = Script(replies)
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: c, user: u}}]\n"
        f"clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n"
        "users: [{name: u, user: {token: t}}]\n"
    )
    cluster = KubeCluster(kubeconfig, meter=meter)
    try:
        yield cluster, script
    finally:
        await cluster.close()
        server.close()
        await server.wait_closed()


async def test_retry_after_is_obeyed_by_every_request_not_only_the_refused_one(tmp_path: Path) -> None:
    async with scripted(tmp_path, status(429, "TooManyRequests", Retry_After="1"), LIST, LIST) as (cluster, script):
        first = asyncio.create_task(cluster.list("Graph"))
        while not script.requests:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        await cluster.list("Task")
        await first
        assert script.times[1] - script.times[0] >= 1.0
        assert script.times[2] - script.times[0] >= 1.0


@pytest.mark.parametrize(
    "failure",
    [status(500, "InternalError"), status(503, "ServiceUnavailable"), status(504, "Timeout"), None],
    ids=["internal error", "unavailable", "gateway time-out", "connection cut"],
)
async def test_a_passing_failure_is_retried(tmp_path: Path, failure: Reply | None) -> None:
    async with scripted(tmp_path, failure, LIST) as (cluster, script):
        assert (await cluster.list("Graph"))[1] == "7"
        assert len(script.requests) == 2


async def test_retries_are_bounded_and_end_as_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "FIRST_BACKOFF_SECONDS", 0.001)
    replies = [status(500, "InternalError")] * 20
    async with scripted(tmp_path, *replies) as (cluster, script):
        with pytest.raises(Unavailable, match="because InternalError"):
            await cluster.list("Graph")
        assert len(script.requests) == transport_module.ATTEMPTS


async def test_a_create_whose_reply_was_lost_finds_its_object_standing(tmp_path: Path) -> None:
    exists = status(409, "AlreadyExists")
    async with scripted(tmp_path, None, exists, (200, {}, GRAPH)) as (cluster, script):
        obj, made = await cluster.create({"kind": "Graph", "metadata": {"name": "g", "namespace": "team"}, "spec": {}})
        assert (obj["metadata"]["uid"], made) == ("u", False)
        assert [request.split()[0] for request in script.requests] == ["POST", "POST", "GET"]


async def test_an_expired_continue_token_begins_the_list_again(tmp_path: Path) -> None:
    page: Reply = (200, {}, {"metadata": {"resourceVersion": "6", "continue": "more"}, "items": [dict(GRAPH)]})
    whole: Reply = (200, {}, {"metadata": {"resourceVersion": "7"}, "items": [dict(GRAPH)]})
    async with scripted(tmp_path, page, status(410, "Expired"), whole) as (cluster, script):
        items, version = await cluster.list("Graph")
        assert (len(items), version) == (1, "7")
        assert "continue=more" in script.requests[1]
        assert "continue" not in script.requests[2]


async def test_a_collection_that_changes_faster_than_it_is_paged_is_taken_whole(tmp_path: Path) -> None:
    page: Reply = (200, {}, {"metadata": {"resourceVersion": "6", "continue": "more"}, "items": []})
    async with scripted(tmp_path, *[page, status(410, "Expired")] * 3, LIST) as (cluster, script):
        await cluster.list("Graph")
        assert "limit" not in script.requests[-1]


async def test_a_proxy_that_answers_html_is_unavailable_not_a_crash(tmp_path: Path) -> None:
    async with scripted(tmp_path, *[(502, {}, {"odd": 1})] * 6) as (cluster, _):
        with pytest.raises(Unavailable, match="HTTP 502"):
            await cluster.list("Graph")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("https://127.0.0.1:6443", True),
        ("https://[::1]:6443", True),
        ("https://localhost", True),
        ("https://10.0.0.1:6443", False),
        ("https://localhost.example.com", False),
    ],
    ids=["IPv4 loopback", "IPv6 loopback", "localhost", "another machine", "a name that begins like it"],
)
def test_only_servers_elsewhere_are_reached_through_a_proxy(server: str, expected: bool) -> None:
    assert is_loopback(server) is expected


class Noting:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, int]] = []
        self.waits: list[str] = []

    def answered(self, verb: str, kind: str, code: int) -> None:
        self.answers.append((verb, kind, code))

    def held(self, reason: str, seconds: float) -> None:
        self.waits.append(reason)


async def test_every_attempt_and_every_wait_is_told_to_the_meter(tmp_path: Path) -> None:
    meter = Noting()
    replies = (None, status(429, "TooManyRequests", Retry_After="1"), MADE)
    async with scripted(tmp_path, *replies, meter=meter) as (cluster, _):
        await cluster.create({"kind": "Graph", "metadata": {"name": "g", "namespace": "team"}, "spec": {}})
    assert meter.answers == [("POST", "Graph", 0), ("POST", "Graph", 429), ("POST", "Graph", 201)]
    assert meter.waits == ["retry_after"]


async def test_writes_beyond_the_burst_wait_for_their_turn_and_reads_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "WRITES_PER_SECOND", 20.0)
    monkeypatch.setattr(transport_module, "WRITE_BURST", 2)
    meter = Noting()
    async with scripted(tmp_path, *[MADE] * 6, *[LIST] * 5, meter=meter) as (cluster, script):
        began = asyncio.get_running_loop().time()
        for _ in range(6):
            await cluster.create({"kind": "Graph", "metadata": {"name": "g", "namespace": "team"}, "spec": {}})
        for _ in range(5):
            await cluster.list("Graph")
    assert script.times[5] - began >= 4 / 20
    assert set(meter.waits) == {"rate"}


async def test_a_deletion_names_the_incarnation_and_takes_dependents_along(tmp_path: Path) -> None:
    gone: Reply = (404, {}, {"kind": "Status", "code": 404, "reason": "NotFound", "details": {"name": "g"}})
    replies: tuple[Reply, ...] = (
        (200, {}, {"kind": "Status"}),
        gone,
        status(409, "Conflict"),
        status(403, "Forbidden"),
    )
    async with scripted(tmp_path, *replies) as (cluster, script):
        assert await cluster.delete(GRAPH) is True
        assert await cluster.delete(GRAPH) is False
        assert await cluster.delete(GRAPH) is False
        with pytest.raises(Forbidden, match="deleting Graph team/g"):
            await cluster.delete(GRAPH)
        options = json.loads(script.bodies[0])
    assert script.requests[0] == "DELETE /apis/triplane.dev/v1alpha1/namespaces/team/graphs/g"
    assert options["preconditions"] == {"uid": "u"}
    assert options["propagationPolicy"] == "Background"
