"""The process in which contracts are checked, so that a hostile schema can be killed.

Standard input: for each output one line of JSON ``{mediaType, schema, size}`` and then ``size`` octets.
Standard output: one line ``{problem, reason}`` each. Ends at the end of input.
"""

import math
import resource
import sys
import time
from typing import Any, Final

import orjson

from triplane.domain.contract import contract_problem, secret_problem

MEMORY_OCTETS: Final = 2 << 30
CPU_SECONDS: Final = 60
"""For one output; SIGXCPU ends the process."""


def verdict_on(content: bytes, media_type: str, schema: dict[str, Any] | None) -> dict[str, str | None]:
    """What is wrong with an output, and the reason word for it."""
    if (problem := contract_problem(content, media_type, schema)) is not None:
        return {"problem": problem, "reason": "ContractNotMet"}
    return {"problem": secret_problem(content, media_type), "reason": "SecretInOutput"}


def main() -> None:
    """Check until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_OCTETS, MEMORY_OCTETS))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        spent = math.ceil(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        order = orjson.loads(line)
        content = source.read(order["size"])
        sink.write(orjson.dumps(verdict_on(content, order["mediaType"], order["schema"])) + b"\n")
        sink.flush()


if __name__ == "__main__":
    main()
