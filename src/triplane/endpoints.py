"""``run/endpoints.json``: where the processes of this installation listen. Names to ports or URLs, merged under a
lock, replaced atomically: readers see the old file or the new one."""

import fcntl
import os
from pathlib import Path

import orjson

FILE = "endpoints.json"
LOCK = ".endpoints.json.lock"


def announce(run: Path, name: str, address: str | int) -> None:
    """Set one name; the others stay."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        scratch = run / f".{FILE}.{os.getpid()}"
        scratch.write_bytes(
            orjson.dumps({**read(run), name: address}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        )
        scratch.chmod(0o600)
        scratch.replace(run / FILE)
    finally:
        os.close(descriptor)


def read(run: Path) -> dict[str, str | int]:
    """What has been announced; empty when nothing was."""
    try:
        found = orjson.loads((run / FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
