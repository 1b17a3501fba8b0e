"""The API server as the reconcilers see it: uncached reads, creates by deterministic name, status by our own
field manager."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from triplane.adapters.clock import SystemClock
from triplane.adapters.joined import Joined
from triplane.adapters.kube.transport import UNMETERED, Answer, ExpiredError, Meter, Transport, error_of
from triplane.api.kinds import KINDS
from triplane.api.text import API_VERSION
from triplane.errors import Conflict, Fenced, InvalidInput, NotFound, TriplaneError, Unavailable
from triplane.ports import Clock, KubeEvent, Page

log = structlog.get_logger(__name__)

PAGE = 200
"""Objects of one page: parsed, a megabyte or two."""
LIST_RESTARTS = 3
CREATE_ROUNDS = 3
EVENT_MESSAGE_LIMIT = 1024
REPORTER = "triplane-operator"

Object = dict[str, Any]


async def _unfenced() -> None:
    """No other writer can exist: for tools that hold no epoch."""


class KubeCluster:
    """``triplane.ports.Cluster`` on a real API server. ``fence`` is awaited before every write, repeats
    included, and raises ``Fenced`` when a newer operator has begun."""

    def __init__(
        self,
        kubeconfig: Path | None,
        field_manager: str = REPORTER,
        fence: Callable[[], Awaitable[None]] = _unfenced,
        clock: Clock | None = None,
        meter: Meter = UNMETERED,
    ) -> None:
        self._transport = Transport(kubeconfig, meter)
        self._manager = field_manager
        self._fence = fence
        self._clock = clock or SystemClock()
        self._reads = Joined(self._get)
        self._lists = Joined(self._whole_list)

    async def close(self) -> None:
        await self._transport.close()

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return await self._reads((kind, namespace, name))

    async def _get(self, key: tuple[str, str, str]) -> Object | None:
        kind, namespace, name = key
        answer = await self._transport.request("GET", _path(kind, namespace, name), kind=kind)
        if answer.ok:
            return _whole(kind, answer.body)
        if answer.code == 404 and _names(answer, name):
            return None
        raise _missing_kind(answer, kind) or error_of(answer, f"reading {kind} {namespace}/{name}")

    async def list(self, kind: str, namespace: str | None = None) -> tuple[Sequence[Object], str]:
        return await self._lists((kind, namespace))

    async def _whole_list(self, key: tuple[str, str | None]) -> tuple[Sequence[Object], str]:
        whole: list[Object] = []
        version = ""
        async for page in self.pages(*key):
            if page.first:
                whole.clear()
            whole += page.items
            version = page.version
        return whole, version

    async def pages(self, kind: str, namespace: str | None = None) -> AsyncIterator[Page]:
        for _ in range(LIST_RESTARTS):
            try:
                async for page in self._pages(kind, namespace, PAGE):
                    yield page
                    del page  # not to be kept while the next one is read
            except ExpiredError:
                log.info("a LIST outlived its continue token; it begins again", kind=kind)
            else:
                return
        # The collection changes faster than we can page through it: take it in one piece.
        async for page in self._pages(kind, namespace, 0):
            yield page

    async def _pages(self, kind: str, namespace: str | None, size: int) -> AsyncIterator[Page]:
        query = {"limit": str(size)} if size else {}
        while True:
            page, following = await self._page(kind, namespace, query)
            yield page
            if not following:
                return
            del page
            query["continue"] = following

    async def _page(self, kind: str, namespace: str | None, query: Mapping[str, str]) -> tuple[Page, str]:
        answer = await self._transport.request("GET", _path(kind, namespace), query=query, kind=kind)
        if not answer.ok:
            raise _missing_kind(answer, kind) or error_of(answer, f"listing {kind}")
        items, about = [_whole(kind, item) for item in answer.body["items"]], answer.body["metadata"]
        return Page(items, about["resourceVersion"], "continue" not in query), about.get("continue") or ""

    async def create(self, obj: Mapping[str, Any]) -> tuple[Object, bool]:
        kind, metadata = obj["kind"], obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        what = f"creating {kind} {namespace}/{name}"
        body = {"apiVersion": _api_version(kind), **obj}
        for _ in range(CREATE_ROUNDS):
            answer = await self._transport.request(
                "POST",
                _path(kind, namespace),
                query={"fieldManager": self._manager, "fieldValidation": "Strict"},
                body=body,
                kind=kind,
                before=self._fence,
            )
            if answer.ok:
                return _whole(kind, answer.body), True
            if answer.code == 409 and answer.reason == "AlreadyExists":
                standing = await self.get(kind, namespace, name)
                if standing is not None:
                    return standing, False
                continue  # it was deleted between the two answers
            raise _missing_kind(answer, kind) or error_of(answer, what)
        raise Conflict(f"{what}: it is being created and deleted by somebody else; stop that and try again")

    async def write_status(self, obj: Mapping[str, Any], status: Mapping[str, Any]) -> Object:
        kind, metadata = obj["kind"], obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        body = {
            "apiVersion": _api_version(kind),
            "kind": kind,
            # The status endpoint compares the resourceVersion alone, which is enough: it belongs to one state of one
            # incarnation. The UID makes the apply of an object that is gone fail as such.
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "status": dict(status),
        }
        answer = await self._transport.request(
            "PATCH",
            f"{_path(kind, namespace, name)}/status",
            query={"fieldManager": self._manager, "force": "true", "fieldValidation": "Strict"},
            body=body,
            content_type="application/apply-patch+yaml",
            kind=kind,
            before=self._fence,
        )
        if answer.ok:
            return _whole(kind, answer.body)
        what = f"writing the status of {kind} {namespace}/{name}"
        if answer.code == 409 and await self._is_gone(kind, namespace, name, metadata["uid"]):
            raise NotFound(f"{what}: that object is gone")
        raise _missing_kind(answer, kind) or error_of(answer, what)

    async def _is_gone(self, kind: str, namespace: str, name: str, uid: str) -> bool:
        """A successor is answered with 409, like a newer state of the same object: look which it is."""
        standing = await self.get(kind, namespace, name)
        return standing is None or standing["metadata"]["uid"] != uid

    async def delete(self, obj: Mapping[str, Any]) -> bool:
        kind, metadata = obj["kind"], obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        answer = await self._transport.request(
            "DELETE",
            _path(kind, namespace, name),
            # Kubernetes API, DeleteOptions: without the UID a successor of the same name would be hit.
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Background",
                "preconditions": {"uid": metadata["uid"]},
            },
            kind=kind,
            before=self._fence,
        )
        if answer.ok:
            return True
        if answer.code == 409 or (answer.code == 404 and _names(answer, name)):
            return False
        raise _missing_kind(answer, kind) or error_of(answer, f"deleting {kind} {namespace}/{name}")

    async def read_config_map(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        answer = await self._transport.request("GET", _config_map_path(namespace, name), kind="ConfigMap")
        if answer.ok:
            return dict(answer.body.get("data") or {})
        if answer.code == 404:
            return None
        raise error_of(answer, f"reading ConfigMap {namespace}/{name}")

    async def write_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        metadata = {"namespace": namespace, "name": name}
        answer = await self._transport.request(
            "PATCH",
            _config_map_path(namespace, name),
            query={"fieldManager": self._manager, "force": "true", "fieldValidation": "Strict"},
            body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)},
            content_type="application/apply-patch+yaml",
            kind="ConfigMap",
            before=self._fence,
        )
        if not answer.ok:
            raise error_of(answer, f"writing ConfigMap {namespace}/{name}")

    async def emit(self, event: KubeEvent) -> None:
        try:
            metadata = event.regarding["metadata"]
            namespace = metadata.get("namespace") or "default"
            answer = await self._transport.request(
                "POST",
                f"/api/v1/namespaces/{namespace}/events",
                query={"fieldManager": self._manager},
                body=_event(event, namespace, self._clock),
                kind="Event",
                attempts=1,
                before=self._fence,
            )
            if not answer.ok and answer.reason != "AlreadyExists":
                log.info("an Event was not taken", reason=event.reason, error=answer.message)
        except Fenced:
            raise
        except TriplaneError as error:
            log.info("an Event was lost", reason=event.reason, error=str(error))


def _event(event: KubeEvent, namespace: str, clock: Clock) -> Object:
    regarding = event.regarding
    metadata = regarding["metadata"]
    now = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(f"{metadata.get('uid', '')}\0{event.key}".encode()).hexdigest()[:16]
    message = event.message.encode()[:EVENT_MESSAGE_LIMIT].decode(errors="ignore")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:230]}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": _api_version(regarding["kind"]),
            "kind": regarding["kind"],
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": message,
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": REPORTER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def _api_version(kind: str) -> str:
    return "v1" if kind in ("Namespace", "ConfigMap") else API_VERSION


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    if kind == "Namespace":
        base = "/api/v1/namespaces"
    elif kind in KINDS:
        where = f"/namespaces/{namespace}" if namespace else ""
        base = f"/apis/{API_VERSION}{where}/{KINDS[kind].info.plural}"
    else:
        raise InvalidInput(f"unknown kind {kind!r}; known are {', '.join(KINDS)} and Namespace")
    return f"{base}/{name}" if name else base


def _config_map_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/{name}"


def _whole(kind: str, obj: Object) -> Object:
    """Items of a LIST carry neither kind nor apiVersion. ``managedFields``, larger than most of our objects, are
    dropped at once: nobody decides by them, and a LIST of thousands is held in memory."""
    obj["metadata"].pop("managedFields", None)
    obj.setdefault("kind", kind)
    obj.setdefault("apiVersion", _api_version(kind))
    return obj


def _names(answer: Answer, name: str) -> bool:
    details = answer.body.get("details") if isinstance(answer.body, Mapping) else None
    return isinstance(details, Mapping) and details.get("name") == name


def _missing_kind(answer: Answer, kind: str) -> Unavailable | None:
    """404 without naming an object means that the server does not know the kind: nobody must read that as
    gone."""
    if answer.code == 404 and not (isinstance(answer.body, Mapping) and answer.body.get("details", {}).get("name")):
        return Unavailable(
            f"the API server does not serve {kind} of {_api_version(kind)}; "
            "apply the custom resource definitions (triplane up, or kubectl apply -f crds/)"
        )
    return None
