"""Which accounts belong to one person, from the file that ``TRIPLANE_ACCOUNTS`` names."""

from pathlib import Path
from typing import Any

from triplane.domain.accounts import Accounts, Owned
from triplane.errors import InvalidInput

MAX_OCTETS = 1024 * 1024
FORM = "a list of {accounts: NAME OR PATTERN, person: NAME}"


def read_accounts(path: Path | None) -> Accounts:
    """The accounts of this file, read once; without a file every account is its own person. Raises ``InvalidInput``
    when it cannot be read or is not such a list."""
    if path is None:
        return Accounts()
    document = _document(path)
    if not isinstance(document, list):
        raise InvalidInput(f"{path} must hold {FORM}")
    return Accounts(tuple(_owned(path, number, item) for number, item in enumerate(document, 1)))


def _owned(path: Path, number: int, item: Any) -> Owned:
    if not isinstance(item, dict) or set(item) != {"accounts", "person"}:
        raise InvalidInput(f"{path}: entry {number} is not {{accounts: …, person: …}}; the file holds {FORM}")
    if not all(isinstance(value, str) and value for value in item.values()):
        raise InvalidInput(f"{path}: entry {number} must name both as text")
    return Owned(item["accounts"], item["person"])


def _document(path: Path) -> Any:
    import yaml  # noqa: PLC0415 - a slow import that only this needs

    try:
        with path.open("rb") as file:
            octets = file.read(MAX_OCTETS + 1)
        if len(octets) > MAX_OCTETS:
            raise InvalidInput(f"{path} has more than {MAX_OCTETS} octets: TRIPLANE_ACCOUNTS names another file")
        return yaml.safe_load(octets)
    except OSError as error:
        raise InvalidInput(f"{path}, which TRIPLANE_ACCOUNTS names, cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not YAML: {error}") from error
