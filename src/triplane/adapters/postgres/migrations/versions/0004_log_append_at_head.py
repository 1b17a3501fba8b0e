"""Append in one round trip: ``log_append`` is told where it expects the head."""

from importlib.resources import files

from alembic import op

from triplane.adapters.postgres.migrations import as_owner
from triplane.adapters.postgres.roles import LOG_OWNER

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = files("triplane.adapters.postgres.migrations").joinpath("sql/0004_log_append_at_head.sql").read_text()
    with as_owner(LOG_OWNER):
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(script)
