"""CONNECT requests (RFC 9110, section 9.3.6): read strictly, and refused in words that reach a model.

The request line alone names the target; no header is believed but the one that shows the word of an unisolated run.
"""

import asyncio
import base64
import contextlib
import hmac
from collections.abc import Sequence

from triplane.domain.egress import Target, parse_target
from triplane.errors import InvalidInput

_REASONS = {400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 407: "Proxy Authentication Required"}
_REASONS |= {429: "Too Many Requests", 431: "Request Header Fields Too Large", 502: "Bad Gateway"}
_CHUNK = 64 * 1024
_LINGER_SECONDS = 2.0


class Refused(Exception):
    """The request is answered with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_head(reader: asyncio.StreamReader, *, octets: int, seconds: float) -> list[str]:
    """The lines of a request's head, the empty one left out. Raises ``Refused``; ``asyncio.IncompleteReadError`` when
    the other side hangs up first."""
    try:
        async with asyncio.timeout(seconds):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(431, f"the request's head has more than {octets} octets") from None
    except TimeoutError:
        raise Refused(400, f"no request came within {seconds:g} s") from None
    lines = head[:-4].decode("latin-1").split("\r\n")
    if any(not line or not line.replace("\t", " ").isprintable() for line in lines):
        raise Refused(400, "the request's head holds control characters or empty lines")
    return lines


def requested(head: Sequence[str], word: str | None) -> Target:
    """What a CONNECT asks for. Raises ``Refused`` for anything else, and where ``word`` is wanted and not shown."""
    words = head[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(400, "this is an HTTP/1.1 proxy: send CONNECT host:port HTTP/1.1")
    if words[0] != "CONNECT":
        raise Refused(
            405,
            f"{words[0][:20]} is not served: this proxy makes tunnels only. Use https:// addresses, so that your "
            "client sends CONNECT host:port; plain http:// is not allowed out of this session",
        )
    if word is not None and not _shows(head[1:], word):
        raise Refused(407, "show the user and password of HTTPS_PROXY: this proxy serves one session alone")
    try:
        return parse_target(words[1])
    except InvalidInput as error:
        raise Refused(400, f"egress refused: {error}") from error


def _shows(headers: Sequence[str], word: str) -> bool:
    wanted = base64.b64encode(f"run:{word}".encode())
    for header in headers:
        name, _, value = header.partition(":")
        scheme, _, shown = value.strip().partition(" ")
        if (name.strip().lower(), scheme.lower()) != ("proxy-authorization", "basic"):
            continue
        if hmac.compare_digest(shown.strip().encode("latin-1"), wanted):
            return True
    return False


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, text: str) -> None:
    """A refusal. Its text is in the reason phrase too: clients hide the body of what is no tunnel, and show that."""
    octets = (text + "\n").encode()
    shown = " ".join(text.encode("ascii", "replace").decode().split())[:1000]
    authenticate = 'Proxy-Authenticate: Basic realm="triplane"\r\n' if status == 407 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}: {shown}\r\nContent-Type: text/plain; charset=utf-8\r\n{authenticate}"
        f"Content-Length: {len(octets)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("ascii") + octets)
    writer.write_eof()
    # What it sent meanwhile is read away: closing on unread octets would reset the connection, answer and all.
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            await writer.drain()
            while await reader.read(_CHUNK):
                pass
