"""Contract checks in this process: the gateway's own judgement without its workers."""

from collections.abc import Mapping
from typing import Any

from triplane.domain.contract import contract_problem
from triplane.ports import ContentStore


class InlineContracts:
    """``triplane.ports.Contracts``."""

    def __init__(self, content: ContentStore) -> None:
        self._content = content

    async def problem(self, digest: str, media_type: str, schema: Mapping[str, Any] | None) -> str | None:
        octets = b"".join([chunk async for chunk in self._content.resolve(digest)])
        return contract_problem(octets, media_type, schema)
