"""Names that people cannot tell apart: the same characters composed differently, or letters of another script.

Identifiers of Kubernetes and of ours are ASCII by pattern, so twins cannot exist there. Where users choose freely
(user names, options, keys of JSON) two names of one list may not be twins. Compared is a skeleton in the manner of
Unicode UTS #39, section 4 ("Confusable Detection"): NFKC, case folded, and the small letters of Greek, Cyrillic and
Armenian that look like Latin ones replaced by those.
"""

import unicodedata
from collections.abc import Iterable, Iterator

_LOOKALIKES = str.maketrans(
    {
        # Cyrillic
        "а": "a", "в": "b", "е": "e", "к": "k", "м": "m", "н": "h", "о": "o", "р": "p", "с": "c", "т": "t", "у": "y",
        "х": "x", "ѕ": "s", "і": "i", "ј": "j", "һ": "h", "ԁ": "d", "ԛ": "q", "ԝ": "w", "ь": "b", "ӏ": "l", "ү": "y",
        # Greek
        "α": "a", "β": "b", "ε": "e", "ζ": "z", "η": "n", "ι": "i", "κ": "k", "μ": "u", "ν": "v", "ο": "o", "ρ": "p",
        "τ": "t", "υ": "u", "χ": "x", "ϲ": "c", "ϳ": "j", "γ": "y",
        # Armenian
        "օ": "o", "ս": "u", "հ": "h", "ո": "n", "ց": "g", "զ": "q",
        # Latin letters and digits that pass for one another
        "ı": "i", "ɩ": "i", "ɑ": "a", "ɡ": "g", "ʏ": "y", "ſ": "s",
    }
)  # fmt: skip


def skeleton(name: str) -> str:
    """What a reader sees, as far as these tables go; equal for twins."""
    if name.isascii():
        return name.casefold()
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFC", folded.translate(_LOOKALIKES))


def twins(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names with one skeleton, of which at least one is not ASCII; each later name once.

    ``Alice`` and ``alice`` are told apart by every reader and stay two names.
    """
    seen: dict[str, list[str]] = {}
    for name in names:
        earlier = seen.setdefault(skeleton(name), [])
        other = next((each for each in earlier if each != name and not (each.isascii() and name.isascii())), None)
        if other is not None:
            yield other, name
        earlier.append(name)


def spelled(name: str) -> str:
    """The name with everything beyond ASCII escaped, so that twins differ on the screen."""
    return name.encode("ascii", "backslashreplace").decode()
