"""The audit for people: a Markdown report and a bar chart, both made from the same document as audit.json."""

from typing import Any
from xml.sax.saxutils import escape

COLUMNS = (
    ("Name", "name"),
    ("Version", "version"),
    ("Licence", "licence"),
    ("Family", "family"),
    ("Source", "source"),
    ("Files", "files"),
    ("Hashed", "hashed"),
    ("Unhashed", "unhashed"),
    ("Weak hashes", "weakHashes"),
    ("Bytes", "bytes"),
    ("Verified", "verified"),
    ("Altered", "altered"),
    ("Licence texts", "licenceTexts"),
    ("Installer", "installer"),
    ("Wheel", "wheel"),
    ("Tags", "tags"),
    ("Origin", "origin"),
    ("URL", "url"),
)
BAR_PIXELS = 400
_COLOURS = {
    "public-domain": "#4c78a8",
    "permissive": "#54a24b",
    "weak-copyleft": "#eeca3b",
    "copyleft": "#e45756",
    "other": "#b279a2",
    "unknown": "#9d9da1",
}


def report(document: dict[str, Any]) -> str:
    """report.md: what stands out, every figure, and a table with every distribution."""
    lines = [
        "# Licence and provenance audit",
        "",
        f"Installed Python distributions of one environment (Python {document['python']}). "
        "How each figure is defined: RULES.md of the example.",
        "",
        "## What stands out",
        "",
        *(f"- {line}" for line in _remarks(document)),
        "",
        "## Figures",
        "",
        "| Figure | Value |",
        "|---|---:|",
        *(f"| {name} | {value} |" for name, value in flat(document["figures"])),
        "",
        "## Distributions",
        "",
        "| " + " | ".join(title for title, _ in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *(
            "| " + " | ".join(_cell(row[key]) for _, key in COLUMNS) + " |"
            for _, row in sorted(document["distributions"].items())
        ),
    ]
    return "\n".join(lines) + "\n"


def chart(document: dict[str, Any]) -> str:
    """chart.svg: one bar per licence family, as long as its share of the largest."""
    families = document["figures"]["families"]
    largest = max([*families.values(), 1])
    bars = []
    for index, (family, count) in enumerate(families.items()):
        top, width = 50 + 34 * index, round(BAR_PIXELS * count / largest)
        bars += [
            f'  <text x="130" y="{top + 16}" text-anchor="end">{escape(family)}</text>',
            f'  <rect id="bar-{escape(family)}" x="140" y="{top}" width="{width}" height="22" '
            f'fill="{_COLOURS.get(family, "#9d9da1")}"/>',
            f'  <text id="count-{escape(family)}" x="{148 + width}" y="{top + 16}">{count}</text>',
        ]
    height = 60 + 34 * len(families)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 {height}" '
            f'width="620" height="{height}" '
            'font-family="sans-serif" font-size="14">',
            "  <title>Distributions by licence family</title>",
            f'  <text id="total" x="20" y="30" font-size="17">{document["figures"]["distributions"]} '
            "distributions by licence family</text>",
            *bars,
            "</svg>\n",
        ]
    )


def flat(figures: dict[str, Any]) -> list[tuple[str, int]]:
    """Every figure as (path, value): ``families/permissive``."""
    out: list[tuple[str, int]] = []
    for name, value in figures.items():
        if isinstance(value, dict):
            out += [(f"{name}/{inner}", number) for inner, number in value.items()]
        else:
            out.append((name, value))
    return out


def _cell(value: Any) -> str:
    text = " ".join(value) if isinstance(value, list) else "-" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|") or "-"


def _remarks(document: dict[str, Any]) -> list[str]:
    """Sentences without figures of their own: what to look at in the table below."""
    rows = document["distributions"]
    groups = (
        ("No licence is stated by", lambda row: row["family"] == "unknown"),
        ("A licence outside the rules' list is stated by", lambda row: row["family"] == "other"),
        ("Copyleft terms bind", lambda row: row["family"] == "copyleft"),
        ("Weak copyleft terms bind", lambda row: row["family"] == "weak-copyleft"),
        ("No licence text came with", lambda row: row["licenceTexts"] == 0),
        ("Files without a hash in RECORD:", lambda row: row["unhashed"] > 0),
        ("Metadata differs from what RECORD promises:", lambda row: row["altered"] > 0),
        ("Not installed from an index:", lambda row: row["origin"] != "index"),
    )
    found = [(words, [name for name, row in rows.items() if test(row)]) for words, test in groups]
    return [f"{words} {', '.join(names)}." for words, names in found if names] or ["Nothing."]
