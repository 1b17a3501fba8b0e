"""``python -m triplane.session.tools.checker``: one line in, ``{schema, arguments}``; one line out, ``{problem}``.

It ends with its standard input, and is killed when a check takes too long (``checking``).
"""

import json
import resource
import sys

from triplane.session.tools.checking import problem_here

_MEMORY = 512 * 1024 * 1024


def main() -> None:
    """Answer until the input ends."""
    import triplane.domain.contract  # noqa: F401, PLC0415 - before it says that it stands

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        print(json.dumps({"problem": problem_here(asked["schema"], asked["arguments"])}), flush=True)


if __name__ == "__main__":
    main()
