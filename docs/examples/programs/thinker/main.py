"""An agent that thinks about every number before it adds it, which costs: ``TOKENS`` of them, and ``SECONDS``.

It reports what it has used as it goes on, as the protocol asks; nothing in it minds its budget. With ``HELPERS`` it
lets processes of its own do the waiting, which ignore every signal they may.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def say(kind: str, /, **fields: Any) -> None:
    print(json.dumps({"type": kind, **fields}), flush=True)


def leave_it_to_helpers(count: int) -> None:
    """Each goes on for an hour, unless somebody who can is there to end it."""
    for _ in range(count):
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(3600)
            os._exit(0)


def main() -> int:
    order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text(encoding="utf-8"))
    tokens, seconds = int(os.environ.get("TOKENS", "0")), float(os.environ.get("SECONDS", "0"))
    leave_it_to_helpers(int(os.environ.get("HELPERS", "0")))
    total = used = 0
    numbers = [int(word) for entry in order["inputs"] for word in Path(entry["path"]).read_text("utf-8").split()]
    for number in numbers:
        say("progress", message=f"thinking about {number}")
        time.sleep(seconds)
        total, used = total + number, used + tokens
        say("usage", inputTokens=used)
    for output in order["outputs"]:
        Path(output["path"]).write_text(f"{total}\n", encoding="utf-8")
    say("reflection", wentWell=[f"{len(numbers)} numbers added for {used} tokens"], wentBadly=[], confidence=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
