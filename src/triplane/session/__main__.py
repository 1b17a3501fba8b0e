"""``python -m triplane.session``: a runner process.

SIGTERM and SIGINT kill its sandboxes and end it; their runs are lost, and retried as their Tasks allow.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from triplane.logging import configure_logging
from triplane.session.runner import RunnerConfig, run
from triplane.settings import Settings


def config_of(settings: Settings) -> RunnerConfig:
    """The runner's part of the settings. Address and token are looked up anew whenever they are needed."""
    return RunnerConfig(
        runner=settings.runner,
        slots=settings.runner_slots,
        sessions=settings.run / "sessions",
        programs=settings.programs,
        allow_unisolated=settings.allow_unisolated,
        shared=settings.shared,
        url=lambda: settings.gateway_url or _endpoint(settings.run / "endpoints.json"),
        token=lambda: (
            settings.token.get_secret_value()
            if settings.token is not None
            else _text(settings.secrets / "token_runner")
        ),
    )


def main() -> int:
    """Run until told to stop. Exit codes: 0 stopped, 2 unusable settings."""
    try:
        settings = Settings()
    except ValidationError as error:
        sys.stderr.write(f"settings: {error}\n")
        return 2
    configure_logging(settings.log_level)
    for name in [name for name in os.environ if name.startswith("TRIPLANE_")]:
        del os.environ[name]  # what is said to the runner is not said again to anything it starts
    asyncio.run(_until_stopped(config_of(settings)))
    return 0


async def _until_stopped(config: RunnerConfig) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run(config)


def _endpoint(file: Path) -> str | None:
    try:
        return str(json.loads(file.read_text())["gateway"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
