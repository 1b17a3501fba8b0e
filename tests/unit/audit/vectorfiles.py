"""Reads the test vectors of others (vectors/README.md)."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vectors"
REPOSITORY = Path(__file__).parents[3]


def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
