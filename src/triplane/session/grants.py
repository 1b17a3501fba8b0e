"""What authority adds to a run, made real: egress, secrets, shared paths. Most runs are granted none of it, and for
them nothing here costs a call, a thread or a file.
"""

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplane.domain.enforcement import unenforced
from triplane.session.client import RunGateway
from triplane.session.execution import Execution
from triplane.session.given import GivenSecrets
from triplane.session.harness.protocol import Record
from triplane.session.refusal import refused
from triplane.session.sandbox import Mount
from triplane.session.sharing import SHARED, SharedPath, open_shared

if TYPE_CHECKING:
    from triplane.session.egress import EgressProxy
    from triplane.session.tools.endpoint import Endpoint
    from triplane.session.tools.host import ToolHost

_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
"""HTTP_PROXY too: plain http is refused by the proxy, and without it by a silence no model can read."""
_NO_PROXY_VARIABLES = ("NO_PROXY", "no_proxy")
_LOOPBACK = "127.0.0.1,localhost"
_CERTIFICATES = tuple(
    Path(name)
    for name in ("/etc/ssl/certs", "/etc/ssl/cert.pem", "/usr/share/ca-certificates", "/etc/pki/tls/certs",
                 "/etc/pki/ca-trust/extracted")
)  # fmt: skip
"""Whom the machine trusts: without it no TLS connection could be made. Nothing secret lies there."""
_OURS = ("TRIPLANE_", "LD_", "PYTHON", "SSL_CERT_")
_OURS_WHOLE = frozenset({"PATH", "HOME", "LANG", *_PROXY_VARIABLES, *_NO_PROXY_VARIABLES})


@dataclass(slots=True)
class Grants:
    """What one run gets. ``close`` it if it is never started."""

    egress: tuple[str, ...] = ()
    """Patterns the proxy goes by; empty: there is no proxy."""
    secrets: GivenSecrets = field(default_factory=GivenSecrets)
    paths: tuple[SharedPath, ...] = ()
    tools: bool = False
    """There is an endpoint for tools."""
    word: str | None = None
    """Without a sandbox: what the harness shows proxy and endpoint, which everybody on the machine can reach."""

    @property
    def doors(self) -> tuple[str, ...]:
        """Listening sockets it needs (``session.listeners``)."""
        return (*(("proxy",) if self.egress else ()), *(("mcp",) if self.tools else ()))

    def mounts(self) -> list[Mount]:
        """What the sandbox shows beside the workspace. The descriptors are given up with it."""
        found = [item.mount() for item in self.paths]
        self.paths = tuple(SharedPath(item.path, item.writable, -1) for item in self.paths)
        if self.egress:
            found += [Mount(path, str(path)) for path in _CERTIFICATES if path.exists()]
        return found

    def environment(self, ports: Mapping[str, int], place: Path) -> dict[str, str]:
        """Further variables: secrets, the way out, and where shared paths are."""
        env = {item.env: item.value for item in self.secrets.harness}
        if self.egress:
            user = f"run:{self.word}@" if self.word is not None else ""
            env |= dict.fromkeys(_PROXY_VARIABLES, f"http://{user}127.0.0.1:{ports['proxy']}")
            env |= dict.fromkeys(_NO_PROXY_VARIABLES, _LOOPBACK)
        if self.tools:
            word = f"/{self.word}" if self.word is not None else ""
            env["TRIPLANE_MCP_URL"] = f"http://127.0.0.1:{ports['mcp']}{word}/mcp"
            env |= dict.fromkeys(_NO_PROXY_VARIABLES, _LOOPBACK)
        if self.paths:
            env["TRIPLANE_SHARED"] = str(place / Path(SHARED).name)
        return env

    def link(self, shared: Path, place: Path) -> None:
        """Without a sandbox: show the paths as links beneath ``place``; nothing keeps them read-only. Blocking."""
        for item in self.paths:
            (place / item.path).parent.mkdir(parents=True, exist_ok=True)
            if not (place / item.path).exists():  # else it lies in a folder that is there
                (place / item.path).symlink_to(shared / item.path)
        self.close()

    def proxy(self, execution: Execution, record: Callable[[Record], Awaitable[None]]) -> "EgressProxy | None":
        """The way out of the started program, to be opened and closed by the caller; None where there is none."""
        if not self.egress:
            return None
        from triplane.session.egress import EgressProxy  # noqa: PLC0415 - most runners never need it

        return EgressProxy(execution.listeners["proxy"], self.egress, record, word=self.word)

    def endpoint(self, execution: Execution, host: "ToolHost") -> "Endpoint":
        """Where the started program calls its tools, to be opened and closed by the caller."""
        from triplane.session.tools.endpoint import Endpoint  # noqa: PLC0415 - as above

        return Endpoint(host, execution.listeners["mcp"], word=self.word)

    def facts(self) -> dict[str, Any]:
        """What is reported of it at the start; never a value."""
        facts: dict[str, Any] = {}
        if self.egress:
            facts |= {"network": "proxy", "egress": list(self.egress)}
        if told := [item.told() for item in self.secrets.harness]:
            facts["secrets"] = told
        if of_tools := {tool: [item.told() for item in items] for tool, items in self.secrets.tools.items()}:
            facts["toolSecrets"] = of_tools
        if self.paths:
            facts["paths"] = [item.wire() for item in self.paths]
        return facts

    def close(self) -> None:
        """Close what was opened and not given up. May be called again."""
        opened = [item.descriptor for item in self.paths if item.descriptor >= 0]
        self.paths = tuple(SharedPath(item.path, item.writable, -1) for item in self.paths)
        for descriptor in opened:
            os.close(descriptor)


def check_enforced(order: Mapping[str, Any], *, isolated: bool) -> None:
    """Raise ``RunEndsEarly`` (``AxisNotEnforced``) where somebody set an axis that this runner cannot keep the run
    within, unless a Policy lets it go unenforced."""
    allowed = set(order.get("allowUnenforced") or ())
    lacking = [axis for axis in unenforced(order.get("demandedAxes") or (), isolated=isolated) if axis not in allowed]
    if lacking:
        raise refused(
            "AxisNotEnforced",
            f"without a sandbox this runner cannot enforce {', '.join(lacking)}, which the authority of this session "
            "sets: run it where sessions are isolated, or let a Policy name those axes in allowUnenforced "
            "(docs/reference/enforcement.md)",
        )


async def obtain(gateway: RunGateway, order: Mapping[str, Any], shared: Path | None, *, isolated: bool) -> Grants:
    """Fetch and open what the work order grants. Raises ``RunEndsEarly`` naming the first thing it cannot have."""
    authority = order.get("authority") or {}
    grants = Grants(egress=tuple(authority.get("egress") or ()), tools=bool(order.get("tools")))
    if grants.doors and not isolated:
        grants.word = secrets.token_urlsafe(24)
    if _names_secrets(order):
        grants.secrets = await gateway.secrets()
        _check_variables(order, grants.secrets)
    if uses := order.get("paths"):
        opened = await asyncio.to_thread(open_shared, shared, uses, authority.get("paths") or ())
        grants.paths = tuple(opened)
    return grants


def _names_secrets(order: Mapping[str, Any]) -> bool:
    """Whether the gateway need be asked at all: harness or a Tool names a Secret."""
    if order.get("secrets"):
        return True
    for tool in order.get("tools") or ():
        spec = tool.get("spec") or {}
        server = spec.get("stdio") or spec.get("exec") or spec.get("http") or {}
        if server.get("secrets") or server.get("token"):
            return True
    return False


def _check_variables(order: Mapping[str, Any], given: GivenSecrets) -> None:
    """Secrets become variables of their own: they replace neither ours nor the Harness's, nor each other."""
    taken = {str(item["name"]) for item in (order.get("harness") or {}).get("env") or ()}
    for item in given.harness:
        if item.env.startswith(_OURS) or item.env in _OURS_WHOLE or item.env in taken:
            raise refused(
                "SecretForbidden",
                f"secret {item.name}/{item.key} cannot become variable {item.env}: the session host, the Harness or "
                "another secret sets it. Choose another `env`",
            )
        taken.add(item.env)
