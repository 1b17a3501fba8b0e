"""String types shared by the kinds, with the limits and patterns the API server enforces.

Patterns are RE2 (the API server's dialect); they are also valid for pydantic's Rust regex.
"""

from typing import Annotated

from pydantic import Field

GROUP = "triplane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

REQUESTER = f"{GROUP}/requester"
"""Annotation stamped by admission: the authenticated username that created the object."""
REQUESTED_AT = f"{GROUP}/requestedAt"
"""Annotation a user sets to ask for a reconcile now; echoed in status."""

_INVISIBLE = r"\x{00AD}\x{061C}\x{180E}\x{200B}-\x{200F}\x{202A}-\x{202E}\x{2060}-\x{2069}\x{FEFF}"
PLAIN_TEXT = (
    rf"^[^\x{{0000}}-\x{{0008}}\x{{000B}}\x{{000C}}\x{{000E}}-\x{{001F}}\x{{007F}}-\x{{009F}}{_INVISIBLE}]*$"
)
"""No control characters other than tab and newlines, nothing invisible and nothing bidirectional."""
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
RELATIVE_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
"""Slash-separated, no leading dot in any segment: neither absolute nor ``..`` nor percent-encoded."""
MEDIA_TYPE = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$"

Line = Annotated[str, Field(max_length=256, pattern=PLAIN_TEXT)]
"""One short line for people."""
Prose = Annotated[str, Field(max_length=32768, pattern=PLAIN_TEXT)]
"""Text for people or agents, Markdown allowed."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
LocalName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
Uid = Annotated[str, Field(min_length=1, max_length=128)]
Digest = Annotated[str, Field(pattern=DIGEST, max_length=71)]
RelativePath = Annotated[str, Field(min_length=1, max_length=255, pattern=RELATIVE_PATH)]
MediaType = Annotated[str, Field(max_length=127, pattern=MEDIA_TYPE)]
UserName = Annotated[str, Field(min_length=1, max_length=253, pattern=PLAIN_TEXT)]
