"""A client of the session host's tools in the standard library: enough of MCP to list and to call."""

import json
import os
import urllib.request


class Refused(Exception):
    """The tool failed, or the call may not be made; the text says which rule, and who can change it."""


def ask(method, params):
    """The result of one request. Waits as long as it takes: a person may have to give leave."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    request = urllib.request.Request(os.environ["TRIPLANE_MCP_URL"], body, headers)
    with urllib.request.urlopen(request) as answer:
        octets = answer.read()
        if answer.headers.get_content_type() == "text/event-stream":
            octets = next(line[6:] for line in octets.splitlines() if line.startswith(b"data: "))
    message = json.loads(octets)
    if "error" in message:
        raise Refused(message["error"]["message"])
    return message["result"]


def offered():
    """Names of the operations that may be called."""
    return [tool["name"] for tool in ask("tools/list", {})["tools"]]


def call(name, **arguments):
    """The text an operation answers with. Raises ``Refused``."""
    result = ask("tools/call", {"name": name, "arguments": arguments})
    text = "\n".join(item["text"] for item in result["content"] if item["type"] == "text")
    if result.get("isError"):
        raise Refused(text)
    return text
