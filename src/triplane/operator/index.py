"""The operator's mirror of our kinds, by name, by UID and by what objects refer to.

Watch events, sweeps and the results of our own writes all arrive here, in any order. The newest
resourceVersion wins (they are comparable within one API server since Kubernetes 1.35, KEP-5504), and a UID
seen deleted never comes back: a reconciler never decides on an object older than its own last write, and a
late event never resurrects what is gone.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.kinds import KINDS
from triplane.operator.fields import FIELDS, owner_uids
from triplane.operator.shared import Shared

Object = dict[str, Any]
Name = tuple[str, str]
"""(namespace, name)"""

TOMBSTONES = 50_000
"""Deleted UIDs remembered. A stale event arrives within seconds of the deletion; this many deletions later
the UID is safe to forget, and memory stays flat."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an observation changed: the object before (None: new) and after (None: gone)."""

    kind: str
    before: Object | None
    after: Object | None

    @property
    def object(self) -> Object:
        """The newest form known."""
        newest = self.after if self.after is not None else self.before
        assert newest is not None
        return newest


def version(obj: Mapping[str, Any]) -> int:
    """The object's resourceVersion as a number."""
    return int(obj["metadata"]["resourceVersion"])


class Index:
    """``triplane.ports.ObjectIndex``, and the bookkeeping of observations. Pure: no I/O, no clock, one
    thread."""

    def __init__(self, on_change: Callable[[Change], None] = lambda change: None) -> None:
        """``on_change`` is called after each change, also those that come through ``put``."""
        self._on_change = on_change
        self._objects: dict[str, dict[Name, Object]] = {kind: {} for kind in KINDS}
        self._by_uid: dict[str, Object] = {}
        self._shared = Shared()
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._fields: dict[tuple[str, str], defaultdict[str, set[Name]]] = {
            (kind, field): defaultdict(set) for kind in KINDS for field in (*FIELDS.get(kind, {}), "owner")
        }
        self.highest_version = 0
        """Highest resourceVersion ever observed."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects[kind].get((namespace, name))

    def by_uid(self, uid: str) -> Object | None:
        return self._by_uid.get(uid)

    def list(self, kind: str, namespace: str | None = None) -> Sequence[Object]:
        objects = self._objects[kind]
        return [objects[name] for name in sorted(name for name in objects if namespace in (None, name[0]))]

    def children(self, kind: str, field: str, value: str) -> Sequence[Object]:
        names = self._fields[kind, field].get(value, ())
        return [self._objects[kind][name] for name in sorted(names)]

    def put(self, obj: Mapping[str, Any]) -> bool:
        return self.observe(obj) is not None

    def observe(self, obj: Mapping[str, Any]) -> Change | None:
        """Take in an object as read, listed, watched or written; None when it is no news."""
        kind, uid = obj["kind"], obj["metadata"]["uid"]
        if kind not in self._objects or uid in self._tombstones:
            return None
        self.highest_version = max(self.highest_version, version(obj))
        name = _name(obj)
        before = self._objects[kind].get(name)
        if before is not None and version(before) >= version(obj):
            return None
        after = self._shared.of(_slim(obj))
        if before is not None and before["metadata"]["uid"] != uid:
            self._drop(kind, name, before)  # a successor exists, so the predecessor is gone
            self._on_change(Change(kind, before, None))
            before = None
        if before is not None:
            self._unlink(kind, name, before)
        self._objects[kind][name] = after
        self._by_uid[uid] = after
        for key, values in _fields_of(kind, after):
            for value in values:
                self._fields[key][value].add(name)
        change = Change(kind, before, after)
        self._on_change(change)
        return change

    def remove(self, obj: Mapping[str, Any]) -> Change | None:
        """Take in the end of this incarnation; None when it was known. Idempotent, and never undone."""
        kind, uid = obj["kind"], obj["metadata"]["uid"]
        if kind not in self._objects or uid in self._tombstones:
            return None
        self.highest_version = max(self.highest_version, version(obj))
        stored = self._by_uid.get(uid)
        last = _slim(obj) if stored is None or version(obj) >= version(stored) else stored
        if stored is not None:
            self._drop(kind, _name(stored), stored)
        else:
            self._bury(uid)
        change = Change(kind, last, None)
        self._on_change(change)
        return change

    def versions(self, kind: str) -> Mapping[str, Object]:
        """A snapshot of that kind by UID, for comparison with a LIST that starts later."""
        return {obj["metadata"]["uid"]: obj for obj in self._objects[kind].values()}

    def everything(self) -> Iterable[Object]:
        """All objects, in the order of kinds."""
        for kind in self._objects:
            yield from self.list(kind)

    def counts(self) -> dict[str, int]:
        """How many objects there are of each kind."""
        return {kind: len(objects) for kind, objects in self._objects.items()}

    def __len__(self) -> int:
        return len(self._by_uid)

    def _drop(self, kind: str, name: Name, stored: Object) -> None:
        self._unlink(kind, name, stored)
        del self._objects[kind][name]
        uid = stored["metadata"]["uid"]
        self._by_uid.pop(uid, None)
        self._bury(uid)

    def _bury(self, uid: str) -> None:
        self._tombstones[uid] = None
        if len(self._tombstones) > TOMBSTONES:
            self._tombstones.popitem(last=False)

    def _unlink(self, kind: str, name: Name, stored: Object) -> None:
        for key, values in _fields_of(kind, stored):
            entries = self._fields[key]
            for value in values:
                names = entries.get(value)
                if names is not None:
                    names.discard(name)
                    if not names:
                        del entries[value]


def _fields_of(kind: str, obj: Object) -> Iterable[tuple[tuple[str, str], frozenset[str]]]:
    for field, extract in FIELDS.get(kind, {}).items():
        yield (kind, field), extract(obj)
    yield (kind, "owner"), owner_uids(obj)


def _name(obj: Mapping[str, Any]) -> Name:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _slim(obj: Mapping[str, Any]) -> Object:
    """Without managedFields, which are larger than most of our objects and nobody decides by. A watch brings
    them; a LIST and our own writes do not (adapters/kube)."""
    if "managedFields" not in obj["metadata"]:
        return dict(obj)
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
