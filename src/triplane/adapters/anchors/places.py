"""Which anchors the settings name: a list of URIs, each refused with the reason when it cannot be one.

====================================  ===============================================================================
URI                                   the latest checkpoint is
====================================  ===============================================================================
``file:/folder/name``                 that file
``configmap:<namespace>/<name>``      the key ``checkpoint`` of that ConfigMap
``git:/folder?branch=b&push=remote``  the file ``checkpoint`` of that branch, one commit each, and pushed there
``https://host/path``                 PUT there, and read from there; ``post+https://…`` only POSTs
====================================  ===============================================================================
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from triplane.adapters.anchors.authorization import FILE
from triplane.adapters.anchors.configmap import ConfigMapAnchor
from triplane.adapters.anchors.file import FileAnchor
from triplane.adapters.anchors.git import GitAnchor
from triplane.adapters.anchors.url import UrlAnchor, check_url
from triplane.errors import InvalidInput
from triplane.ports import Anchor
from triplane.ports.cluster import ConfigMaps

FORMS: Final = "file:/…, configmap:<namespace>/<name>, git:/…?branch=…, https://… or post+https://…"
_NAME: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_CONFIGMAP = re.compile(rf"(?P<namespace>{_NAME})/(?P<name>{_NAME}(\.{_NAME})*)", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*", re.ASCII)
"""Branches and remotes: a part of what git-check-ref-format(1) allows, and never an option."""


@dataclass(frozen=True, slots=True)
class Named:
    """An anchor as the settings name it, checked."""

    uri: str
    kind: str
    path: Path = Path()
    namespace: str = ""
    name: str = ""
    branch: str = "main"
    push: str = ""


def named(text: str) -> list[Named]:
    """Read a list of URIs, separated by white space. Raises ``InvalidInput`` saying which is wrong and why."""
    found = [_parsed(uri) for uri in text.split()]
    twice = {item.uri for item in found if [other.uri for other in found].count(item.uri) > 1}
    if twice:
        raise InvalidInput(f"TRIPLANE_ANCHORS names {', '.join(sorted(twice))} twice")
    return found


def open_anchors(text: str, config_maps: ConfigMaps | None, secrets: Path) -> list[Anchor]:
    """The anchors of this setting. Raises ``InvalidInput``; without ``config_maps`` no ConfigMap can be one.
    ``secrets``: the folder with what URLs are to be given (``authorization.FILE``)."""
    return [_opened(item, config_maps, secrets / FILE) for item in named(text)]


def _opened(item: Named, config_maps: ConfigMaps | None, credentials: Path) -> Anchor:
    if item.kind == "file":
        return FileAnchor(item.path, item.uri)
    if item.kind == "git":
        return GitAnchor(item.path, item.uri, branch=item.branch, push=item.push)
    if item.kind == "url":
        return UrlAnchor(item.uri, credentials)
    if config_maps is None:
        raise InvalidInput(f"{item.uri}: no API server is known here; name a kubeconfig")
    return ConfigMapAnchor(config_maps, item.namespace, item.name)


def _parsed(uri: str) -> Named:
    scheme, colon, rest = uri.partition(":")
    if not colon:
        raise _refused(uri, f"it has no scheme; write {FORMS}")
    if scheme == "file":
        return Named(uri, "file", _path(uri, rest))
    if scheme == "configmap":
        if (found := _CONFIGMAP.fullmatch(rest)) is None:
            raise _refused(uri, "write configmap:<namespace>/<name>, both as Kubernetes spells them")
        return Named(uri, "configmap", namespace=found["namespace"], name=found["name"])
    if scheme == "git":
        return _git(uri, rest)
    if scheme in {"http", "https", "post+http", "post+https"}:
        check_url(uri)
        return Named(uri, "url")
    raise _refused(uri, f"{scheme!r} is no kind of anchor; write {FORMS}")


def _git(uri: str, rest: str) -> Named:
    path, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    values = dict(options)
    if len(values) != len(options) or not values.keys() <= {"branch", "push"}:
        raise _refused(uri, "after ? there may be branch=… and push=…, each once")
    for option, value in values.items():
        if _REF.fullmatch(value) is None:
            raise _refused(uri, f"{value!r} is no {option}: letters, digits, - and _, parted by . or /")
    return Named(uri, "git", _path(uri, path), branch=values.get("branch", "main"), push=values.get("push", ""))


def _path(uri: str, rest: str) -> Path:
    parts = urlsplit(rest)
    text = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or not text.startswith("/") or "\0" in text:
        raise _refused(uri, "write the path from the root, what is special in a URI as %20: file:/folder/name")
    path = Path(text)
    if ".." in path.parts:
        raise _refused(uri, "the path has no ..")
    return path


def _refused(uri: str, why: str) -> InvalidInput:
    return InvalidInput(f"TRIPLANE_ANCHORS: {uri[:200]!r} is no anchor: {why}")
