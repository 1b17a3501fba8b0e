"""Works every figure out again from the raw inputs, by other means than any producer.

Headers are read line by line, RECORD by one regular expression, licence expressions by rewriting the text
until one rank is left. Nothing is shared with the programs that are reviewed but the written rules
(RULES.md, R1 to R10). The result is flat: JSON Pointer to value.
"""

import base64
import hashlib
import json
import re
from pathlib import Path

RANKS = ["public-domain", "permissive", "weak-copyleft", "copyleft", "other", "unknown"]
LISTED = [
    r"Unlicense|CC0-1\.0",
    r"MIT(-0)?|Apache-2\.0|BSD|BSD-[23]-Clause|0BSD|ISC|PSF-2\.0|Python-2\.0|Zlib|HPND|BSL-1\.0|PostgreSQL|Unicode-3\.0"
    r"|X11|NCSA|BlueOak-1\.0\.0|CC-BY-4\.0|OFL-1\.1|ZPL-2\.1",
    r"MPL-(1\.1|2\.0)|LGPL|LGPL-(2\.0|2\.1|3\.0)-(only|or-later)|EPL-[12]\.0|CDDL-1\.0",
    r"GPL|GPL-[23]\.0-(only|or-later)|AGPL-3\.0-(only|or-later)|EUPL-1\.2",
]
SPELLINGS = """
MIT: mit license; the mit license; the mit license (mit); mit license (mit); expat
MIT-0: mit no attribution license (mit-0)
Apache-2.0: apache; apache 2; apache 2.0; apache license; apache license 2.0; apache license, version 2.0;
    apache license version 2.0; apache software license; apache software license 2.0
BSD: bsd license
BSD-2-Clause: bsd 2-clause license; bsd 2-clause; simplified bsd
BSD-3-Clause: bsd 3-clause license; bsd 3-clause; 3-clause bsd license; new bsd license; new bsd;
    modified bsd license
ISC: isc license; isc license (iscl)
PSF-2.0: python software foundation license; psf license; psf; psfl
Zlib: zlib/libpng license
ZPL-2.1: zope public license
HPND: historical permission notice and disclaimer (hpnd)
BSL-1.0: boost software license 1.0 (bsl-1.0)
MPL-2.0: mozilla public license 2.0 (mpl 2.0); mpl 2.0; mpl2
EPL-2.0: eclipse public license 2.0 (epl-2.0)
LGPL: gnu library or lesser general public license (lgpl)
LGPL-2.0-only: gnu lesser general public license v2 (lgplv2)
LGPL-2.0-or-later: gnu lesser general public license v2 or later (lgplv2+)
LGPL-3.0-only: gnu lesser general public license v3 (lgplv3)
LGPL-3.0-or-later: gnu lesser general public license v3 or later (lgplv3+)
GPL: gnu general public license (gpl)
GPL-2.0-only: gnu general public license v2 (gplv2)
GPL-2.0-or-later: gnu general public license v2 or later (gplv2+)
GPL-3.0-only: gnu general public license v3 (gplv3)
GPL-3.0-or-later: gnu general public license v3 or later (gplv3+)
AGPL-3.0-only: gnu affero general public license v3
AGPL-3.0-or-later: gnu affero general public license v3 or later (agplv3+)
Unlicense: the unlicense (unlicense); unlicense
CC0-1.0: public domain; cc0 1.0 universal (cc0 1.0) public domain dedication
"""
GROUPS = {
    "families": "family",
    "sources": "source",
    "installers": "installer",
    "wheels": "wheel",
    "origins": "origin",
}
RECORD_LINE = re.compile(r'^("(?:[^"]|"")*"|[^",\n][^,\n]*),([^,\n]*),([^,\n]*)$', re.MULTILINE)

Value = str | int | list[str] | None


def expected(folder: Path) -> dict[str, Value]:
    """Pointer to value for everything an audit of this folder must say."""
    collected = json.loads(read(folder / "collected.json"))
    facts: dict[str, dict[str, Value]] = {}
    for entry in folder.iterdir():
        if entry.name.endswith(".dist-info"):
            fact = distribution(entry)
            facts[re.sub(r"[-_.]+", "-", str(fact["name"])).lower()] = fact
    flat: dict[str, Value] = {
        "/version": 1,
        "/python": collected["python"],
        "/figures/collected": collected["distributions"],
        "/figures/distributions": len(facts),
        "/figures/notAudited": len(collected["skipped"]),
        "/figures/withoutLicenceText": 0,
        **{
            f"/figures/{name}": 0
            for name in ("files", "hashed", "unhashed", "weakHashes", "bytes", "verified", "altered")
        },
        **{f"/figures/families/{family}": 0 for family in RANKS},
    }
    for name, fact in facts.items():
        for key, value in fact.items():
            flat[f"/distributions/{escaped(name)}/{key}"] = value
        for key in ("files", "hashed", "unhashed", "weakHashes", "bytes", "verified", "altered"):
            add(flat, f"/figures/{key}", int(str(fact[key])))
        add(flat, "/figures/withoutLicenceText", 0 if fact["licenceTexts"] else 1)
        for group, key in GROUPS.items():
            add(flat, f"/figures/{group}/{escaped(str(fact[key]))}", 1)
    return flat


def distribution(folder: Path) -> dict[str, Value]:
    """What the rules say of one distribution."""
    metadata, wheel = fields(folder / "METADATA"), fields(folder / "WHEEL")
    licence, source = statement(metadata)
    installer = re.search(r"\S+", read(folder / "INSTALLER"))
    tags = {text.strip() for key, text in wheel if key == "tag"}
    pure = first(wheel, "root-is-purelib").lower() == "true"
    texts = [
        path
        for path in folder.glob("**/*")
        if path.is_file()
        and (
            path.relative_to(folder).parts[0] == "licenses"
            or (path.parent == folder and path.name.lower().startswith(("license", "licence", "copying", "notice")))
        )
    ]
    return {
        "name": first(metadata, "name") or folder.name.rsplit("-", 1)[0],
        "version": first(metadata, "version"),
        "licence": licence,
        "family": "unknown" if source == "none" else family(licence),
        "source": source,
        **promises(folder),
        "licenceTexts": len(texts),
        "installer": installer.group() if installer else "unknown",
        "wheel": ("pure" if pure else "platform") if wheel else "none",
        "tags": sorted(tags),
        **origin(read(folder / "direct_url.json")),
    }


def fields(path: Path) -> list[tuple[str, str]]:
    """Header fields in order, names in lower case, continuation lines kept with their line ends."""
    found: list[tuple[str, str]] = []
    for line in re.split(r"\r\n|\r|\n", read(path)):
        head = re.match(r"([!-9;-~]*):(.*)", line)
        if line[:1] in (" ", "\t") and found:
            found[-1] = (found[-1][0], found[-1][1] + "\n" + line)
        elif head:
            found.append((head.group(1).lower(), head.group(2)))
        else:
            break
    return found


def first(found: list[tuple[str, str]], name: str) -> str:
    return next((text.strip() for key, text in found if key == name), "")


def statement(metadata: list[tuple[str, str]]) -> tuple[str, str]:
    """R3 and R4: the licence as stated, in SPDX words where the rules list the spelling."""
    expression = first(metadata, "license-expression")
    if expression:
        return re.sub(r"\s+", " ", expression), "License-Expression"
    text = first(metadata, "license")
    if 0 < len(text) <= 100 and "\n" not in text and text.upper() != "UNKNOWN":
        return spdx(text), "License"
    said = {
        spdx(text.split("::")[-1])
        for key, text in metadata
        if key == "classifier"
        and re.match(r"\s*License\s*::", text)
        and not re.search(r"::\s*(OSI|DFSG) [Aa]pproved\s*$", text)
    }
    return (" OR ".join(sorted(said)), "Classifier") if said else ("unknown", "none")


def spdx(text: str) -> str:
    text = re.sub(r"\s+", " ", text.strip())
    for identifier, spellings in re.findall(r"^(\S+): ((?:.|\n )+)", SPELLINGS, re.MULTILINE):
        if text.lower() in [spelling.strip() for spelling in spellings.split(";")]:
            return str(identifier)
    return text


def family(licence: str) -> str:
    """R5: rewrite the expression until a single rank is left; what does not reduce is `other`."""
    signs = {"AND": "&", "OR": "|", "WITH": "?"}
    text = re.sub(r"([^\s()]+)\s+WITH\s+[^\s()]+", r"\1", licence, flags=re.IGNORECASE)
    text = re.sub(r"[^\s()]+", lambda word: signs.get(word.group().upper()) or rank(word.group()), text)
    text = re.sub(r"\s*([()&|?])\s*", r"\1", text.strip())
    before = ""
    while text != before:
        before = text
        text = re.sub(r"\((#\d)\)", r"\1", text)
        text = re.sub(r"(#\d)&(#\d)", lambda pair: max(pair.groups()), text)
        text = re.sub(r"(?<!&)(#\d)\|(#\d)(?!&)", lambda pair: min(pair.groups()), text)
    return RANKS[int(text[1])] if re.fullmatch(r"#\d", text) else "other"


def rank(identifier: str) -> str:
    for index, pattern in enumerate(LISTED):
        if re.fullmatch(pattern, identifier, re.IGNORECASE):
            return f"#{index}"
    return "#4"


def promises(folder: Path) -> dict[str, Value]:
    """R7 and R8: what RECORD lists, and whether the copies still are what it lists."""
    lines = RECORD_LINE.findall(read(folder / "RECORD").replace("\r\n", "\n"))
    rows = [
        (path[1:-1].replace('""', '"') if path.startswith('"') else path, digest, size) for path, digest, size in lines
    ]
    with_hash = [row for row in rows if row[1]]
    held = {
        f"{folder.name}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()
    }
    checked = [
        hashlib.sha256(held[path].read_bytes()).digest() == unpadded(digest[len("sha256=") :])
        for path, digest, _ in with_hash
        if digest.startswith("sha256=") and path in held
    ]
    return {
        "files": len(rows),
        "hashed": len(with_hash),
        "unhashed": len(
            [p for p, digest, _ in rows if not digest and not re.search(r"(\.pyc|\.dist-info/RECORD)$", p)]
        ),
        "weakHashes": len([d for _, d, _ in with_hash if not re.match(r"sha(256|384|512)(=|$)", d)]),
        "bytes": sum(int(size) for _, _, size in rows if re.fullmatch(r"[0-9]+", size)),
        "verified": checked.count(True),
        "altered": checked.count(False),
    }


def unpadded(text: str) -> bytes:
    """The octets behind RECORD's URL-safe base64 without padding; none if it is written otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return b""
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return b""


def origin(text: str) -> dict[str, Value]:
    if not text:
        return {"origin": "index", "url": None}
    direct = json.loads(text)
    editable = (direct.get("dir_info") or {}).get("editable", False)
    kinds = [kind for kind in ("vcs", "archive") if f"{kind}_info" in direct]
    return {"origin": "editable" if editable else (kinds or ["local"])[0], "url": direct["url"]}


def read(path: Path) -> str:
    try:
        return str(path.read_bytes(), "utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def escaped(name: str) -> str:
    """A reference token of RFC 6901."""
    return name.replace("~", "~0").replace("/", "~1")


def add(flat: dict[str, Value], pointer: str, amount: int) -> None:
    flat[pointer] = int(str(flat.get(pointer) or 0)) + amount
