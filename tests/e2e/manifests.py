"""The manifests of docs/examples, made ready for an installation of the tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
Owned = tuple[str, dict[str, Any]]


def example(name: str, namespace: str, *, digest: str = "", suffix: str = "") -> Iterator[Owned]:
    """``(user, object)`` for every object of an example, file by file in the order of their names."""
    for path in sorted((EXAMPLES / name).glob("*/*.yaml")):
        text = path.read_text(encoding="utf-8").replace("${INPUT_DIGEST}", digest).replace("${SUFFIX}", suffix)
        for document in yaml.safe_load_all(text):
            document["metadata"]["namespace"] = namespace
            yield path.parent.name, document


def example_file(name: str, file: str, namespace: str) -> dict[str, Any]:
    """The object in a file beside an example's folders, which is not applied with them."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / name / file).read_text(encoding="utf-8"))
    document["metadata"]["namespace"] = namespace
    return document
