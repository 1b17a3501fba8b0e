"""Finding processes of the machine by a word in their command line."""

import asyncio
from pathlib import Path


def running(word: str) -> list[int]:
    """Process ids whose command line contains the word."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if word.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


async def until(condition, seconds: float = 20.0):  # type: ignore[no-untyped-def]
    """The condition's value once it is true; fails after ``seconds``."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := condition()):
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return value
