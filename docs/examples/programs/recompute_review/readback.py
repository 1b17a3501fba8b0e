"""Reads what a producer wrote back into pointers and values, so that every place can be compared.

A place that cannot be read, occurs twice, or has nothing to account for it is a fault:
(pointer, what is wrong).
"""

import json
import re
from xml.etree import ElementTree

from recompute import RANKS, Value, escaped

COLUMNS = {
    "Name": "name",
    "Version": "version",
    "Licence": "licence",
    "Family": "family",
    "Source": "source",
    "Files": "files",
    "Hashed": "hashed",
    "Unhashed": "unhashed",
    "Weak hashes": "weakHashes",
    "Bytes": "bytes",
    "Verified": "verified",
    "Altered": "altered",
    "Licence texts": "licenceTexts",
    "Installer": "installer",
    "Wheel": "wheel",
    "Tags": "tags",
    "Origin": "origin",
    "URL": "url",
}
BAR_PIXELS = 400
SVG = "{http://www.w3.org/2000/svg}"

Places = dict[str, Value]
Faults = list[tuple[str, str]]


def from_json(text: str) -> tuple[Places, Faults]:
    """audit.json: objects are walked, everything else is a value."""
    repeated: list[str] = []

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys = [key for key, _ in pairs]
        repeated.extend(key for key in keys if keys.count(key) > 1)
        return dict(pairs)

    places: Places = {}

    def walk(pointer: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{pointer}/{escaped(key)}", inner)
        else:
            places[pointer] = value  # type: ignore[assignment]

    try:
        walk("", json.loads(text, object_pairs_hook=once))
    except ValueError as problem:
        return {}, [("", f"is not JSON: {problem}")]
    return places, [("", f"has the key {key} twice") for key in sorted(set(repeated))]


def from_markdown(text: str, expected: Places) -> tuple[Places, Faults]:
    """report.md: the two tables, the Python version, and the sentences under *What stands out*."""
    places: Places = {}
    faults: Faults = []

    def put(pointer: str, cell: str) -> None:
        if pointer in places:
            faults.append((pointer, "appears more than once"))
        places[pointer] = as_value(cell, expected.get(pointer))

    header: list[str] = []
    for line in text.splitlines():
        cells = [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        python = re.fullmatch(r"Installed Python distributions .* \(Python (\S+)\)\..*", line)
        if not line.startswith("|"):
            header = []
        if python:
            put("/python", python.group(1))
        elif not line.startswith("|"):
            sentence = re.fullmatch(r"- (.+?):? ?([^ :,]+(?:, [^ ,]+)*)\.", line)
            if sentence:
                put("/remarks/" + escaped(sentence.group(1).rstrip(":")), sentence.group(2))
            elif re.search(r"\d", line):
                faults.append(("", f"has a figure outside the tables: {line[:80]}"))
        elif not header:
            header = cells
        elif set(line) <= set("|-: "):
            continue
        elif header == ["Figure", "Value"] and len(cells) == 2:
            put("/figures/" + "/".join(escaped(part) for part in cells[0].split("/", 1)), cells[1])
        elif header == list(COLUMNS) and len(cells) == len(COLUMNS):
            name = re.sub(r"[-_.]+", "-", cells[0]).lower()
            for title, cell in zip(header, cells, strict=True):
                put(f"/distributions/{escaped(name)}/{COLUMNS[title]}", cell)
        else:
            faults.append(("", f"has a table row that fits no table: {line[:80]}"))
    return places, faults


def as_value(cell: str, like: Value) -> Value:
    """The cell as the type that is expected there; a cell that does not read so stays text."""
    if isinstance(like, int) and re.fullmatch(r"0|[1-9][0-9]*", cell):
        return int(cell)
    if isinstance(like, list):
        return [] if cell == "-" else cell.split(" ")
    return like if cell == "-" and like in (None, "") else cell


def remarks(expected: Places) -> Places:
    """R11: the sentences the report must have, from the expected facts."""
    rows: dict[str, dict[str, Value]] = {}
    for pointer, value in expected.items():
        if pointer.startswith("/distributions/"):
            _, _, name, key = pointer.split("/")
            rows.setdefault(name.replace("~1", "/").replace("~0", "~"), {})[key] = value
    wanted = {
        "No licence is stated by": lambda row: row["source"] == "none",
        "A licence outside the rules' list is stated by": lambda row: row["family"] == RANKS[4],
        "Copyleft terms bind": lambda row: row["family"] == RANKS[3],
        "Weak copyleft terms bind": lambda row: row["family"] == RANKS[2],
        "No licence text came with": lambda row: not row["licenceTexts"],
        "Files without a hash in RECORD": lambda row: bool(row["unhashed"]),
        "Metadata differs from what RECORD promises": lambda row: bool(row["altered"]),
        "Not installed from an index": lambda row: row["url"] is not None,
    }
    named = {words: ", ".join(sorted(n for n, row in rows.items() if test(row))) for words, test in wanted.items()}
    return {"/remarks/" + escaped(words): names for words, names in named.items() if names}


def from_svg(text: str) -> tuple[Places, Faults]:
    """chart.svg: number, label and drawn length of every bar, and the total in the title line."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as problem:
        return {}, [("", f"is not XML: {problem}")]
    places: Places = {}
    faults: Faults = []
    widths: dict[str, float] = {}
    tops: list[str | None] = []
    for element in root:
        tag, words, ident = element.tag.removeprefix(SVG), (element.text or "").strip(), element.get("id", "")
        odd = set(element.keys()) - {"x", "y", "width", "height", "fill", "id", "text-anchor", "font-size"}
        if tag not in ("title", "text", "rect") or odd or len(element):
            faults.append(("", f"has something the review cannot account for: {tag} {' '.join(sorted(odd))}"))
        elif tag == "rect" and ident.startswith("bar-"):
            tops.append(element.get("y"))
            if (element.get("x"), element.get("height")) != ("140", "22"):
                faults.append(
                    ("/figures/families/" + ident[4:], "has a bar of another height or start than the others")
                )
            if ident[4:] in widths:
                faults.append(("/figures/families/" + ident[4:], "has two bars"))
            widths[ident[4:]] = float(element.get("width", "-1"))
        elif tag == "text" and ident.startswith("count-"):
            if f"/figures/families/{ident[6:]}" in places:
                faults.append((f"/figures/families/{ident[6:]}", "has two numbers"))
            places[f"/figures/families/{ident[6:]}"] = int(words) if words.isdecimal() else words
        elif tag == "text" and ident == "total":
            total = re.fullmatch(r"(\d+) distributions by licence family", words)
            places["/figures/distributions"] = int(total.group(1)) if total else words
        elif tag == "rect" or (tag == "text" and words not in RANKS) or (tag == "title" and re.search(r"\d", words)):
            faults.append(("", f"has something the review cannot account for: {tag} {words[:60]}"))
    if len(set(tops)) != len(tops):
        faults.append(("", "has bars drawn over each other"))
    return places, faults + [(f"/figures/families/{family}", w) for family, w in lengths(widths, places)]


def lengths(widths: dict[str, float], places: Places) -> list[tuple[str, str]]:
    """Bars whose drawn length is not their number's share of the largest."""
    numbers = {p.rsplit("/", 1)[1]: v for p, v in places.items() if p.startswith("/figures/families/")}
    counts = {family: number for family, number in numbers.items() if isinstance(number, int)}
    largest = max([*counts.values(), 1])
    wrong = []
    for family in sorted(set(counts) | set(widths)):
        right = BAR_PIXELS * counts.get(family, 0) / largest
        if family not in widths or abs(widths[family] - right) > 1:
            wrong.append((family, f"has a bar {widths.get(family, 0):g} long, its number asks for {right:.0f}"))
    return wrong
