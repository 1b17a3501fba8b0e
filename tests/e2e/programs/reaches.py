"""Tells what it can reach of what its arguments name, and writes it down; judges nothing. Standard library only."""

import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit


def through_proxy(target: str) -> str:
    """What is said to a CONNECT, and what comes through."""
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as out:
        out.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        said = b""
        while chunk := out.recv(65536):
            said += chunk
    return said.decode()


order = json.loads(Path(os.environ["TRIPLANE_WORK_ORDER"]).read_text())
shared = Path(os.environ["TRIPLANE_SHARED"])
token = os.environ["GITHUB_TOKEN"]
print("the token is", token, flush=True)
found = {
    "targets": {target: through_proxy(target) for target in sys.argv[1:]},
    "token": hashlib.sha256(token.encode()).hexdigest(),
    "notes": (shared / "notes" / "today.txt").read_text(),
    "shared": sorted(str(path.relative_to(shared)) for path in shared.rglob("*")),
}
(shared / "drop" / "left.txt").write_text("left by a run")
for output in order["outputs"]:
    Path(output["path"]).write_text(json.dumps(found))
print(json.dumps({"type": "reflection", "wentWell": ["reached what was granted"], "wentBadly": []}), flush=True)
