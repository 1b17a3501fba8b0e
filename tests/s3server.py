"""A real S3-compatible server for the tests: the Versity S3 Gateway (Apache-2.0), built from its Go module.

It is no mock: signatures are checked, uploads in parts are assembled, conditions on tags hold, and the objects are
files that another process can see. It was preferred to moto and s3rver, which say of themselves that they imitate a
service: one `go install` of a named version gives it in a minute, and the Go checksum database vouches for the module.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triplane.adapters.s3.bucket import S3Place
from triplane.localcluster.build import find_go

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
BUCKET = "triplane"
_KEYS = ("triplane-test", "not-a-secret")
_BUILD_SECONDS = 900
_START_SECONDS = 30


@dataclass(frozen=True)
class S3Server:
    """A server that runs, and where it keeps the bucket's objects."""

    port: int
    root: Path
    process: "subprocess.Popen[bytes]"

    def place(self, prefix: str) -> S3Place:
        """A part of its bucket."""
        return S3Place(
            BUCKET,
            prefix=prefix,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key=_KEYS[0],
            secret_key=_KEYS[1],
            allow_http=True,
        )

    def settings(self, **more: Any) -> dict[str, Any]:
        """The settings of an installation whose blobs are in a part of the bucket that nobody else has."""
        place = self.place(uuid.uuid4().hex)
        return {
            "content": f"s3://{BUCKET}/{place.prefix}",
            "content_endpoint": place.endpoint,
            "content_access_key": place.access_key,
            "content_secret_key": place.secret_key,
            "content_http": True,
            **more,
        }


def ensure_server_program() -> Path:
    """The program, built once per version into the cache folder (about a minute)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triplane" / "tests" / f"s3-{VERSION}"
    program = cache / "versitygw"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            with ThreadPoolExecutor(1) as aside:  # this may be called where an event loop runs
                go = aside.submit(lambda: asyncio.run(find_go())).result()
            environment = {**os.environ, "GOBIN": scratch, "CGO_ENABLED": "0"}
            built = subprocess.run(
                [go, "install", MODULE],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_BUILD_SECONDS,
            )
            if built.returncode:
                raise AssertionError(
                    f"the S3 server of the tests could not be built ({MODULE}): {built.stderr[-2000:]}"
                )
            os.replace(Path(scratch) / "versitygw", program)
    return program


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server of one's own on a free port, with one empty bucket; gone afterwards."""
    program = ensure_server_program()
    home = Path(tempfile.mkdtemp(prefix="tri-s3-"))
    (home / "data" / BUCKET).mkdir(parents=True)
    (home / "meta").mkdir()
    port = _free_port()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--sidecar", home / "meta", home / "data"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": _KEYS[0], "ROOT_SECRET_KEY": _KEYS[1]},
        )
    try:
        _await_port(process, port, home / "log")
        yield S3Server(port, home / "data" / BUCKET, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the S3 server did not start: {log.read_text()[-2000:]}")
