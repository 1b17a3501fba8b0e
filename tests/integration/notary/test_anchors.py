"""Each kind of anchor against the real thing: files, git repositories, an HTTP server. ConfigMaps: tests/e2e."""

import asyncio
import contextlib
import os
import re
import subprocess
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.integration.notary.test_witnesses import serving

from triplane.adapters.anchors.authorization import FILE, authorization
from triplane.adapters.anchors.configmap import ConfigMapAnchor
from triplane.adapters.anchors.file import FileAnchor
from triplane.adapters.anchors.git import GitAnchor
from triplane.adapters.anchors.places import named, open_anchors
from triplane.adapters.anchors.url import UrlAnchor
from triplane.errors import Forbidden, InvalidInput, TriplaneError, Unavailable
from triplane.ports import Anchor

ONE = b"log.example/1\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\xe2\x80\x94 log.example/1 AAAAAAAA\n"
TWO = ONE.replace(b"\n1\n", b"\n2\n")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(path)], check=True)
    return path


class Shelf:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.held: bytes | None = None
        self.status = 200
        self.methods: list[str] = []
        self.authorized: str | None = None
        """What the Authorization header must be, when it is asked for."""

    async def answer(self, request: Request) -> Response:
        self.methods.append(request.method)
        if self.authorized is not None and request.headers.get("Authorization") != self.authorized:
            return Response("who are you?", 401)
        if self.status != 200:
            return Response("because", self.status, {"Location": "https://elsewhere.example/"})
        if request.method == "GET":
            return Response(status_code=404) if self.held is None else Response(self.held)
        self.held = await request.body()
        return Response(status_code=201)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = Starlette(routes=[Route("/kept", self.answer, methods=["GET", "PUT", "POST"])])
        async with serving(app) as url:
            yield f"{url}/kept"


@pytest.fixture(params=["file", "git", "url"])
async def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Anchor]:
    if request.param == "file":
        yield FileAnchor(tmp_path / "not" / "yet" / "checkpoint")
    elif request.param == "git":
        yield GitAnchor(repository(tmp_path / "kept.git"), branch="log/one")
    else:
        async with Shelf().serve() as url:
            made = UrlAnchor(url)
            yield made
            await made.close()


async def test_an_anchor_holds_what_was_written_last(anchor: Anchor) -> None:
    assert await anchor.read() is None
    for note in (ONE, TWO, TWO):
        await anchor.write(note)
        assert await anchor.read() == note


async def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "checkpoint")
    await anchor.write(ONE)
    await anchor.write(TWO)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


async def test_a_file_that_cannot_be_read_is_not_absent(tmp_path: Path) -> None:
    anchor = FileAnchor(tmp_path / "checkpoint")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        await anchor.read()
    with pytest.raises(Unavailable, match="cannot be written"):
        await anchor.write(ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


async def test_a_file_system_that_hangs_holds_one_thread_of_its_own_and_no_other_work(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    os.mkfifo(path)  # opening it for reading waits for a writer, as a dead NFS server's file waits for the server
    anchor = FileAnchor(path)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await anchor.read()
    threads = threading.active_count()
    for _ in range(20):
        with pytest.raises(Unavailable, match="has not answered the last call"):
            await anchor.read()
        with pytest.raises(Unavailable, match="has not answered the last call"):
            await anchor.write(TWO)
    assert threading.active_count() == threads
    async with asyncio.timeout(60):
        await asyncio.to_thread(path.write_bytes, ONE)
        while True:
            with contextlib.suppress(Unavailable):
                await anchor.write(TWO)
                break
            await asyncio.sleep(0.01)
    assert await anchor.read() == TWO


async def test_every_checkpoint_is_a_commit_that_leaves_other_files_alone(tmp_path: Path) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "init", "--quiet", "-b", "main", str(work)], check=True)
    (work / "README").write_text("kept\n")
    git(work, "add", "README")
    git(work, "-c", "user.name=a", "-c", "user.email=a@example", "commit", "--quiet", "-m", "first")
    anchor = GitAnchor(work)
    for note in (ONE, TWO, TWO):
        await anchor.write(note)
    assert git(work, "log", "--format=%s|%an <%ae>", "-2").splitlines() == [
        "Checkpoint of 2 entries of log.example/1|Triplane notary <notary@triplane.invalid>",
        "Checkpoint of 1 entries of log.example/1|Triplane notary <notary@triplane.invalid>",
    ]
    assert git(work, "rev-list", "--count", "main") == "3"
    assert git(work, "ls-tree", "--name-only", "main").split() == ["README", "checkpoint"]


async def test_no_hook_of_the_repository_runs(tmp_path: Path) -> None:
    bare = repository(tmp_path / "kept.git")
    for hook in ("reference-transaction", "post-commit", "pre-push", "post-update"):
        script = bare / "hooks" / hook
        script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\n")
        script.chmod(0o755)
    subprocess.run(["git", "-C", str(bare), "update-ref", "refs/heads/x", ""], check=False, capture_output=True)
    elsewhere = repository(tmp_path / "elsewhere.git")
    git(bare, "remote", "add", "origin", str(elsewhere))
    await GitAnchor(bare, push="origin").write(ONE)
    assert list(tmp_path.glob("ran-*")) == []
    assert git(elsewhere, "cat-file", "blob", "main:checkpoint").encode() + b"\n" == ONE


async def test_a_remote_that_went_its_own_way_is_not_overwritten(tmp_path: Path) -> None:
    bare, elsewhere = repository(tmp_path / "kept.git"), repository(tmp_path / "elsewhere.git")
    git(bare, "remote", "add", "origin", str(elsewhere))
    await GitAnchor(elsewhere).write(ONE)
    with pytest.raises(Unavailable, match="git push"):
        await GitAnchor(bare, push="origin").write(TWO)
    assert await GitAnchor(elsewhere).read() == ONE


async def test_where_there_is_no_repository_the_anchor_is_out_of_reach(tmp_path: Path) -> None:
    anchor = GitAnchor(tmp_path)
    for call in (anchor.read(), anchor.write(ONE)):
        with pytest.raises(Unavailable, match="git for-each-ref"):
            await call


@pytest.mark.parametrize(
    ("status", "kind"), [(401, Forbidden), (403, Forbidden), (500, Unavailable), (302, Unavailable)]
)
async def test_a_server_that_refuses_is_not_an_absent_checkpoint(status: int, kind: type[TriplaneError]) -> None:
    shelf = Shelf()
    shelf.status = status
    async with shelf.serve() as url:
        anchor = UrlAnchor(url)
        with pytest.raises(Unavailable, match=f"answers {status} to GET"):
            await anchor.read()
        with pytest.raises(kind, match=f"answers {status} to PUT"):
            await anchor.write(ONE)
        await anchor.close()


async def test_a_service_that_only_takes_is_posted_to_and_never_read() -> None:
    shelf = Shelf()
    async with shelf.serve() as url:
        anchor = UrlAnchor(f"post+{url}")
        await anchor.write(ONE)
        await anchor.close()
    assert (anchor.readable, shelf.held, shelf.methods) == (False, ONE, ["POST"])


async def test_a_server_that_asks_who_writes_is_told_and_a_new_credential_needs_no_restart(tmp_path: Path) -> None:
    shelf, credentials = Shelf(), tmp_path / FILE
    async with shelf.serve() as url:
        shelf.authorized = "Bearer one-two"
        anchor = UrlAnchor(url, credentials)
        with pytest.raises(Unavailable, match="answers 401 to GET"):
            await anchor.read()
        credentials.write_text(f"# ours\n{url}/deeper Bearer other\n\n{url}   Bearer one-two \n")
        await anchor.write(ONE)
        assert await anchor.read() == ONE
        shelf.authorized = "Basic b25lOnR3bw=="
        with pytest.raises(Forbidden, match="answers 401 to PUT"):
            await anchor.write(TWO)
        credentials.write_text(f"{url} Basic b25lOnR3bw==\n")
        await anchor.write(TWO)
        assert await anchor.read() == TWO
        await anchor.close()


async def test_a_credential_goes_to_no_other_url(tmp_path: Path) -> None:
    shelf, credentials = Shelf(), tmp_path / FILE
    shelf.authorized = "Bearer one-two"
    async with shelf.serve() as url:
        credentials.write_text(f"{url.removesuffix('/kept')}/other Bearer one-two\npost+{url} Bearer one-two\n")
        anchor = UrlAnchor(url, credentials)
        with pytest.raises(Forbidden, match="answers 401 to PUT"):
            await anchor.write(ONE)
        await anchor.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("https://h.example/p", "line 1: write the anchor's URI, a space", id="no value"),
        pytest.param("\nhttps://h.example/p token-alone", "line 2: write the anchor's URI", id="no scheme"),
        pytest.param("https://h.example/p Bearer a\x7fb", "line 1: write", id="a control character"),
        pytest.param("https://h.example/p Bearer ä", "line 1: write", id="beyond ASCII"),
        pytest.param("https://h.example/p Bearer secret\n" * 2, "2 lines for https://h.example/p", id="two lines"),
    ],
)
def test_a_line_that_is_none_is_named_and_no_credential_is(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(said)) as refused:
        authorization(tmp_path / FILE, "https://h.example/p")
    assert not {"token-alone", "secret", "ä"} & set(str(refused.value).split())


def test_credentials_that_cannot_be_read_are_not_absent(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        authorization(tmp_path / FILE, "https://h.example/p")


async def test_a_server_that_is_not_there_is_out_of_reach() -> None:
    anchor = UrlAnchor("http://127.0.0.1:9/")
    with pytest.raises(Unavailable, match="does not answer"):
        await anchor.read()
    with pytest.raises(Unavailable, match="does not answer"):
        await anchor.write(ONE)
    await anchor.close()


async def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    shelf = Shelf()
    shelf.held = bytes(2 * 1024 * 1024)
    async with shelf.serve() as url:
        anchor = UrlAnchor(url)
        with pytest.raises(InvalidInput, match="no checkpoint"):
            await anchor.read()
        await anchor.close()


class Maps:
    """ConfigMaps in memory."""

    def __init__(self) -> None:
        self.data: dict[str, object] | None = None

    async def read_config_map(self, namespace: str, name: str) -> dict[str, object] | None:
        return self.data

    async def write_config_map(self, namespace: str, name: str, data: dict[str, str]) -> None:
        self.data = dict(data)


async def test_a_config_map_without_the_key_is_an_absent_anchor() -> None:
    maps = Maps()
    anchor = ConfigMapAnchor(maps, "triplane-system", "triplane-checkpoint")  # type: ignore[arg-type]
    for data in (None, {}, {"checkpoint": ""}):
        maps.data = data  # type: ignore[assignment]
        assert await anchor.read() is None
    await anchor.write(ONE)
    assert await anchor.read() == ONE
    assert anchor.every_seconds >= 60


def test_the_setting_names_anchors_of_every_kind(tmp_path: Path) -> None:
    text = f"file:{tmp_path}/a%20b git:{tmp_path}/r?branch=a/b&push=origin https://h.example/p post+https://h.example/q"
    file, repo, url, post = open_anchors(text, None, tmp_path)
    assert [item.kind for item in (file, repo, url, post)] == ["file", "git", "url", "url"]
    assert named(f"file:{tmp_path}/a%20b")[0].path == tmp_path / "a b"
    assert (url.readable, post.readable) == (True, False)
    (item,) = named("configmap:ns/a.b")
    assert (item.namespace, item.name) == ("ns", "a.b")
    assert named("") == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param("checkpoint", "it has no scheme", id="a bare word"),
        pytest.param("ftp://h.example/p", "'ftp' is no kind of anchor", id="an unknown kind"),
        pytest.param("file:relative/path", "write the path from the root", id="a relative path"),
        pytest.param("file://host/path", "write the path from the root", id="a file on another host"),
        pytest.param("file:/a/../b", r"no \.\.", id="a path with .."),
        pytest.param("configmap:only-a-name", "configmap:<namespace>/<name>", id="a ConfigMap without a namespace"),
        pytest.param("configmap:Ns/Name", "as Kubernetes spells them", id="a ConfigMap in capitals"),
        pytest.param("git:/r?branch=-x", "is no branch", id="a branch that is an option"),
        pytest.param("git:/r?push=--exec=x", "is no push", id="a remote that is an option"),
        pytest.param("git:/r?force=1", "branch=… and push=…", id="an unknown option"),
        pytest.param("http://h.example/p", "must be https://", id="http over a network"),
        pytest.param("https://me:secret@h.example/p", "no user", id="a password in the URL"),
        pytest.param("https://h.example:port/p", "is no URL", id="a port that is none"),
        pytest.param("https:///p", "names no host", id="a URL without a host"),
        pytest.param("file:/a file:/a", "twice", id="one twice"),
    ],
)
def test_what_is_no_anchor_is_refused_with_the_reason(setting: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        named(setting)


def test_a_password_is_not_repeated_in_the_refusal() -> None:
    with pytest.raises(InvalidInput) as refused:
        named("https://me:secret@h.example/p")
    assert "secret" not in str(refused.value)


async def test_two_writers_of_one_branch_do_not_lose_a_commit(tmp_path: Path) -> None:
    bare = repository(tmp_path / "kept.git")
    results = await asyncio.gather(GitAnchor(bare).write(ONE), GitAnchor(bare).write(TWO), return_exceptions=True)
    done = [result for result in results if result is None]
    assert all(result is None or isinstance(result, Unavailable) for result in results)
    assert git(bare, "rev-list", "--count", "main") == str(len(done))
