"""Where the processor's time goes: seconds spent by each process of an installation, from ``/proc``.

Processor time, unlike time on the clock, says little about what else the machine does meanwhile.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from triplane.localcluster.process import recorded

_TICKS = os.sysconf("SC_CLK_TCK")
Seconds = Mapping[str, float]


def spent(run: Path) -> dict[str, float]:
    """Processor seconds so far by process name, over everything the pidfiles in ``run`` name.

    Each counts with its living descendants and with those it has waited for, so harnesses count as the runner's.
    """
    parents = _parents()
    found = {}
    for pidfile in run.glob("*.pid"):
        if (identity := recorded(pidfile)) is not None and pidfile.stem != "supervisor":
            found[pidfile.stem] = sum(_seconds(pid) for pid in _tree(identity.pid, parents))
    return found


def of_children(pid: int) -> float:
    """Processor seconds of the ended children this process has waited for."""
    fields = _fields(pid)
    return 0.0 if fields is None else (int(fields[13]) + int(fields[14])) / _TICKS


def difference(before: Seconds, after: Seconds) -> dict[str, float]:
    """What was spent between two readings, the most first."""
    spent_ = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    return dict(sorted(spent_.items(), key=lambda item: -item[1]))


def rss_mib(pid: int) -> float:
    """Resident memory in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _seconds(pid: int) -> float:
    """User and system time, with that of children waited for (proc(5), fields 14 to 17 of ``stat``)."""
    fields = _fields(pid)
    return 0.0 if fields is None else sum(map(int, fields[11:15])) / _TICKS


def _fields(pid: int) -> list[str] | None:
    """The fields of ``stat`` from the third on; None when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _parents() -> dict[int, int]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _fields(int(name))) is not None:
            found[int(name)] = int(fields[1])
    return found


def _tree(root: int, parents: Mapping[int, int]) -> list[int]:
    tree, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        tree.append(pid)
        waiting += [child for child, parent in parents.items() if parent == pid]
    return tree
