"""The schema's history. Revisions are numbered files in ``versions``; ``as_owner`` says who owns what they
make.

Every statement that creates something runs inside ``with as_owner(STORES_OWNER):`` (or ``LOG_OWNER``), so
that no login owns a table; then GRANT to the group roles of ``triplane.adapters.postgres.roles``. Functions
get
``REVOKE ALL … FROM PUBLIC`` first. Migrations are additive and run in one transaction.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op


@contextmanager
def as_owner(role: str) -> Iterator[None]:
    """Run the enclosed statements of a migration as an owner role."""
    op.execute(f"SET LOCAL ROLE {role}")
    yield
    op.execute("RESET ROLE")
