"""The schemas, their owners, and the event log.

The roles themselves belong to the cluster and are made just before (``roles.ensure_roles``).
"""

from importlib.resources import files

from alembic import op

from triplane.adapters.postgres.migrations import as_owner
from triplane.adapters.postgres.roles import LOG_OWNER, STORES_OWNER

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    op.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    op.execute("GRANT SELECT ON public.schema_revision TO PUBLIC")
    for schema, owner, groups in (
        ("log", LOG_OWNER, "triplane_log_appender, triplane_log_reader"),
        ("graph", STORES_OWNER, "triplane_graph_writer, triplane_graph_reader"),
        ("sessions", STORES_OWNER, "triplane_sessions_writer, triplane_sessions_reader"),
    ):
        op.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {owner}")
        with as_owner(owner):
            op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {groups}")
    with as_owner(LOG_OWNER):
        script = files("triplane.adapters.postgres.migrations").joinpath("sql/0001_log.sql").read_text()
        # The driver's own cursor: the script has parameters' percent signs and several statements.
        connection = op.get_bind().connection.driver_connection
        assert connection is not None
        connection.execute(script)
