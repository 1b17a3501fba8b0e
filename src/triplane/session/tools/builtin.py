"""Tools the session host has itself: they start nothing and reach nothing."""

import base64
import os
import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from triplane.api.tool import BuiltinName
from triplane.audit.digest import digest_of_json
from triplane.session.beneath import NotBeneath, open_beneath
from triplane.session.tools.peer import Definition

_MAX_LENGTH: Final = 256 * 1024
_READ_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "Name of the input."},
        "path": {"type": "string", "description": "File within an input that is a folder."},
        "offset": {"type": "integer", "minimum": 0, "description": "First octet; 0 if absent."},
        "length": {"type": "integer", "minimum": 1, "maximum": _MAX_LENGTH, "description": "Octets; 65536 if absent."},
    },
}
_NOW_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"timezone": {"type": "string", "description": "IANA name such as Europe/Berlin; UTC if absent."}},
}
_NOTHING: Final[Mapping[str, Any]] = {"type": "object", "additionalProperties": False, "properties": {}}


class BuiltinFailed(Exception):
    """What the model did wrong."""


def definitions(name: BuiltinName) -> dict[str, Definition]:
    """The operations of a builtin."""
    match name:
        case BuiltinName.CLOCK:
            return _defined(("now", "The time now, in one time zone.", _NOW_SCHEMA))
        case BuiltinName.BLOBS:
            return _defined(
                ("list", "The run's inputs: name, type and digest.", _NOTHING),
                ("read", "A range of octets of an input: text, or base64 where it is none.", _READ_SCHEMA),
            )


class Builtins:
    """The builtins of one run. ``inputs`` is the work order's list, ``folder`` where they lie."""

    def __init__(self, inputs: Sequence[Mapping[str, Any]], folder: Path) -> None:
        self._inputs = {str(item["name"]): item for item in inputs}
        self._folder = folder

    def call(self, name: BuiltinName, operation: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Structured content of the result. Blocking. Raises ``BuiltinFailed``."""
        if name is BuiltinName.CLOCK:
            return _now(arguments.get("timezone") or "UTC")
        if operation == "list":
            return {
                "inputs": [
                    {"name": each, "type": item.get("type"), "digest": item.get("digest")}
                    for each, item in sorted(self._inputs.items())
                ]
            }
        return self._read(arguments)

    def _read(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        item = self._inputs.get(arguments["name"])
        if item is None:
            raise BuiltinFailed(f"no input of that name; there are: {', '.join(sorted(self._inputs)) or 'none'}")
        place = str(item["path"]).removeprefix("/work/inputs/")
        if arguments.get("path"):
            place = f"{place}/{arguments['path']}"
        offset, length = int(arguments.get("offset") or 0), int(arguments.get("length") or 65536)
        try:
            descriptor, status = open_beneath(self._folder, place)
        except NotBeneath as error:
            raise BuiltinFailed(str(error)) from error
        try:
            if stat.S_ISDIR(status.st_mode):
                listed = ", ".join(sorted(os.listdir(descriptor)))[:2000]
                raise BuiltinFailed(f"that is a folder: name a file in it by `path`; there are: {listed}")
            octets = os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)
        found: dict[str, Any] = {"offset": offset, "length": len(octets), "size": status.st_size}
        try:
            return {**found, "text": octets.decode("utf-8")}
        except UnicodeDecodeError:
            return {**found, "base64": base64.b64encode(octets).decode("ascii")}


def _now(zone: str) -> Mapping[str, Any]:
    try:
        found = UTC if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BuiltinFailed(f"no time zone of that name: {zone[:60]!r}") from error
    now = datetime.now(UTC).astimezone(found)
    return {"time": now.isoformat(timespec="seconds"), "timezone": zone, "unixSeconds": int(now.timestamp())}


def _defined(*each: tuple[str, str, Mapping[str, Any]]) -> dict[str, Definition]:
    return {
        name: Definition(
            name, text, schema, None, None, digest_of_json({"name": name, "description": text, "inputSchema": schema})
        )
        for name, text, schema in each
    }
