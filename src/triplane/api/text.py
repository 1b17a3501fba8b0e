"""String types shared by the kinds, with the limits and patterns the API server enforces.

Patterns are RE2 (the API server's dialect); they are also valid for pydantic's Rust regex.
"""

import re
from typing import Annotated

from pydantic import Field

GROUP = "triplane.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
SYSTEM_NAMESPACE = "triplane-system"
"""Of the installation: its Policies and Guidelines are for all namespaces."""

REQUESTER = f"{GROUP}/requester"
"""Annotation stamped by admission: the authenticated username that created the object."""
REQUESTED_AT = f"{GROUP}/requestedAt"
"""Annotation a user sets to ask for a reconcile now; echoed in status."""

_INVISIBLE = (
    r"\x{00AD}\x{034F}\x{061C}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{200B}-\x{200F}\x{2028}-\x{202E}"
    r"\x{2060}-\x{206F}\x{3164}\x{FEFF}\x{FFA0}\x{FFF9}-\x{FFFB}\x{E0000}-\x{E0FFF}"
)
"""Soft hyphen, joiners and fillers, line separators, bidirectional controls, annotations, tags: text that a
reader does not see and a model does (Unicode ``Default_Ignorable_Code_Point``, less the emoji selectors)."""
PLAIN_TEXT = rf"^[^\x{{0000}}-\x{{0008}}\x{{000B}}\x{{000C}}\x{{000E}}-\x{{001F}}\x{{007F}}-\x{{009F}}{_INVISIBLE}]*$"
"""No control characters other than tab and newlines, nothing invisible and nothing bidirectional."""
PLAIN_LINE = rf"^[^\x{{0000}}-\x{{001F}}\x{{007F}}-\x{{009F}}{_INVISIBLE}]*$"
"""As PLAIN_TEXT, and on one line: no tab, no newline."""
PLAIN_POINTER = rf"^(/([^~/\x{{0000}}-\x{{001F}}\x{{007F}}-\x{{009F}}{_INVISIBLE}]|~[01])*)*$"
"""A JSON Pointer (RFC 6901, section 3) without characters a reader does not see."""
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
CAPABILITY_REF = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(@[1-9][0-9]{0,5})?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
RELATIVE_PATH = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
"""Slash-separated, no leading dot in any segment: neither absolute nor ``..`` nor percent-encoded."""
MEDIA_TYPE = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$"

_SPACING = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_CODES = re.sub(r"\\x\{([0-9A-F]+)\}", lambda code: f"\\U{int(code[1], 16):08x}", PLAIN_LINE[3:-3])
_UNSEEN = re.compile(rf"[{_CODES}\ud800-\udfff]")


def plain_line(text: str) -> str:
    """The text as a ``Line`` can hold it, for text that is not ours to refuse (a harness wrote it).

    Line breaks and tabs become one space, whatever else PLAIN_LINE refuses, lone surrogates
    included, becomes U+FFFD: visible, never dropped.
    Never longer than it was; idempotent.
    """
    return _UNSEEN.sub("\ufffd", _SPACING.sub(" ", text))


Line = Annotated[str, Field(max_length=256, pattern=PLAIN_LINE)]
"""One short line for people."""
Prose = Annotated[str, Field(max_length=32768, pattern=PLAIN_TEXT)]
"""Text for people or agents, Markdown allowed."""
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
LocalName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
Uid = Annotated[str, Field(min_length=1, max_length=128)]
Digest = Annotated[str, Field(pattern=DIGEST, max_length=71)]
RelativePath = Annotated[str, Field(min_length=1, max_length=255, pattern=RELATIVE_PATH)]
MediaType = Annotated[str, Field(max_length=127, pattern=MEDIA_TYPE)]
UserName = Annotated[str, Field(min_length=1, max_length=253, pattern=PLAIN_LINE)]
