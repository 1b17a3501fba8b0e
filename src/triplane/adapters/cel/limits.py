"""What expressions may cost; read by the workers and by those who speak of it."""

from typing import Final

CPU_SECONDS: Final = 0.5
"""CPU time of one compilation and evaluation of a condition, and of compiling one Policy."""
POLICY_SECONDS: Final = 0.25
"""CPU time of asking one Policy about one request."""
REQUEST_SECONDS: Final = 1.0
"""CPU time of all Policies about one request: no further one is begun beyond it."""
MEMORY: Final = 1 << 30
"""Octets of address space of the worker."""
MAX_NESTING: Final = 2
"""Comprehensions (``all``, ``exists``, ``exists_one``, ``filter``, ``map``) inside one another."""
MAX_VARIABLES: Final = 8 << 20
"""Octets of a condition's variables as JSON."""
MAX_OBJECTS: Final = 16 << 20
"""Octets of what Policies see of one request, as JSON."""
MAX_MESSAGE: Final = 1024
"""Characters of what one violation says."""
MAX_ANSWER: Final = 64 << 20
"""Octets of one answer of a worker."""
ANSWER_SECONDS: Final = 20.0
"""Longest wait for the worker, by the wall clock: over it the machine, not the expression, is to blame."""
BARRED_SECONDS: Final = 10.0
"""For how long a Policy that used up its time on an object is not asked about others of that object's namespace."""
