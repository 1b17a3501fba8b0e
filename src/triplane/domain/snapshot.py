"""The frozen snapshot of a session: what took part, by digest, as far as it is known before the run.

The session continues (rework, retry) while the snapshot that would be frozen now still equals it; the host
adds what only it can measure (program, interpreter, sandbox) when the run starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.api.meta import Material, MaterialBasis
from triplane.audit.digest import digest_of_json


@dataclass(frozen=True, slots=True)
class Pinned:
    """An API object, or what a session gets of it, by digest."""

    role: str
    name: str
    uid: str | None
    generation: int | None
    """None: the digest is of something that no later generation changes."""
    digest: str
    """Of the spec, or of the part that is used."""


def freeze(
    pinned: Sequence[Pinned],
    *,
    model: str | None,
    inputs: Sequence[tuple[str, str]],
    order: Mapping[str, Any],
) -> tuple[Material, ...]:
    """The materials of a session: objects, declared model, inputs ``(name, digest)``, and the work order."""
    materials = [
        Material(
            role=item.role,
            name=item.name,
            uid=item.uid,
            generation=item.generation,
            digest=item.digest,
            basis=MaterialBasis.CONTENT,
        )
        for item in pinned
    ]
    if model is not None:
        materials.append(Material(role="model", name=model, basis=MaterialBasis.DECLARED))
    materials += [
        Material(role="input", name=name, digest=digest, basis=MaterialBasis.CONTENT) for name, digest in inputs
    ]
    materials.append(
        Material(role="task", name="work-order", digest=digest_of_json(order), basis=MaterialBasis.CONTENT)
    )
    return tuple(materials)


def snapshot_digest(materials: Sequence[Material]) -> str:
    """Digest of the JCS form of the materials, in their order."""
    return digest_of_json({"materials": [material.wire() for material in materials]})
