"""Who may do what in the database: group roles hold the rights, logins are members of them.

Roles belong to the whole Postgres cluster, so they are made before the migrations of one database, by an
administrator (the embedded server's superuser); with an external database that is the one step that needs
such rights.

================================  =========================================================================
group role (no login)             rights
================================  =========================================================================
``triplane_log_owner``            owns schema ``log``; nobody inherits it, the migrator may ``SET ROLE`` to it
``triplane_log_appender``         EXECUTE on the append functions, nothing else
``triplane_log_reader``           SELECT in ``log``
``triplane_stores_owner``         owns schemas ``graph`` and ``sessions``; as ``triplane_log_owner``; its functions
                                  make the temporary table of a traversal
``triplane_graph_writer``         reads and writes ``graph``
``triplane_graph_reader``         SELECT in ``graph``
``triplane_sessions_writer``      reads and writes ``sessions``
``triplane_sessions_reader``      SELECT in ``sessions``
================================  =========================================================================
"""

from collections.abc import Mapping
from typing import Literal, LiteralString

import psycopg
from psycopg import sql

from triplane.errors import Forbidden, InvalidInput

Login = Literal["operator", "gateway", "verifier", "migrator"]
LOGINS: tuple[Login, ...] = ("operator", "gateway", "verifier", "migrator")

LOG_OWNER = "triplane_log_owner"
STORES_OWNER = "triplane_stores_owner"
OWNERS = (LOG_OWNER, STORES_OWNER)
_SERVICE = (
    "triplane_log_appender",
    "triplane_log_reader",
    "triplane_graph_writer",
    "triplane_graph_reader",
    "triplane_sessions_writer",
    "triplane_sessions_reader",
)
GROUPS = (*OWNERS, *_SERVICE)
MEMBERSHIPS: Mapping[Login, tuple[str, ...]] = {
    "operator": _SERVICE,
    "gateway": tuple(group for group in _SERVICE if group != "triplane_graph_writer"),
    "verifier": ("triplane_log_reader", "triplane_graph_reader"),
    "migrator": OWNERS,
}
_LOCK_KEY = 0x7472_6970
"""Advisory lock: two administrators do not make the roles at once."""


def role_name(login: str) -> str:
    """``operator`` → ``triplane_operator``."""
    return f"triplane_{login}"


def ensure_roles(admin: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    """Make what is missing, set every login's password (SCRAM, hashed here so that no server log sees it) and
    its memberships. ``admin`` must be a superuser or have CREATEROLE. One transaction; repeating it changes
    nothing."""
    missing = [login for login in LOGINS if not passwords.get(login)]
    if missing:
        raise InvalidInput(f"no password given for the database logins {', '.join(missing)}")
    try:
        with admin.transaction():
            admin.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
            present = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
            for group in GROUPS:
                if group not in present:
                    _run(admin, "CREATE ROLE {} NOLOGIN", group)
            for login in LOGINS:
                _ensure_login(admin, login, passwords[login], present)
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(f"the database login cannot create roles ({error}): use an administrator's") from error


def _ensure_login(admin: psycopg.Connection, login: Login, password: str, present: set[str]) -> None:
    role = role_name(login)
    hashed = admin.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    verb = sql.SQL("ALTER ROLE {}" if role in present else "CREATE ROLE {}").format(sql.Identifier(role))
    options = sql.SQL(" LOGIN NOINHERIT" if login == "migrator" else " LOGIN INHERIT")
    admin.execute(verb + options + sql.SQL(" PASSWORD {}").format(sql.Literal(hashed)))
    inherit: LiteralString = "FALSE" if login == "migrator" else "TRUE"
    for group in MEMBERSHIPS[login]:
        # SET only for the migrator: it must choose to be the owner; the others never are anyone but
        # themselves.
        settable: LiteralString = "TRUE" if login == "migrator" else "FALSE"
        grant = sql.SQL("GRANT {} TO {} WITH INHERIT " + inherit + ", SET " + settable)
        admin.execute(grant.format(sql.Identifier(group), sql.Identifier(role)))


def ensure_database(admin: psycopg.Connection, name: str, template: str | None = None) -> bool:
    """Make the database, owned by the migrator and open to our logins only; True if it was missing.
    ``admin`` must be in autocommit mode."""
    found = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if not found:
        source = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template or "template0"))
        owner = sql.SQL(" OWNER {}").format(sql.Identifier(role_name("migrator")))
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + source + owner
        admin.execute(statement + sql.SQL(" ENCODING 'UTF8'"))
    _run(admin, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    for login in LOGINS:
        grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
        admin.execute(grant.format(sql.Identifier(name), sql.Identifier(role_name(login))))
    # A traversal of the graph keeps what it has reached in a temporary table, which its functions' owner makes.
    _run(admin, f"GRANT TEMPORARY ON DATABASE {{}} TO {STORES_OWNER}", name)
    return not found


def _run(admin: psycopg.Connection, statement: LiteralString, name: str) -> None:
    admin.execute(sql.SQL(statement).format(sql.Identifier(name)))
