"""Packages of others, installed as pip does it: a module beside its metadata on the path."""

from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "sqlite-blobs" / "sqlite_blobs.py"


def install(site: Path, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    """``entry_points``: group to name to value. The folder, to be put on the path."""
    site.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text(source)
    metadata = site / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    sections = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in entry_points.items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(sections))
    return site
