"""What a distribution says its licence is, and which family that licence belongs to (rules R3 to R5)."""

import re
from email.message import Message

FAMILIES = ("public-domain", "permissive", "weak-copyleft", "copyleft", "other", "unknown")
"""From the least to the most restrictive; `other` is a licence not listed in the rules, `unknown` none at all."""

_LISTED = {
    "public-domain": "Unlicense CC0-1.0",
    "permissive": "MIT MIT-0 Apache-2.0 BSD-2-Clause BSD-3-Clause 0BSD ISC PSF-2.0 Python-2.0 Zlib HPND "
    "BSL-1.0 PostgreSQL Unicode-3.0 X11 NCSA BlueOak-1.0.0 CC-BY-4.0 OFL-1.1 ZPL-2.1 BSD",
    "weak-copyleft": "MPL-1.1 MPL-2.0 LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later "
    "LGPL-3.0-only LGPL-3.0-or-later LGPL EPL-1.0 EPL-2.0 CDDL-1.0",
    "copyleft": "GPL-2.0-only GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later GPL "
    "AGPL-3.0-only AGPL-3.0-or-later EUPL-1.2",
}
_FAMILY = {identifier.lower(): family for family, ids in _LISTED.items() for identifier in ids.split()}

_ALIASES = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit license (mit)": "MIT",
    "expat": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd license": "BSD",
    "bsd 2-clause license": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "python software foundation license": "PSF-2.0",
    "psf license": "PSF-2.0",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "zlib/libpng license": "Zlib",
    "zope public license": "ZPL-2.1",
    "historical permission notice and disclaimer (hpnd)": "HPND",
    "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "mpl2": "MPL-2.0",
    "eclipse public license 2.0 (epl-2.0)": "EPL-2.0",
    "gnu library or lesser general public license (lgpl)": "LGPL",
    "gnu lesser general public license v2 (lgplv2)": "LGPL-2.0-only",
    "gnu lesser general public license v2 or later (lgplv2+)": "LGPL-2.0-or-later",
    "gnu lesser general public license v3 (lgplv3)": "LGPL-3.0-only",
    "gnu lesser general public license v3 or later (lgplv3+)": "LGPL-3.0-or-later",
    "gnu general public license (gpl)": "GPL",
    "gnu general public license v2 (gplv2)": "GPL-2.0-only",
    "gnu general public license v2 or later (gplv2+)": "GPL-2.0-or-later",
    "gnu general public license v3 (gplv3)": "GPL-3.0-only",
    "gnu general public license v3 or later (gplv3+)": "GPL-3.0-or-later",
    "gnu affero general public license v3": "AGPL-3.0-only",
    "gnu affero general public license v3 or later (agplv3+)": "AGPL-3.0-or-later",
    "the unlicense (unlicense)": "Unlicense",
    "unlicense": "Unlicense",
    "public domain": "CC0-1.0",
    "cc0 1.0 universal (cc0 1.0) public domain dedication": "CC0-1.0",
}
_LONGEST_STATEMENT = 100
_TOKEN = re.compile(r"\(|\)|[^\s()]+")


def stated(metadata: Message) -> tuple[str, str]:
    """The licence and the field it comes from: License-Expression, License, Classifier or none."""
    expression = str(metadata.get("License-Expression", "")).strip()
    if expression:
        return " ".join(expression.split()), "License-Expression"
    text = str(metadata.get("License", "")).strip()
    if text and text.upper() != "UNKNOWN" and len(text) <= _LONGEST_STATEMENT and not re.search(r"[\r\n]", text):
        return _spdx(text), "License"
    segments = set()
    for classifier in metadata.get_all("Classifier", []):
        parts = [part.strip() for part in str(classifier).split("::")]
        if parts[0] == "License" and len(parts) > 1 and parts[-1] not in ("OSI Approved", "DFSG approved"):
            segments.add(_spdx(parts[-1]))
    if segments:
        return " OR ".join(sorted(segments)), "Classifier"
    return "unknown", "none"


def family(licence: str, source: str) -> str:
    """AND takes the most restrictive family, OR the least, a WITH exception changes nothing."""
    if source == "none":
        return "unknown"
    if licence.lower() in _FAMILY:
        return _FAMILY[licence.lower()]
    tokens = _TOKEN.findall(licence)
    rank, rest = _either(tokens)
    return "other" if rank is None or rest else FAMILIES[rank]


def _spdx(statement: str) -> str:
    statement = " ".join(statement.split())
    return _ALIASES.get(statement.lower(), statement)


def _either(tokens: list[str]) -> tuple[int | None, list[str]]:
    rank, tokens = _both(tokens)
    while rank is not None and tokens and tokens[0].upper() == "OR":
        right, tokens = _both(tokens[1:])
        rank = None if right is None else min(rank, right)
    return rank, tokens


def _both(tokens: list[str]) -> tuple[int | None, list[str]]:
    rank, tokens = _one(tokens)
    while rank is not None and tokens and tokens[0].upper() == "AND":
        right, tokens = _one(tokens[1:])
        rank = None if right is None else max(rank, right)
    return rank, tokens


def _one(tokens: list[str]) -> tuple[int | None, list[str]]:
    if not tokens or tokens[0] == ")" or tokens[0].upper() in ("AND", "OR", "WITH"):
        return None, tokens
    if tokens[0] == "(":
        rank, tokens = _either(tokens[1:])
        return (rank, tokens[1:]) if tokens and tokens[0] == ")" else (None, tokens)
    rank, tokens = FAMILIES.index(_FAMILY.get(tokens[0].lower(), "other")), tokens[1:]
    if len(tokens) > 1 and tokens[0].upper() == "WITH" and tokens[1] not in ("(", ")"):
        tokens = tokens[2:]
    return rank, tokens
