"""Whose a blob is. A digest is a name, not a right: what may be used in a namespace was put there by somebody."""

from triplane.audit.digest import parse_digest
from triplane.errors import InvalidInput


def check_blob_owner(namespace: str, digest: str) -> None:
    """Refuse to note what could never be asked for. Raises ``InvalidInput``, ``InvalidDigest``."""
    parse_digest(digest)
    if not namespace:
        raise InvalidInput(f"{digest} was put in no namespace: there is nothing to note; name the namespace")


def how_to_put(namespace: str) -> str:
    """What to do about a blob that does not belong to the namespace, for messages."""
    return f"put it there with `triplane blob put -n {namespace}`"
