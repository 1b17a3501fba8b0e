"""Secrets a run was given: their values live in memory and in the environment of what got them, nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SecretValue:
    """One secret of a run."""

    name: str
    key: str
    env: str
    """Empty: it is sent, as a bearer token is, and stands in no environment."""
    value: str = field(repr=False)
    uid: str
    resource_version: str

    def told(self) -> dict[str, str]:
        """What may be written down of it."""
        return {
            "name": self.name,
            "key": self.key,
            **({"env": self.env} if self.env else {}),
            "uid": self.uid,
            "resourceVersion": self.resource_version,
        }


@dataclass(frozen=True, slots=True)
class GivenSecrets:
    """What the gateway gave: to the harness, and to each Tool by name."""

    harness: tuple[SecretValue, ...] = ()
    tools: Mapping[str, tuple[SecretValue, ...]] = field(default_factory=dict)

    def values(self) -> tuple[str, ...]:
        """All of the values, to be kept out of everything that is stored."""
        return tuple(item.value for item in (*self.harness, *(one for many in self.tools.values() for one in many)))


def read_given(body: Mapping[str, Any]) -> GivenSecrets:
    """The gateway's answer."""
    return GivenSecrets(
        _secret_values(body.get("secrets") or ()),
        {str(tool): _secret_values(items) for tool, items in (body.get("tools") or {}).items()},
    )


def _secret_values(items: Sequence[Mapping[str, Any]]) -> tuple[SecretValue, ...]:
    return tuple(
        SecretValue(
            str(item["name"]),
            str(item["key"]),
            str(item.get("env", "")),
            str(item["value"]),
            str(item["uid"]),
            str(item["resourceVersion"]),
        )
        for item in items
    )
