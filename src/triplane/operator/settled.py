"""Which objects need no look at all: so that a thousand finished Tasks cost nothing at start and in a resync."""

from collections.abc import Callable, Mapping
from typing import Any

from triplane.api.text import REQUESTED_AT
from triplane.operator.dependents import finished
from triplane.operator.index import Index

Object = Mapping[str, Any]


def settled(index: Index, obj: Object, has_seen: Callable[[Object], bool], *, starting: bool) -> bool:
    """Whether a reconcile of ``obj`` would surely change nothing: it is decided for good, its generation is logged
    and kept (``has_seen``), and its status speaks of that generation and of the last request to look.

    ``starting``: nothing is scheduled yet, so what is to be deleted some time (``ttlSecondsAfterFinished``) must be
    looked at once.
    """
    if not has_seen(obj):
        return False
    spec = obj.get("spec") or {}
    if obj["kind"] in ("AgentSession", "Review"):
        task = index.by_uid((spec.get("taskRef") or {}).get("uid", ""))
        if task is not None and not finished(task):
            return False  # it may have given the session another run since that one ended
        if obj["kind"] == "Review":
            return True  # it changes nothing itself: its Task decides
    if starting and spec.get("ttlSecondsAfterFinished") is not None:
        return False
    return finished(obj) and _up_to_date(obj)


def _up_to_date(obj: Object) -> bool:
    metadata, status = obj["metadata"], obj.get("status") or {}
    if status.get("observedGeneration") != metadata.get("generation", 1):
        return False
    asked = (metadata.get("annotations") or {}).get(REQUESTED_AT)
    return not asked or obj["kind"] == "Artifact" or status.get("requestedAt") == str(asked)[:64]
