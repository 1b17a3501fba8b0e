"""Partitions, appending by fields, archives."""

from importlib.resources import files

from alembic import op

from triplane.adapters.postgres.migrations import as_owner
from triplane.adapters.postgres.roles import LOG_OWNER

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = files("triplane.adapters.postgres.migrations").joinpath("sql/0010_log_storage.sql").read_text()
    with as_owner(LOG_OWNER):
        # The driver's own cursor: the script has parameters' percent signs and several statements.
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(script)
