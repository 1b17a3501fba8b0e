"""What `triplane backup` and `triplane restore` work on, from the settings: see ``wiring``."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from triplane.errors import InvalidInput
from triplane.ports import KeptContent
from triplane.ports.backup import DatabaseSnapshot, EmptyDatabase, NotEmpty
from triplane.settings import Settings
from triplane.wiring import open_content, quarantine_recorder

if TYPE_CHECKING:
    from triplane.audit.note import Verified
    from triplane.controllers.restore import CheckSignature
    from triplane.domain.backup import Seen

SECRETS: Final = ("install_secret", "signing", "notary")
"""Below the folder of secrets: what cannot be made anew without a loss. Passwords and tokens are made by `up`."""
_WRITER = "backup"


@dataclass(frozen=True, slots=True)
class BackupSources:
    """What a backup is taken of."""

    snapshot: DatabaseSnapshot
    content: KeptContent


@dataclass(frozen=True, slots=True)
class RestoreTargets:
    """What a backup is given back to."""

    database: EmptyDatabase
    content: KeptContent


@asynccontextmanager
async def open_sources(settings: Settings) -> AsyncIterator[BackupSources]:
    """The database at this instant, by the migrator's account, and the content store. A blob that is found damaged is
    moved aside and logged, as the gateway would. Raises ``Unavailable``, ``InvalidInput``."""
    from triplane.adapters.postgres.connection import dsn  # noqa: PLC0415
    from triplane.adapters.postgres.eventlog import PostgresEventLog  # noqa: PLC0415
    from triplane.adapters.postgres.snapshot import opened  # noqa: PLC0415

    log = PostgresEventLog(dsn(settings, "operator"), writer=_WRITER)
    try:
        await log.open()
        async with (
            opened(dsn(settings, "migrator")) as snapshot,
            open_content(settings, on_quarantine=quarantine_recorder(log)) as content,
        ):
            yield BackupSources(snapshot, content)
    finally:
        await log.close()


@asynccontextmanager
async def open_targets(settings: Settings, administrator: str | None) -> AsyncIterator[RestoreTargets]:
    """The database, made where it is missing when ``administrator`` is the connection string of one who may, and the
    content store."""
    from triplane.adapters.postgres.connection import dsn, ensure_passwords  # noqa: PLC0415
    from triplane.adapters.postgres.loading import PostgresTarget  # noqa: PLC0415

    passwords = ensure_passwords(settings.secrets)
    if settings.database_password is not None:
        passwords["migrator"] = settings.database_password.get_secret_value()
    target = PostgresTarget(administrator or dsn(settings, "migrator"), passwords, database=settings.database_name)
    async with target as database, open_content(settings) as content:
        yield RestoreTargets(database, content)


def read_secrets(settings: Settings) -> list[tuple[str, bytes]]:
    """Those files that are there, by their place below the folder of secrets. Raises ``InvalidInput``."""
    found: list[tuple[str, bytes]] = []
    for name in SECRETS:
        place = settings.secrets / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and not path.name.startswith("."):
                try:
                    found.append((path.relative_to(settings.secrets).as_posix(), path.read_bytes()))
                except OSError as error:
                    raise InvalidInput(
                        f"{path} cannot be read ({error.strerror}): run as the installation's user"
                    ) from error
    return found


def keep_secret(settings: Settings, name: str, content: bytes) -> None:
    """Write one (0600). Raises ``NotEmpty`` when another is there."""
    from triplane.adapters.filesystem.ledger import write_durably  # noqa: PLC0415

    if name.partition("/")[0] not in SECRETS:
        raise InvalidInput(f"the backup holds a secret {name!r} that is none of {', '.join(SECRETS)}: it was altered")
    path = settings.secrets / name
    if path.exists():
        if path.read_bytes() != content:
            raise NotEmpty(f"{path} is there already, and another one: move it away, or restore into another home")
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_durably(path.with_name(f".{path.name}.restored"), path, content)


async def anchors(
    settings: Settings, places: Sequence[str], signed: "CheckSignature | None", tell: Callable[[str], None]
) -> "list[Seen]":
    """The checkpoints that may speak against a restore: those kept at these places (a file, or an anchor as
    ``TRIPLANE_ANCHORS`` spells it), at the configured anchors, and in the notary's own record of this home. ConfigMaps
    are left to the operator, which compares before it acts. Raises ``InvalidInput`` for a given place that holds none;
    a configured one that cannot be read is told of. ``InvalidNote`` for a note that no pinned key has signed."""
    from triplane.adapters.anchors.places import named, open_anchors  # noqa: PLC0415
    from triplane.adapters.filesystem.ledger import FolderLedger  # noqa: PLC0415
    from triplane.audit.checkpoint import parse_checkpoint  # noqa: PLC0415
    from triplane.controllers.continuity import OWN_RECORD, look  # noqa: PLC0415
    from triplane.domain.backup import Seen  # noqa: PLC0415

    ledger = FolderLedger(settings.notary)
    found: dict[str, bytes] = {}
    if (own := ledger.read()) is not None:
        found[OWN_RECORD] = own
    configured = settings.anchors
    if configured is None:
        configured = f"file:{quote(str(settings.home.absolute()))}/anchor/checkpoint"
    kept = " ".join(item.uri for item in named(configured) if item.kind != "configmap")
    given = [_uri(place) for place in places]
    for anchor in open_anchors(" ".join(dict.fromkeys([*kept.split(), *given])), None, settings.secrets):
        held = await look(anchor, ledger)
        await anchor.close()
        if held.note is not None:
            found[held.place] = held.note
        elif anchor.uri in given:
            raise InvalidInput(f"the anchor {held.place} holds no checkpoint{held.problem and ': '}{held.problem}")
        elif held.problem:
            tell(f"not compared: {held.place}: {held.problem}")
    seen = [Seen(place, parse_checkpoint(note)[0]) for place, note in found.items()]
    if signed is not None:
        for item, note in zip(seen, found.values(), strict=True):
            signed(item.checkpoint.origin, note)
    return seen


def _uri(place: str) -> str:
    return place if ":" in place else f"file:{quote(str(Path(place).absolute()))}"


def signature_check(keys: Sequence[str]) -> "CheckSignature | None":
    """Checks a note against the keys pinned for its origin; None when none are pinned. Raises ``InvalidNote`` for a
    malformed key, and when called for what no pinned key has signed."""
    if not keys:
        return None
    from triplane.audit.checkpoint import CheckpointTrust, verify_checkpoint  # noqa: PLC0415
    from triplane.audit.notekey import KeyRing, parse_key  # noqa: PLC0415

    ring = [parse_key(text.strip()) for text in dict.fromkeys(keys)]

    def check(origin: str, note: bytes) -> "Sequence[Verified]":
        trust = CheckpointTrust(origin, KeyRing(key for key in ring if key.name == origin))
        return verify_checkpoint(note, trust).signed

    return check
