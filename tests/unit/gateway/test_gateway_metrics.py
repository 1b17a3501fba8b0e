"""The gateway's metrics and their page say the same."""

import re
from pathlib import Path

from triplane.gateway.metrics import PREFIX, GatewayMetrics, parts_of

PAGE = Path(__file__).parents[3] / "docs/reference/metrics.md"


def test_the_page_lists_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    documented = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    metrics = GatewayMetrics()
    there = {}
    for collector in list(metrics.registry._collector_to_names):
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            there[name] = (family.type, tuple(getattr(collector, "_labelnames", None) or ()))
    assert {name: shape for name, shape in documented.items() if name.startswith(PREFIX)} == there


def test_a_callers_words_never_become_labels() -> None:
    class Route:
        def __init__(self, path: str) -> None:
            self.path = path

    paths = ["/v1/blobs/{digest}", "/metrics", "/log/{path}", "/{anything}", "/v1/{uid}/x", "/"]
    assert parts_of(map(Route, paths)) == {"blobs", "metrics", "log"}
