"""The memory of a process that serves for long: its garbage collector, and what goes back to the system."""

import ctypes
import gc
from typing import Final

YOUNG: Final = 20_000
"""Objects made and not freed before the collector looks at them; the interpreter's default, 700, is a hundred entries.
What one look finds in vain, and how late it finds what it should, both stay in the milliseconds and megabytes."""
LARGE: Final = 512 * 1024
"""Octets from which on a buffer has pages of its own, which go back when it is freed; asyncio reads fewer at once."""
SPARE: Final = 2 * 1024 * 1024
"""Octets that may stay free at the end of the heap."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def settle() -> None:
    """Call it once everything that stays for good is made: that is not looked at again, and the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
    _return_what_is_freed()


def _return_what_is_freed() -> None:
    """glibc (mallopt(3)) takes each large buffer that is freed for a sign that more will come, and keeps up to 64 MiB
    of the heap for them, unless it is told how much."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGE)
        mallopt(_TRIM_THRESHOLD, SPARE)
