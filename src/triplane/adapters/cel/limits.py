"""What one condition may cost; read by the worker and by those who speak of it."""

from typing import Final

CPU_SECONDS: Final = 0.5
"""CPU time of one compilation and evaluation."""
MEMORY: Final = 1 << 30
"""Octets of address space of the worker."""
MAX_NESTING: Final = 2
"""Comprehensions (``all``, ``exists``, ``exists_one``, ``filter``, ``map``) inside one another."""
MAX_VARIABLES: Final = 8 << 20
"""Octets of the variables as JSON."""
ANSWER_SECONDS: Final = 20.0
"""Longest wait for the worker, by the wall clock: over it the machine, not the expression, is to blame."""
