"""The ceiling of all authority, from the file that ``TRIPLANE_AUTHORITY`` names (docs/reference/authority.md)."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from triplane.api.authority import Authority, Grant
from triplane.domain.authority import BUILT_IN, Resolved, explicit, is_within, meet, normal, whole
from triplane.domain.warrant import Ceiling
from triplane.errors import InvalidInput

MAX_OCTETS = 256 * 1024


def read_ceiling(path: Path | None) -> Ceiling:
    """The ceiling of this file, read once; the built-in one without a file. What the file leaves out of a set is as in
    the built-in one. Raises ``InvalidInput`` when the file cannot be read, is no such document, or lets more be used
    than handed on."""
    if path is None:
        return Ceiling()
    declared = _declared(path)
    may_delegate = whole(declared.may_delegate, BUILT_IN.may_delegate)
    may_use = whole(declared.may_use, BUILT_IN.may_use)
    if (beyond := is_within(declared.may_use or Grant(), may_delegate)) != ():
        said = "; ".join(map(str, beyond))
        raise InvalidInput(f"{path}: mayUse must be within mayDelegate: {said}. Widen mayDelegate, or narrow mayUse")
    resolved = Resolved(meet(may_use, may_delegate), normal(may_delegate))
    return Ceiling(resolved, explicit(declared.may_use) | explicit(declared.may_delegate))


def _declared(path: Path) -> Authority:
    import yaml  # noqa: PLC0415 - a slow import that only this needs

    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
        if len(octets) > MAX_OCTETS:
            raise InvalidInput(f"{path} has more than {MAX_OCTETS} octets: TRIPLANE_AUTHORITY names another file")
        document: Any = yaml.safe_load(octets)
    except OSError as error:
        raise InvalidInput(f"{path}, which TRIPLANE_AUTHORITY names, cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} must hold a mapping with mayUse and mayDelegate (docs/reference/authority.md)")
    try:
        return Authority.model_validate(document)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise InvalidInput(f"{path}: {'; '.join(wrong[:5])}") from error
