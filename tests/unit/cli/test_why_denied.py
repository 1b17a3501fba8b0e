"""``triplane why-denied`` against a small HTTP server that answers as the API server does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from triplane.api.text import API_VERSION
from triplane.cli.main import app
from triplane.domain.admission import exceeding, refusal
from triplane.domain.why_denied import WEBHOOK

TASK = {
    "apiVersion": API_VERSION,
    "kind": "Task",
    "metadata": {"name": "audit", "labels": {"team": "red"}},
    "spec": {"graphRef": {"name": "g"}, "objective": "x", "agentRef": {"name": "a"}},
}
STORED = {
    **TASK,
    "metadata": {
        **TASK["metadata"],  # type: ignore[dict-item]
        "namespace": "demo", "uid": "u", "resourceVersion": "7", "generation": 1,
        "annotations": {"triplane.dev/requester": "alice", "note": "mine"},
    },
    "status": {"conditions": []},
}  # fmt: skip


def denial() -> tuple[int, dict[str, Any]]:
    said = refusal("Task", "audit", [exceeding("spec.secrets", "secrets", "db", "", "Graph demo/g", "alice")])
    return 422, {**said, "message": f'admission webhook "{WEBHOOK}" denied the request: {said["message"]}'}


class ApiServer:
    """Answers GET with ``stored``, and everything else with ``verdict``."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.verdict: tuple[int, dict[str, Any]] = (201, TASK)
        self.asked: list[tuple[str, str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                missing = {"kind": "Status", "code": 404, "message": "not found", "details": {"name": "audit"}}
                self.answer(*((200, outer.stored) if outer.stored else (404, missing)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.command, self.path, body))
                self.answer(*outer.verdict)

            def do_PUT(self) -> None:
                self.do_POST()

            def answer(self, code: int, body: Any) -> None:
                octets = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer()
    made.thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "demo"}}],
        "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{made.http.server_address[1]}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("TRIPLANE_KUBECONFIG", str(path))
    try:
        yield made
    finally:
        made.http.shutdown()
        made.thread.join()
        made.http.server_close()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(TASK))
    return path


def run(*arguments: str, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["why-denied", *arguments], input=stdin)
    return done.exit_code, done.output


def test_what_would_be_admitted_says_so(server: ApiServer, manifest: Path) -> None:
    assert run("-f", str(manifest)) == (0, "Task demo/audit would be admitted\n")
    ((method, path, body),) = server.asked
    assert (method, "dryRun=All" in path, "fieldValidation=Strict" in path) == ("POST", True, True)
    assert body["metadata"]["namespace"] == "demo"


def test_a_denial_is_explained_and_is_exit_code_1(server: ApiServer, manifest: Path) -> None:
    server.verdict = denial()
    code, said = run("-f", str(manifest))
    assert code == 1
    assert "axis secrets: asked for db; Graph demo/g allows nothing" in said
    assert "who can change it: alice" in said


def test_programs_get_every_part(server: ApiServer, manifest: Path) -> None:
    server.verdict = denial()
    code, said = run("-f", str(manifest), "-o", "json")
    (found,) = json.loads(said)
    (cause,) = found["causes"]
    assert (code, found["object"], found["denied"]) == (1, "Task demo/audit", True)
    assert (cause["layer"], cause["axis"], cause["value"], cause["limit"], cause["holder"], cause["ask"]) == (
        "authority", "secrets", "db", "nothing", "Graph demo/g", "alice",
    )  # fmt: skip


def test_what_is_there_already_is_asked_about_as_an_update(server: ApiServer, manifest: Path) -> None:
    server.stored = STORED
    assert run("-f", str(manifest))[0] == 0
    ((method, _, body),) = server.asked
    assert method == "PUT"
    assert body["metadata"]["resourceVersion"] == "7"
    assert body["metadata"]["annotations"]["triplane.dev/requester"] == "alice"


def test_a_stored_object_is_asked_about_as_if_made_anew(server: ApiServer) -> None:
    server.stored = STORED
    server.verdict = (409, {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "already exists"})
    assert run("task/audit") == (0, "Task demo/audit would be admitted\n")
    ((method, _, body),) = server.asked
    assert method == "POST"
    assert body["metadata"]["annotations"] == {"note": "mine"}
    assert {"uid", "resourceVersion"}.isdisjoint(body["metadata"])
    assert "status" not in body


def test_a_task_that_is_not_launched_says_why(server: ApiServer) -> None:
    said = "axis egress: evil.example is beyond nothing, the limit of Graph demo/g; ask bob"
    stalled = {"type": "Stalled", "status": "True", "reason": "AuthorityExceeded", "message": said}
    server.stored = {**STORED, "status": {"conditions": [stalled]}}
    server.verdict = (409, {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "already exists"})
    code, text = run("task/audit")
    assert code == 1
    assert "is admitted, but not launched" in text
    assert "who can change it: bob" in text


def test_nobody_but_the_operator_could_make_its_own(server: ApiServer) -> None:
    server.stored = {**STORED, "spec": {**TASK["spec"], "nodeRef": {"name": "n"}}}  # type: ignore[dict-item]
    with pytest.raises(Exception, match="made by the operator"):
        CliRunner().invoke(app, ["why-denied", "task/audit"], catch_exceptions=False, standalone_mode=False)


def test_several_manifests_and_lists_are_asked_about_one_by_one(server: ApiServer) -> None:
    other = {**TASK, "metadata": {"name": "other"}}
    text = yaml.safe_dump_all([TASK, {"apiVersion": "v1", "kind": "List", "items": [other]}])
    assert run("-f", "-", stdin=text) == (
        0, "Task demo/audit would be admitted\nTask demo/other would be admitted\n",
    )  # fmt: skip
