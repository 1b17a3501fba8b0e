"""What a URL anchor asks of whoever writes to it: a file with a line for each, read anew for every request, so that a
credential can be changed at any time.

::

    # the URI as in TRIPLANE_ANCHORS, then the value of the Authorization header (RFC 9110, section 11.6.2)
    https://keeper.example/checkpoints/prod Bearer eyJhbGciOi…
"""

import re
from pathlib import Path
from typing import Final

from triplane.errors import InvalidInput, Unavailable

FILE: Final = "anchor_authorization"
_VALUE = re.compile(r"[!-~]+ [!-~]+(?: [!-~]+)*")
"""A scheme and what it needs. Nothing that could end a header, or is not ASCII."""


def authorization(path: Path, uri: str) -> str | None:
    """The header's value for this anchor; None where the file, or a line for it, is not there. Raises ``Unavailable``
    for a file that cannot be read, ``InvalidInput`` for a line that is none; no message holds a credential."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read ({error.strerror}): give it to the operator's user") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8") from error
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        named, _, value = line.strip().partition(" ")
        if not named or named.startswith("#"):
            continue
        if _VALUE.fullmatch(value.strip()) is None:
            raise InvalidInput(f"{path}, line {number}: write the anchor's URI, a space, a scheme and its credential")
        if named == uri:
            found.append(value.strip())
    if len(found) > 1:
        raise InvalidInput(f"{path} has {len(found)} lines for {uri}: leave one")
    return found[0] if found else None
