"""The graph at scale: indexed pages, traversal on the server, a rebuilt graph set aside."""

from importlib.resources import files

from alembic import op

from triplane.adapters.postgres.migrations import as_owner
from triplane.adapters.postgres.roles import STORES_OWNER

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # By the database's owner, the migrator: the temporary table of a traversal is made as the stores' owner.
    op.execute(
        f"DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {STORES_OWNER}', current_database()); END $$"
    )
    script = files("triplane.adapters.postgres.migrations").joinpath("sql/0011_graph_at_scale.sql").read_text()
    with as_owner(STORES_OWNER):
        # The driver's own cursor: the script has several statements.
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(script)
