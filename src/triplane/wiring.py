"""Where backends are chosen: each role's stores from the settings. Imports are lazy, a role loads only what it uses.

Opening raises ``Unavailable`` while Postgres cannot be reached or has another schema revision: try again.
"""

import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triplane import endpoints
from triplane.errors import InvalidInput, Unavailable
from triplane.ports import AccountStore, ContentStore, Contracts, EventLog, GraphStore, SessionStore, SigningKeys
from triplane.settings import Settings

Closer = Callable[[], Awaitable[None]]
_DOCUMENT_OCTETS = 16 * 1024 * 1024
"""No spec is larger: the API server takes no object over 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class GatewayBackends:
    """What the gateway works on."""

    log: EventLog
    content: ContentStore
    sessions: SessionStore
    accounts: AccountStore
    graph: GraphStore
    closers: tuple[Closer, ...] = field(default=(), repr=False)

    async def close(self) -> None:
        """Release everything that opening took; the last opened first."""
        await _close(self.closers)


@dataclass(frozen=True, slots=True)
class OperatorBackends:
    """What the operator works on; blobs go through the gateway."""

    log: EventLog
    content: ContentStore
    sessions: SessionStore
    graph: GraphStore
    contracts: Contracts
    keys: SigningKeys
    closers: tuple[Closer, ...] = field(default=(), repr=False)

    async def close(self) -> None:
        """As ``GatewayBackends.close``."""
        await _close(self.closers)


@dataclass(frozen=True, slots=True)
class VerifierBackends:
    """What an auditor may read."""

    log: EventLog
    graph: GraphStore
    closers: tuple[Closer, ...] = field(default=(), repr=False)

    async def close(self) -> None:
        """As ``GatewayBackends.close``."""
        await _close(self.closers)


@dataclass(frozen=True, slots=True)
class RebuildBackends:
    """What the graph is made anew from, and where it is kept."""

    log: EventLog
    graph: GraphStore
    load: Callable[[str], Awaitable[bytes]]
    """The octets of a document; raises ``BlobMissing`` or ``Corrupt``, and changes nothing."""
    closers: tuple[Closer, ...] = field(default=(), repr=False)

    async def close(self) -> None:
        """As ``GatewayBackends.close``."""
        await _close(self.closers)


async def open_gateway(settings: Settings) -> GatewayBackends:
    """The gateway's stores; earlier gateways are fenced from the log. Damaged blobs are logged as they are found."""
    from triplane.adapters.filesystem.contentstore import FilesystemContentStore  # noqa: PLC0415
    from triplane.adapters.postgres.accountstore import PostgresAccountStore  # noqa: PLC0415
    from triplane.adapters.postgres.graphstore import PostgresGraphStore  # noqa: PLC0415
    from triplane.adapters.postgres.sessionstore import PostgresSessionStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "gateway")
        await log.begin_epoch()
        sessions = PostgresSessionStore(pool)
        stack.push_async_callback(sessions.close)
        closers = (stack.pop_all().aclose,)
        return GatewayBackends(
            log=log,
            content=FilesystemContentStore(settings.cas, on_quarantine=quarantine_recorder(log)),
            sessions=sessions,
            accounts=PostgresAccountStore(pool, _install_secret(settings.secrets)),
            graph=PostgresGraphStore(pool),
            closers=closers,
        )


async def open_operator(settings: Settings) -> OperatorBackends:
    """The operator's stores. The caller begins its epoch (``log.begin_epoch``) when it starts to work."""
    from triplane.adapters.filesystem.signingkeys import SigningKeyFolder  # noqa: PLC0415
    from triplane.adapters.http.contentstore import GatewayContent  # noqa: PLC0415
    from triplane.adapters.http.contracts import GatewayContracts  # noqa: PLC0415
    from triplane.adapters.postgres.graphstore import PostgresGraphStore  # noqa: PLC0415
    from triplane.adapters.postgres.sessionstore import PostgresSessionStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "operator")
        sessions = PostgresSessionStore(pool)
        stack.push_async_callback(sessions.close)
        content = GatewayContent(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(content.close)
        contracts = GatewayContracts(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(contracts.close)
        closers = (stack.pop_all().aclose,)
        return OperatorBackends(
            log=log,
            content=content,
            sessions=sessions,
            graph=PostgresGraphStore(pool),
            contracts=contracts,
            keys=SigningKeyFolder(settings.secrets),
            closers=closers,
        )


async def open_verifier(settings: Settings) -> VerifierBackends:
    """The auditor's view: reads log and graph, writes nothing."""
    from triplane.adapters.postgres.graphstore import PostgresGraphStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "verifier")
        closers = (stack.pop_all().aclose,)
        return VerifierBackends(log=log, graph=PostgresGraphStore(pool), closers=closers)


async def open_rebuild(settings: Settings, *, write: bool) -> RebuildBackends:
    """For ``triplane graph rebuild``: the verifier's account, or the operator's to ``write``; no writer is fenced.
    Documents are read in the content store's folder, or through the gateway where that is on another machine."""
    from triplane.adapters.filesystem.reader import BlobReader  # noqa: PLC0415
    from triplane.adapters.http.contentstore import GatewayContent  # noqa: PLC0415
    from triplane.adapters.postgres.graphstore import PostgresGraphStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "operator" if write else "verifier")
        remote = GatewayContent(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(remote.close)
        reader = BlobReader(settings.cas) if settings.cas.is_dir() else None

        async def load(digest: str) -> bytes:
            if reader is not None:
                return await reader.read(digest, limit=_DOCUMENT_OCTETS)
            return b"".join([chunk async for chunk in remote.resolve(digest)])

        closers = (stack.pop_all().aclose,)
        return RebuildBackends(log=log, graph=PostgresGraphStore(pool), load=load, closers=closers)


def gateway_url(settings: Settings) -> str:
    """Where the gateway is now: the setting, else ``run/endpoints.json``. Raises ``Unavailable``."""
    if settings.gateway_url is not None:
        return settings.gateway_url.rstrip("/")
    found = endpoints.read(settings.run).get("gateway")
    if not isinstance(found, str):
        raise Unavailable(f"the gateway's address is not in {settings.run / endpoints.FILE}; run `triplane up`")
    return found


def service_token(settings: Settings, name: str) -> str:
    """The service token ``secrets/token_<name>``, or the setting. Raises ``Unavailable``."""
    if settings.token is not None:
        return settings.token.get_secret_value()
    path = settings.secrets / f"token_{name}"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Unavailable(f"no service token: {path} cannot be read; run `triplane up`") from error


def quarantine_recorder(log: EventLog) -> Callable[[str, str], Awaitable[None]]:
    """What a content store calls when it has moved a damaged blob aside: appends ``blob.quarantined``."""

    async def record(digest: str, place: str) -> None:
        from triplane.audit.model import EventFilter  # noqa: PLC0415
        from triplane.domain.events import blob_quarantined, blob_uid  # noqa: PLC0415

        del place  # a path of this machine is not for the log
        where = EventFilter(types=frozenset({"blob.quarantined"}), uid=blob_uid(digest))
        earlier = await log.query(where, limit=10_000)
        await log.append([blob_quarantined(digest, 1 + len(earlier))])

    return record


async def _log_and_pool(stack: AsyncExitStack, settings: Settings, login: Any) -> tuple[EventLog, Any]:
    from triplane.adapters.postgres.connection import dsn, make_pool, open_pool  # noqa: PLC0415
    from triplane.adapters.postgres.eventlog import PostgresEventLog  # noqa: PLC0415

    conninfo = dsn(settings, login)
    log = PostgresEventLog(conninfo, writer=login)
    stack.push_async_callback(log.close)
    await log.open()
    pool = make_pool(conninfo, name=f"triplane {login}")
    stack.push_async_callback(pool.close)
    await open_pool(pool)
    return log, pool


def _install_secret(folder: Path) -> bytes:
    """Keys the hash of usernames (``secrets/install_secret``); made once, the same for the life of the installation."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "install_secret"
    if not path.exists():
        scratch = folder / f".install_secret.{secrets.token_hex(4)}"
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(scratch)  # unlike rename it never replaces one that was made meanwhile
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    secret = bytes.fromhex(path.read_text().strip())
    if len(secret) < 32:
        raise InvalidInput(f"{path} is damaged: it must hold 64 hexadecimal digits; restore it from a backup")
    return secret


async def _close(closers: tuple[Closer, ...]) -> None:
    for close in reversed(closers):
        await close()
