"""How often the interpreter's garbage collector looks, in a process that serves for long."""

import gc
from typing import Final

YOUNG: Final = 20_000
"""Objects made and not freed before the collector looks at them; the interpreter's default, 700, is a hundred entries.
What one look finds in vain, and how late it finds what it should, both stay in the milliseconds and megabytes."""


def settle() -> None:
    """Call it once everything that stays for good is made: that is not looked at again, and the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
