"""A ConfigMap as anchor: in etcd, which whoever owns the database need not own. Written at most once a minute."""

from typing import Final

from triplane.errors import InvalidInput
from triplane.ports.cluster import ConfigMaps

KEY: Final = "checkpoint"
EVERY_SECONDS: Final = 60.0
"""A write of etcd for each checkpoint would be a load of its own (docs/reference/enforcement.md counts writes)."""


class ConfigMapAnchor:
    """The latest checkpoint under one key of one ConfigMap."""

    kind = "configmap"
    every_seconds = EVERY_SECONDS
    readable = True

    def __init__(self, config_maps: ConfigMaps, namespace: str, name: str) -> None:
        self._config_maps = config_maps
        self._namespace = namespace
        self._name = name
        self.uri = f"configmap:{namespace}/{name}"

    async def read(self) -> bytes | None:
        """See ``Anchor.read``."""
        data = await self._config_maps.read_config_map(self._namespace, self._name)
        text = (data or {}).get(KEY)
        if text is not None and not isinstance(text, str):
            raise InvalidInput(f"{self.uri}: {KEY} is no text")
        return text.encode() if text else None

    async def write(self, note: bytes) -> None:
        """See ``Anchor.write``."""
        await self._config_maps.write_config_map(self._namespace, self._name, {KEY: note.decode()})

    async def close(self) -> None:
        """The client belongs to the caller."""
