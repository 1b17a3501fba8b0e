"""Running pytest, or a command, as an ordinary user when these tests run as root.

Interpreter, packages and repository may lie in folders only root may enter (/root, say). A private mount namespace
shows them at the same places, with the folders above them replaced by open, empty ones.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ORDINARY = 65534
_SCRIPT = """
set -eu
scratch=$1 user=$2; shift 2
number=0
for path in $NEEDED; do
  mkdir "$scratch/$number"; mount --bind "$path" "$scratch/$number"; number=$((number + 1))
done
for folder in $CLOSED; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
number=0
for path in $NEEDED; do
  mkdir -p "$path"; mount --bind "$scratch/$number" "$path"; number=$((number + 1))
done
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs -- "$@"
"""
# In a user namespace of its own a process may lower the limit for itself and all it starts (user_namespaces(7));
# afterwards it gives up what privileges it has there.
_WITHOUT_USER_NAMESPACES = (
    *("unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c"),
    "echo 0 > /proc/sys/user/max_user_namespaces || exit 99; "
    'exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- "$@"',
    "sh",
)


def pytest_as_ordinary_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with these arguments as user 65534 in the repository. Needs root and a mount namespace."""
    return run_as_ordinary_user(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", *arguments], seconds=240
    )


def run_as_ordinary_user(
    command: Sequence[str],
    *,
    shown: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
    user_namespaces: bool = True,
    seconds: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository as user 65534, or as ourselves where we are an ordinary user already.

    It sees interpreter, packages, repository and the folders ``shown``, and has a fresh HOME. Without
    ``user_namespaces`` the kernel refuses it new ones, as on machines where they are switched off.
    """
    repository = Path(__file__).parents[2].resolve()
    needed = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), repository, *(p.resolve() for p in shown)]
    needed = [path for path in needed if _closed_above(path)]
    closed = sorted({folder for path in needed if (folder := _closed_above(path))})
    if not user_namespaces:
        command = [*_WITHOUT_USER_NAMESPACES, *command]
    root = os.geteuid() == 0
    scratch = Path(tempfile.mkdtemp(prefix="tri-demoted-"))
    try:
        for name in ("mounts", "home"):
            (scratch / name).mkdir()
        if root:
            os.chown(scratch / "home", ORDINARY, ORDINARY)
            scratch.chmod(0o755)
            unshare = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh")
            command = [*unshare, str(scratch / "mounts"), str(ORDINARY), *command]
        return subprocess.run(
            command,
            cwd=repository,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(scratch / "home"),
                "TMPDIR": str(scratch / "home"),
                "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                "NEEDED": " ".join(map(str, needed)),
                "CLOSED": " ".join(map(str, closed)),
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _closed_above(path: Path) -> Path | None:
    """The topmost folder on the way that others may not enter."""
    for folder in reversed([path, *path.parents]):
        if folder != Path("/") and not folder.stat().st_mode & 0o001:
            return folder
    return None
