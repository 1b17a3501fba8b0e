"""The certificate the webhook serves with, taken up again whenever its files change."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog

LOOK_SECONDS: Final = 1.0
"""How soon a renewed certificate is served to new connections; whoever renews waits longer than this."""
_log = structlog.get_logger()


async def take_up_renewed(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """New connections are served with the files as they are now; a pair that is half replaced waits for its other
    half, and until then what was served before is."""
    known = _changed(certificate, key)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if (now := _changed(certificate, key)) == known:
            continue
        try:
            # Tried apart: a pair that does not fit would leave the context in use without any key.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            _log.warning("the new certificate cannot be used yet", error=str(error))
        else:
            known = now
            _log.info("a renewed certificate is in use")


def _changed(*paths: Path) -> tuple[int, ...]:
    try:
        return tuple(path.stat().st_mtime_ns for path in paths)
    except OSError:
        return ()
