"""Running pytest again as an ordinary user, when these tests run as root.

Interpreter, packages and repository may lie in folders only root may enter (/root, say). A private mount namespace
shows them at the same places, with the folders above them replaced by open, empty ones.
"""

import os
import shutil
import subprocess
import sys
import tempfile
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


def pytest_as_ordinary_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with these arguments as user 65534 in the repository. Needs root and a mount namespace."""
    repository = Path(__file__).parents[2]
    needed = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), repository.resolve()]
    needed = [path for path in needed if _closed_above(path)]
    closed = sorted({_closed_above(path) for path in needed} - {None})
    scratch = Path(tempfile.mkdtemp(prefix="tri-demoted-"))
    try:
        for name in ("mounts", "home"):
            (scratch / name).mkdir()
        os.chown(scratch / "home", ORDINARY, ORDINARY)
        scratch.chmod(0o755)
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh"),
                *(str(scratch / "mounts"), str(ORDINARY)),
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rs", *arguments),
            ],
            cwd=repository,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": str(scratch / "home"),
                "TMPDIR": str(scratch / "home"),
                "LANG": "C.UTF-8",
                "PYTHONDONTWRITEBYTECODE": "1",
                "NEEDED": " ".join(map(str, needed)),
                "CLOSED": " ".join(map(str, closed)),
            },
            capture_output=True,
            text=True,
            timeout=240,
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
