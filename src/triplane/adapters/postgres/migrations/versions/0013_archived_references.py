"""What archived entries name."""

from importlib.resources import files

from alembic import op

from triplane.adapters.postgres.migrations import as_owner
from triplane.adapters.postgres.roles import LOG_OWNER

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    script = files("triplane.adapters.postgres.migrations").joinpath("sql/0013_archived_references.sql").read_text()
    with as_owner(LOG_OWNER):
        # The driver's own cursor: the script has several statements.
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(script)
