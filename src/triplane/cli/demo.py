"""``triplane demo``: the main job, on embedded defaults, from nothing to accepted work and its proof.

The first run executes three examples. A later run applies the very same manifests again, shows that nothing changes,
and then executes a fresh Graph.
"""

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triplane.cli import isolation
from triplane.cli.connect import gateway_url, settings
from triplane.cli.output import colour, note, one_line
from triplane.cli.up import Where, WhereOption, next_commands, progress, start, with_settings
from triplane.errors import InvalidInput, NotFound, TriplaneError, Unavailable

if TYPE_CHECKING:
    from triplane.adapters.kube.reader import Reader
    from triplane.cli.gateway import Gateway
    from triplane.settings import Settings

NAMESPACE = "demo"
MANAGER = "triplane-demo"
AUDIT, CARELESS, SURVEY = "01-licence-audit", "02-careless-agent", "03-fan-out-and-merge"
_GRAPHS = {AUDIT: "licence-audit", CARELESS: "careless-audit", SURVEY: "page-survey"}
_NODES = {"page-survey": ("strict", "tolerant")}
"""Nodes of a Graph, where they are not one of the Graph's own name."""
_MOST_SECONDS = 240
_POLL_SECONDS = 0.3
_SIGNED_SECONDS = 20


@dataclass(frozen=True)
class Users:
    """The two users of the demo: whoever applies an agent answers for it."""

    alice: "Reader"
    bob: "Reader"

    def named(self, name: str) -> "Reader":
        return self.alice if name == "alice" else self.bob


def demo(
    where: WhereOption = Where.LOCAL,
    examples: Annotated[
        Path | None, typer.Option("--examples", help="The folder docs/examples.", exists=True, file_okay=False)
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", envvar="KEEP", help="Leave everything running at the end.")
    ] = True,
) -> None:
    """Run the main job on this machine and show what came of it. KEEP=0 or CI=true stops everything at the end."""
    folder = examples or default_examples()
    chosen = with_settings(settings(), programs=(folder / "programs").resolve())
    # Where no sandbox is possible the demo still runs, and says so before and after.
    without = isolation.problem()
    chosen = with_settings(chosen, allow_unisolated=True) if without else chosen
    isolation.expect(chosen, without)
    stays = keep and os.environ.get("CI", "").lower() not in ("true", "1")
    started, report, key = False, "", ""
    _end_like_ctrl_c()
    try:
        asyncio.run(start(chosen, where, [NAMESPACE]))
        started = True
        report, key = run(chosen, folder)
    except KeyboardInterrupt:
        note("interrupted: stopping everything")
        stays = False
        raise
    except BaseException:
        if stays and started:
            note("it stays up for a look at what went wrong; `make down` (or `triplane down`) stops it")
        raise
    finally:
        if not stays:
            _down(chosen)
    if stays:
        task = "task/licence-audit-audit"
        more = (
            f"status -n {NAMESPACE}",
            f"why -n {NAMESPACE} {task}",
            f"logs -n {NAMESPACE} task/careless-audit-audit",
            f"sessions -n {NAMESPACE} --agent surveyor --graph page-survey --last",
            f"as-run -n {NAMESPACE} {task}",
            f"attest show -n {NAMESPACE} {task}",
            "log query --newest",
            "log checkpoint",
            "log export demo-log",
            f"proof artifact -n {NAMESPACE} {report} -o demo-evidence",
            *((f"verify demo-evidence --key '{key}'",) if key else ()),
        )
        typer.echo("\nIt stays up. Next:\n" + next_commands(chosen, where, more))


def _end_like_ctrl_c() -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does; of several such signals, one counts."""

    def interrupt(_number: int, _frame: object) -> None:
        for number in taken:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    taken = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # nohup(1)
    for number in taken:
        signal.signal(number, interrupt)


def default_examples() -> Path:
    """``docs/examples`` of the checkout this package is installed from, or of the current folder."""
    for root in (Path(__file__).resolve().parents[3], Path.cwd()):
        if (root / "docs" / "examples" / "programs").is_dir():
            return root / "docs" / "examples"
    raise InvalidInput("no docs/examples here: run it in a checkout, or name the folder with --examples")


def run(chosen: "Settings", examples: Path) -> tuple[str, str]:
    """Everything between up and down: the name of the main artifact, and the log's key (empty where it cannot be read).
    Raises if work is not accepted, exits with 1 if the chain is broken."""
    with ExitStack() as stack:
        users = _users(chosen, stack)
        digest = store_environment(chosen, users.alice, examples / AUDIT / "collect.py")
        pages = store_pages(chosen, users.alice, examples / SURVEY / "pages")
        graphs = apply_examples(users, examples, digest, pages)
        for name in graphs:
            for node in _NODES.get(name, (name,)):
                wait(users.alice, node)
        return summary(chosen, users.alice, graphs)


def store_environment(chosen: "Settings", alice: "Reader", collect: Path) -> str:
    """Collect the raw metadata of this environment and store it; returns its digest."""
    from triplane.cli.blob import store
    from triplane.cli.gateway import Gateway

    with tempfile.TemporaryDirectory(prefix="triplane-") as folder:
        target = Path(folder) / "environment"
        done = subprocess.run([sys.executable, str(collect), str(target)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise InvalidInput(f"{collect} failed: {done.stderr.strip()[-400:]}")
        with Gateway(gateway_url(chosen), alice.access.token or "", NAMESPACE) as opened:
            digest, size = store(opened, target)
    count = done.stdout.split(" in ")[0].strip()
    say(f"input: {count}, {size} octets, {digest}")
    return digest


def store_pages(chosen: "Settings", alice: "Reader", pages: Path) -> str:
    """Store the pages of the survey; the same folder has the same digest every time."""
    from triplane.cli.blob import store
    from triplane.cli.gateway import Gateway

    with Gateway(gateway_url(chosen), alice.access.token or "", NAMESPACE) as opened:
        digest, _ = store(opened, pages)
    return digest


def apply_examples(users: Users, examples: Path, digest: str, pages: str) -> list[str]:
    """Apply the manifests; returns the Graphs to wait for."""
    earlier = _digest_in_use(users.alice)
    inputs = {AUDIT: earlier or digest, CARELESS: earlier or digest, SURVEY: pages}
    if not all(_exists(users.alice, name) for name in _GRAPHS.values()):
        # The first run, or one that was interrupted before it had applied everything.
        for example in _GRAPHS:
            objects = list(manifests(examples / example, inputs[example], ""))
            for user, manifest in objects:
                users.named(user).apply(manifest, manager=MANAGER)
            say(f"{example}: {len(objects)} objects applied by {' and '.join(sorted({u for u, _ in objects}))}")
        return list(_GRAPHS.values())
    same = [item for example in _GRAPHS for item in manifests(examples / example, inputs[example], "")]
    for name in _GRAPHS.values():
        for node in _NODES.get(name, (name,)):
            _settle(users.alice, node)
    changed = [one for one in (_apply_again(users.named(user), manifest) for user, manifest in same) if one]
    if changed:
        raise Unavailable(f"applying the same manifests changed {', '.join(changed)}: that must not be")
    say(f"the same {len(same)} manifests applied again: no resourceVersion changed")
    suffix = f"-{secrets.token_hex(2)}"
    for user, manifest in manifests(examples / AUDIT, digest, suffix):
        users.named(user).apply(manifest, manager=MANAGER)
    say(f"a fresh Graph: {_GRAPHS[AUDIT]}{suffix}")
    return [_GRAPHS[AUDIT] + suffix]


def manifests(example: Path, digest: str, suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(user, object) for every object of an example, the placeholders filled in."""
    import yaml

    for path in sorted(example.glob("*/*.yaml")):
        text = path.read_text(encoding="utf-8").replace("${INPUT_DIGEST}", digest).replace("${SUFFIX}", suffix)
        if left := re.search(r"\$\{\w+\}", text):
            raise InvalidInput(f"{path}: nothing fills {left.group()}")
        for document in yaml.safe_load_all(text):
            yield path.parent.name, document


def wait(reader: "Reader", name: str, *, quiet: bool = False) -> None:
    """Follow a Node until its work is accepted. ``Unavailable`` if it fails, stalls or takes too long."""
    from triplane.domain.conditions import condition

    said = ""
    deadline = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < deadline:
        node = reader.get("Node", NAMESPACE, name)
        status: Mapping[str, Any] = node.get("status") or {}
        found = condition(status, "Succeeded") or {}
        line = f"{status.get('phase', 'Pending'):<10} {found.get('message', 'not seen by the operator yet')}"
        if line != said and not quiet:
            say(f"{name}: {line}")
        said = line
        stalled = (condition(status, "Stalled") or {}).get("status") == "True"
        if found.get("status") == "True":
            return
        if found.get("status") == "False" or stalled:
            raise TriplaneError(f"{name} was not accepted: {found.get('message')}")
        time.sleep(_POLL_SECONDS)
    raise Unavailable(f"{name} is not done after {_MOST_SECONDS} s: {said}")


def _settle(reader: "Reader", graph: str) -> None:
    """Wait until nothing of an earlier demo's Graph moves any more, however it ended (that demo may have been cut)."""
    try:
        wait(reader, graph, quiet=True)
    except TriplaneError as error:
        say(f"of an earlier demo: {error}; going on")


def summary(chosen: "Settings", reader: "Reader", graphs: Sequence[str]) -> tuple[str, str]:
    """The tree, the lineage of the main artifact, and the proof; returns as ``run``."""
    from triplane.cli import lineage, log_verify, status
    from triplane.cli.gateway import Gateway

    objects = status.read(reader, NAMESPACE)
    typer.echo("\n" + colour("What was done", "cyan"))
    for graph in graphs:
        status.show(status.tree(objects, graph), NAMESPACE, 3 if graph in _NODES else None)
    report = next(
        item
        for item in objects["Artifact"]
        if item["spec"]["taskRef"]["name"] == f"{graphs[0]}-audit" and item["spec"]["name"] == "report"
    )
    typer.echo("\n" + colour(f"Where {report['metadata']['name']} comes from", "cyan"))
    with Gateway(gateway_url(chosen), reader.access.token or "", NAMESPACE) as opened:
        lineage.show(lineage.find(opened, report["metadata"]["name"], NAMESPACE))
        signed = checkpoint(opened)
    typer.echo("\n" + colour("Proof", "cyan"))
    log_verify.verify(first=0, last=None)
    key = show_checkpoint(chosen, signed)
    isolation.tell(objects["AgentSession"])
    return report["metadata"]["name"], key


def checkpoint(opened: "Gateway") -> bytes | None:
    """The latest signed one, which may take a few seconds to come; None when it does not."""
    deadline = time.monotonic() + _SIGNED_SECONDS
    while True:
        try:
            return opened.octets("/log/checkpoint")
        except NotFound:
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_SECONDS)


def show_checkpoint(chosen: "Settings", octets: bytes | None) -> str:
    """What an outsider would keep, and by which key they would know it; returns that key."""
    from triplane.audit.checkpoint import parse_checkpoint
    from triplane.wiring import own_trust

    if octets is None:
        typer.echo("no checkpoint is signed yet: `triplane log checkpoint` tells when one is")
        return ""
    signed, _ = parse_checkpoint(octets)
    typer.echo(f"checkpoint signed: {signed.size} entries, root {signed.root.hex()}")
    trust = own_trust(chosen, signed.origin)
    if trust is None:
        return ""
    typer.echo(f"the log's key, for outsiders to pin: {trust.log.keys[0]}")
    return str(trust.log.keys[0])


def say(text: str) -> None:
    """A line of progress."""
    note(f"demo  {one_line(text)}")


def _users(chosen: "Settings", stack: ExitStack) -> Users:
    from triplane.adapters.kube.reader import Reader

    def user(name: str) -> "Reader":
        return stack.enter_context(Reader.open([chosen.secrets / f"kubeconfig-{name}"]))

    return Users(user("alice"), user("bob"))


def _exists(reader: "Reader", graph: str) -> bool:
    """Whether the Graph and its Nodes are there."""
    try:
        nodes = [reader.get("Node", NAMESPACE, node) for node in _NODES.get(graph, (graph,))]
        return bool(reader.get("Graph", NAMESPACE, graph) and all(nodes))
    except NotFound:
        return False


def _digest_in_use(reader: "Reader") -> str | None:
    """The input of the first run, when there was one."""
    try:
        node = reader.get("Node", NAMESPACE, _GRAPHS[AUDIT])
    except NotFound:
        return None
    return str(node["spec"]["steps"][0]["inputs"][0]["digest"])


def _apply_again(reader: "Reader", manifest: Mapping[str, Any]) -> str | None:
    """The name of the object if applying it changed it; a status written meanwhile gets a second look."""
    metadata = manifest["metadata"]
    for _ in range(2):
        before = reader.get(manifest["kind"], metadata["namespace"], metadata["name"])
        after = reader.apply(manifest, manager=MANAGER)
        if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]:
            return None
    return f"{manifest['kind']} {metadata['name']}"


def _down(chosen: "Settings") -> None:
    from triplane.localcluster import installation

    asyncio.run(installation.down(chosen, progress=progress()))
