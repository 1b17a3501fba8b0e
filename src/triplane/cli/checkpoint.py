"""``triplane log checkpoint`` and ``triplane log keys``: what is signed of the log, who else holds it, and by which
keys it is known. They work where the installation's home is, straight from database and anchors."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli.connect import KubeconfigOption, kubeconfig_files, settings
from triplane.cli.output import Format, FormatOption, columns, emit, note
from triplane.errors import InvalidInput, NotFound, TriplaneError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from triplane.adapters.kube.cluster import KubeCluster
    from triplane.audit.checkpoint import SignedCheckpoint
    from triplane.domain.continuity import Finding
    from triplane.settings import Settings

keys_app = typer.Typer(help="List, rotate and retire the keys that sign checkpoints.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(help="Id of the key, or its beginning, as `list` shows it.")]


def checkpoint(
    output: FormatOption = Format.TABLE,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show the latest signed checkpoint, its witnesses, and how the log stands to every anchor. Exit 1 when an anchor
    or the notary's own record contradicts the log."""
    import asyncio

    found = asyncio.run(_checkpoint(settings(), kubeconfig))
    emit(found, output, lambda: _show(found))
    if found["contradicted"]:
        raise typer.Exit(1)


@keys_app.command("list")
def list_all(output: FormatOption = Format.TABLE) -> None:
    """List the keys as verifier keys, for readers and witnesses to pin; the newest first."""
    import asyncio

    rows = asyncio.run(_keys(settings()))
    emit(rows, output, lambda: columns(["KEY", "STATE", "PIN"], [list(row.values()) for row in rows]))


@keys_app.command("rotate")
def rotate() -> None:
    """Let a new key sign beside the old ones, and print it for pinning. Retire the old one once readers have it."""
    import asyncio

    from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder

    current = settings()
    made = NotaryKeyFolder(current.secrets).rotate()
    note(
        "the new key signs from the next checkpoint on, beside the old ones; give it to every reader and witness, then"
    )
    note("retire the old one with `triplane log keys retire <id>`")
    rows = asyncio.run(_keys(current))
    typer.echo(next(row["pin"] for row in rows if row["id"] == made.key_id))


@keys_app.command("retire")
def retire(key: KeyArgument) -> None:
    """Destroy an old private key. What it signed is still read, and nothing more is signed with it."""
    from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder

    keys = NotaryKeyFolder(settings().secrets)
    found = [signer.key_id for signer in keys.signers() if signer.key_id.startswith(key)]
    if len(found) != 1:
        raise InvalidInput(f"{len(found)} keys that sign begin with {key!r}: `triplane log keys list` shows them")
    keys.retire(found[0])
    note("retired; readers who pinned only this key must pin a newer one to believe later checkpoints")
    typer.echo(found[0])


async def _keys(current: "Settings") -> list[dict[str, str]]:
    from triplane.adapters.filesystem.notarykeys import NotaryKeyFolder
    from triplane.audit.dsse import key_id_of, load_public_key
    from triplane.audit.notekey import KeyType, VerifierKey
    from triplane.wiring import open_verifier

    planes = await open_verifier(current)
    await planes.close()
    folder = NotaryKeyFolder(current.secrets)
    public = [(signer.public_key, "signs") for signer in folder.signers()]
    public += [(octets, "retired") for octets in folder.retired()]
    rows = []
    for octets, state in public:
        vkey = VerifierKey(planes.log.origin, KeyType.ED25519, load_public_key(octets).public_bytes_raw())
        rows.append({"id": key_id_of(octets), "state": state, "pin": str(vkey)})
    return rows


async def _checkpoint(current: "Settings", kubeconfig: "Path | None") -> dict[str, Any]:
    from triplane.audit.checkpoint import verify_checkpoint
    from triplane.audit.dsse import load_public_key
    from triplane.controllers.continuity import examine, gather_places
    from triplane.domain.continuity import Known, refusal
    from triplane.wiring import open_outside, open_verifier

    planes = await open_verifier(current)
    config_maps = _config_maps(current, kubeconfig)
    try:
        outside = open_outside(current, config_maps)
        public = [*(signer.public_key for signer in outside.keys.signers()), *outside.keys.retired()]
        known = Known(planes.log.origin, tuple(load_public_key(key).public_bytes_raw() for key in public))
        octets = await planes.checkpoints.latest()
        places = await gather_places(planes.checkpoints, outside.ledger, outside.anchors)
        findings = await examine(planes.log, planes.checkpoints, places, known)
        if octets is None:  # of this log; another one may have been signed, or it was removed here
            raise refusal(findings) or NotFound(_none_published(findings))
        signed = verify_checkpoint(octets, known.trust())
        size, _ = await planes.log.head()
        await outside.close()
    finally:
        await planes.close()
        if config_maps is not None:
            await config_maps.close()
    return {
        "note": octets.decode(),
        "origin": signed.checkpoint.origin,
        "size": signed.checkpoint.size,
        "root": signed.checkpoint.root.hex(),
        "entries": size,
        "quorum": current.witness_quorum,
        "witnesses": _witnesses(octets, signed, [witness.key for witness in outside.witnesses]),
        "places": [
            {
                "place": item.place,
                "standing": item.standing.value,
                "size": None if item.checkpoint is None else item.checkpoint.size,
                "message": item.message,
            }
            for item in findings
        ],
        "elsewhere": {
            "anchors": sorted({*outside.ledger.given()} - {anchor.uri for anchor in outside.anchors}),
            "witnesses": _others(octets, signed.checkpoint.origin, [item.key.name for item in outside.witnesses]),
        },
        "contradicted": any(item.contradicts for item in findings),
    }


def _none_published(findings: "Sequence[Finding]") -> str:
    held = [(item.checkpoint.size, item.place) for item in findings if item.checkpoint is not None]
    if not held:
        return "no checkpoint has been signed yet: is the operator running? `triplane up` starts it"
    size, place = max(held, key=lambda item: item[0])
    return (
        f"no checkpoint is published, though {place} holds one of {size} entries, which the log "
        "continues: somebody removed it from log.checkpoints. The operator publishes the next one; find out who"
    )


def _config_maps(current: "Settings", kubeconfig: "Path | None") -> "KubeCluster | None":
    """The API server, when a kubeconfig is there; the first of the files, as the operator would use it."""
    from triplane.adapters.kube.cluster import KubeCluster

    try:
        return KubeCluster(kubeconfig_files(kubeconfig, current)[0])
    except TriplaneError:
        return None


def _witnesses(octets: bytes, signed: "SignedCheckpoint", keys: list[Any]) -> list[dict[str, Any]]:
    from triplane.audit.note import parse_note, verified_signatures
    from triplane.audit.notekey import KeyRing

    parsed = parse_note(octets)
    found = {item.key: item for item in verified_signatures(parsed.text, parsed.signatures, KeyRing(keys))}
    return [
        {"name": key.name, "cosigned": key in found, "timestamp": found[key].timestamp if key in found else None}
        for key in keys
    ]


def _others(octets: bytes, origin: str, known: "Sequence[str]") -> list[str]:
    """Names under which others than the log and these witnesses have signed. Whether they did is not checked."""
    from triplane.audit.note import parse_note

    return sorted({line.name for line in parse_note(octets).signatures} - {origin, *known})


def _show(found: dict[str, Any]) -> None:
    typer.echo(found["note"], nl=False)
    typer.echo("")
    cosigned = sum(item["cosigned"] for item in found["witnesses"])
    note(
        f"{found['entries'] - found['size']} entries have come since; "
        f"{cosigned} of {len(found['witnesses'])} witnesses have cosigned, readers ask for {found['quorum']}"
    )
    rows = [[item["place"], item["standing"], item["size"]] for item in found["places"]]
    rows += [
        [f"witness {item['name']}", "Cosigned" if item["cosigned"] else "NotYet", None] for item in found["witnesses"]
    ]
    columns(["HELD BY", "STANDING", "SIZE"], rows)
    for item in found["places"]:
        if item["standing"] not in {"Continues", "Absent", "WriteOnly"}:
            note(item["message"])
    for uri in found["elsewhere"]["anchors"]:
        note(f"not compared: {uri} was given checkpoints, and TRIPLANE_ANCHORS does not name it here")
    for name in found["elsewhere"]["witnesses"]:
        note(f"not checked: a signature of {name}, which TRIPLANE_WITNESSES does not name here")
