"""What ``install`` says to servers it cannot use. A small HTTP server stands in for versions nobody runs here."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from triplane.errors import Forbidden, InvalidInput, NotFound, Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.install import check_version, load_manifests
from triplane.localcluster.ports import free_port


@contextmanager
def answering(*answers: tuple[int, dict[str, Any]]) -> Iterator[str]:
    """A server that gives these answers in turn, the last one for ever."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = left.pop(0) if len(left) > 1 else left[0]
            octets = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        def do_PATCH(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def version(major: str, minor: str) -> tuple[int, dict[str, Any]]:
    return 200, {"major": major, "minor": minor, "gitVersion": f"v{major}.{minor}.0"}


@pytest.mark.parametrize(
    ("major", "minor"),
    [
        pytest.param("1", "36", id="the oldest that will do"),
        pytest.param("1", "37+", id="a provider's build"),
        pytest.param("2", "0", id="a new major version"),
    ],
)
async def test_a_new_enough_server_is_accepted(major: str, minor: str) -> None:
    with answering(version(major, minor)) as url:
        async with ApiServer(url, authority=None, token=None) as server:
            await check_version(server)


@pytest.mark.parametrize("minor", ["35", "35+", "9"])
async def test_an_older_server_is_refused_with_the_reason(minor: str) -> None:
    with answering(version("1", minor)) as url:
        async with ApiServer(url, authority=None, token=None) as server:
            with pytest.raises(InvalidInput, match=rf"Kubernetes v1\.{minor[:1]}.*needs 1\.36 or newer.*CLUSTER=local"):
                await check_version(server)


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Forbidden), (403, Forbidden), (404, NotFound), (422, InvalidInput), (503, Unavailable)]
)
async def test_a_refusal_becomes_the_error_that_fits(status: int, kind: type[Exception]) -> None:
    with answering((status, {"message": "because"})) as url:
        async with ApiServer(url, authority=None, token=None) as server:
            with pytest.raises(kind, match="because"):
                await server.get("/anything")


async def test_a_server_that_is_not_there_is_named() -> None:
    async with ApiServer(f"http://127.0.0.1:{free_port()}", authority=None, token=None) as server:
        with pytest.raises(Unavailable, match=r"cannot reach the API server http://127\.0\.0\.1"):
            await check_version(server)


async def test_a_busy_server_is_asked_again() -> None:
    discovery = {"resources": [{"kind": "Namespace", "name": "namespaces", "namespaced": False}]}
    with answering((200, discovery), (429, {}), (503, {}), (200, {"done": True})) as url:
        async with ApiServer(url, authority=None, token=None) as server:
            made = await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    assert made == {"done": True}


async def test_a_kind_the_server_does_not_know_is_named() -> None:
    with answering((200, {"resources": []})) as url:
        async with ApiServer(url, authority=None, token=None) as server:
            with pytest.raises(InvalidInput, match="has no Namespace in v1"):
                await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})


def test_every_policy_comes_with_its_binding() -> None:
    manifests = load_manifests()
    for kind in ("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"):
        policies = {m["metadata"]["name"] for m in manifests if m["kind"] == kind}
        bound = {m["spec"]["policyName"] for m in manifests if m["kind"] == f"{kind}Binding"}
        assert policies == bound
        assert policies
