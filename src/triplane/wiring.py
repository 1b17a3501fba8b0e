"""Where backends are chosen: each role's stores from the settings. Imports are lazy, a role loads only what it uses.

Opening raises ``Unavailable`` while Postgres cannot be reached or has another schema revision: try again.
"""

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from triplane import endpoints
from triplane.errors import InvalidInput, Unavailable
from triplane.ports import (
    AccountStore,
    Anchor,
    CheckpointStore,
    ConfigMaps,
    ContentStore,
    Contracts,
    EventLog,
    GraphStore,
    KeptContent,
    Ledger,
    NotaryKeys,
    SessionStore,
    SigningKeys,
    Witness,
)
from triplane.ports.archive import Archivist
from triplane.settings import Settings

if TYPE_CHECKING:
    from triplane.audit.checkpoint import CheckpointTrust

Closer = Callable[[], Awaitable[None]]
OnQuarantine = Callable[[str, str], Awaitable[None]]
"""What a content store calls with the digest and the place that damaged content was moved to."""
_CHECKPOINT_MAP = "triplane-system/triplane-checkpoint"
_DOCUMENT_OCTETS = 16 * 1024 * 1024
"""No spec is larger: the API server takes no object over 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class GatewayBackends:
    """What the gateway works on."""

    log: EventLog
    checkpoints: CheckpointStore
    content: KeptContent
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
    checkpoints: CheckpointStore
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
    checkpoints: CheckpointStore
    graph: GraphStore
    closers: tuple[Closer, ...] = field(default=(), repr=False)

    async def close(self) -> None:
        """As ``GatewayBackends.close``."""
        await _close(self.closers)


@dataclass(frozen=True, slots=True)
class Outside:
    """What is kept of the log where whoever owns its database does not reach."""

    ledger: Ledger
    keys: NotaryKeys
    anchors: tuple[Anchor, ...]
    witnesses: tuple[Witness, ...]

    async def close(self) -> None:
        """Close the connections."""
        for anchor in self.anchors:
            await anchor.close()
        for witness in self.witnesses:
            await witness.close()


@dataclass(frozen=True, slots=True)
class ArchiveBackends:
    """What archives the log."""

    log: EventLog
    checkpoints: CheckpointStore
    archivist: Archivist


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


async def open_gateway(settings: Settings, *, quarantined: Callable[[], None] | None = None) -> GatewayBackends:
    """The gateway's stores; earlier gateways are fenced from the log. Damaged blobs are logged as they are found, and
    ``quarantined`` is called."""
    from triplane.adapters.postgres.accountstore import PostgresAccountStore  # noqa: PLC0415
    from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore  # noqa: PLC0415
    from triplane.adapters.postgres.sessionstore import PostgresSessionStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "gateway")
        recorder = quarantine_recorder(log, quarantined)
        content = await stack.enter_async_context(open_content(settings, on_quarantine=recorder))
        await log.begin_epoch()
        sessions = PostgresSessionStore(pool)
        stack.push_async_callback(sessions.close)
        graph = await _graph(stack, settings, pool, "gateway")
        closers = (stack.pop_all().aclose,)
        return GatewayBackends(
            log=log,
            checkpoints=PostgresCheckpointStore(pool, log.origin),
            content=content,
            sessions=sessions,
            accounts=PostgresAccountStore(pool, _install_secret(settings.secrets)),
            graph=graph,
            closers=closers,
        )


async def open_operator(settings: Settings) -> OperatorBackends:
    """The operator's stores. The caller begins its epoch (``log.begin_epoch``) when it starts to work."""
    from triplane.adapters.filesystem.signingkeys import SigningKeyFolder  # noqa: PLC0415
    from triplane.adapters.http.contentstore import GatewayContent  # noqa: PLC0415
    from triplane.adapters.http.contracts import GatewayContracts  # noqa: PLC0415
    from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore  # noqa: PLC0415
    from triplane.adapters.postgres.sessionstore import PostgresSessionStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "operator")
        sessions = PostgresSessionStore(pool)
        stack.push_async_callback(sessions.close)
        content = GatewayContent(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(content.close)
        contracts = GatewayContracts(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(contracts.close)
        graph = await _graph(stack, settings, pool, "operator")
        closers = (stack.pop_all().aclose,)
        return OperatorBackends(
            log=log,
            checkpoints=PostgresCheckpointStore(pool, log.origin),
            content=content,
            sessions=sessions,
            graph=graph,
            contracts=contracts,
            keys=SigningKeyFolder(settings.secrets),
            closers=closers,
        )


async def open_verifier(settings: Settings) -> VerifierBackends:
    """The auditor's view: reads log and graph, writes nothing."""
    from triplane.adapters.postgres.checkpointstore import PostgresCheckpointStore  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        log, pool = await _log_and_pool(stack, settings, "verifier")
        graph = await _graph(stack, settings, pool, "verifier")
        closers = (stack.pop_all().aclose,)
        return VerifierBackends(
            log=log,
            checkpoints=PostgresCheckpointStore(pool, log.origin),
            graph=graph,
            closers=closers,
        )


@asynccontextmanager
async def open_archive(settings: Settings) -> AsyncIterator[ArchiveBackends]:
    """For ``triplane log archive``: reads as the verifier, takes entries out as the migrator."""
    from triplane.adapters.postgres.archivist import PostgresArchivist  # noqa: PLC0415
    from triplane.adapters.postgres.connection import dsn  # noqa: PLC0415

    read = await open_verifier(settings)
    try:
        async with PostgresArchivist(dsn(settings, "migrator"), read.log.origin) as archivist:
            yield ArchiveBackends(read.log, read.checkpoints, archivist)
    finally:
        await read.close()


async def open_rebuild(settings: Settings, *, write: bool) -> RebuildBackends:
    """For ``triplane graph rebuild``: the verifier's account, or the operator's to ``write``; no writer is fenced.
    Documents are read in the content store's folder, or through the gateway where that is on another machine."""
    from triplane.adapters.filesystem.reader import BlobReader  # noqa: PLC0415
    from triplane.adapters.http.contentstore import GatewayContent  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        login = "operator" if write else "verifier"
        log, pool = await _log_and_pool(stack, settings, login)
        remote = GatewayContent(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
        stack.push_async_callback(remote.close)
        folder = content_folder(settings)
        reader = BlobReader(folder) if folder is not None and folder.is_dir() else None

        async def load(digest: str) -> bytes:
            if reader is not None:
                return await reader.read(digest, limit=_DOCUMENT_OCTETS)
            return b"".join([chunk async for chunk in remote.resolve(digest)])

        graph = await _graph(stack, settings, pool, login)
        closers = (stack.pop_all().aclose,)
        return RebuildBackends(log=log, graph=graph, load=load, closers=closers)


def open_content(
    settings: Settings, *, on_quarantine: OnQuarantine | None = None
) -> AbstractAsyncContextManager[KeptContent]:
    """The content store of the settings, for whoever owns it: the gateway, and a restore before a gateway runs.

    Entering raises ``InvalidInput`` for settings that cannot work and for a bucket that is not strongly consistent,
    ``Unavailable`` when folder or bucket cannot be used now.
    """
    from triplane.backends import ContentPlace, content_store  # noqa: PLC0415

    url = settings.content if settings.content is not None else f"file:{quote(str(settings.cas.absolute()))}"
    return content_store(ContentPlace(url, settings, on_quarantine))


def content_folder(settings: Settings) -> Path | None:
    """The folder that blobs are kept in; None when they are elsewhere."""
    if settings.content is None:
        return settings.cas
    parts = urlsplit(settings.content)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def open_outside(settings: Settings, config_maps: ConfigMaps | None) -> Outside:
    """Where checkpoints are kept and cosigned outside the database. Raises ``InvalidInput`` for settings that name no
    such place. ``config_maps``: the API server; without one no ConfigMap can be an anchor."""
    from triplane.adapters.anchors.places import open_anchors  # noqa: PLC0415
    from triplane.adapters.filesystem.ledger import FolderLedger  # noqa: PLC0415
    from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder  # noqa: PLC0415
    from triplane.adapters.http.witness import open_witnesses  # noqa: PLC0415

    named = settings.anchors
    if named is None:
        named = f"file:{quote(str(settings.home.absolute()))}/anchor/checkpoint configmap:{_CHECKPOINT_MAP}"
    return Outside(
        ledger=FolderLedger(settings.notary),
        keys=NotaryKeyFolder(settings.secrets),
        anchors=tuple(open_anchors(named, config_maps, settings.secrets)),
        witnesses=tuple(open_witnesses(settings.witnesses)),
    )


def check_outside(settings: Settings) -> None:
    """Raise ``InvalidInput`` for anchors and witnesses that cannot be any, before something is started that would."""
    from triplane.adapters.anchors.places import named  # noqa: PLC0415
    from triplane.adapters.http.witness import open_witnesses  # noqa: PLC0415

    named(settings.anchors or "")
    open_witnesses(settings.witnesses)


def own_trust(settings: Settings, origin: str) -> "CheckpointTrust | None":
    """Trust in this installation's own notary keys, for whoever may read its secrets; None where there are none. Good
    enough to find a change in the database; an outsider pins the key that was told on another way."""
    from triplane.adapters.filesystem.notarykeys import FOLDER, NotaryKeyFolder  # noqa: PLC0415
    from triplane.audit.dsse import load_public_key  # noqa: PLC0415
    from triplane.domain.continuity import Known  # noqa: PLC0415

    folder = settings.secrets / FOLDER
    if not os.access(folder, os.R_OK | os.X_OK) or not any(folder.iterdir()):
        return None
    keys = NotaryKeyFolder(settings.secrets)
    public = [*(signer.public_key for signer in keys.signers()), *keys.retired()]
    return Known(origin, tuple(load_public_key(key).public_bytes_raw() for key in public)).trust()


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


def quarantine_recorder(log: EventLog, told: Callable[[], None] | None = None) -> OnQuarantine:
    """What a content store calls when it has moved a damaged blob aside: appends ``blob.quarantined``."""

    async def record(digest: str, place: str) -> None:
        from triplane.audit.model import EventFilter  # noqa: PLC0415
        from triplane.domain.events import blob_quarantined, blob_uid  # noqa: PLC0415

        del place  # a path of this machine is not for the log
        if told is not None:
            told()
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


async def _graph(stack: AsyncExitStack, settings: Settings, pool: Any, login: str) -> GraphStore:
    from triplane.backends import GraphPlace, graph_store  # noqa: PLC0415

    return await stack.enter_async_context(graph_store(GraphPlace(settings.graph, login, settings, pool)))


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
