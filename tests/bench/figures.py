"""One line of ``build/bench.json``."""

from typing import Any

Figure = dict[str, Any]


def figure(name: str, value: float, unit: str, *, repeat: int, reference: float | None = None, **more: Any) -> Figure:
    """``reference`` is what the value is held against, measured in the same run; ``more`` is kept as it is."""
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "reference": None if reference is None else round(reference, 4),
        "ratio": None if reference is None else round(value / reference, 3),
        "repeat": repeat,
        **more,
    }
