"""What the demo applies: everything at first, nothing that changes later, and what an interrupted one still lacks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from triplane.adapters.kube.reader import Reader
from triplane.cli import demo
from triplane.errors import NotFound, Unavailable

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
PAGES = "sha256:" + "3" * 64
GRAPHS = ["licence-audit", "careless-audit", "page-survey"]


class FakeCluster:
    """Applies server-side as an API server would: an object that stays the same keeps its resourceVersion."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.revision = 0

    def get(self, kind: str, _namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[kind, name]
        except KeyError:
            raise NotFound(f"{kind} {name} not found") from None

    def apply(self, manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        key = (manifest["kind"], manifest["metadata"]["name"])
        known = self.objects.get(key)
        if known is None or known["spec"] != manifest["spec"]:
            self.revision += 1
            metadata = {**manifest["metadata"], "resourceVersion": str(self.revision), "manager": manager}
            self.objects[key] = {**manifest, "metadata": metadata, "status": {"conditions": []}}
        return self.objects[key]

    def finish(self, status: str = "True") -> None:
        for (kind, _), found in self.objects.items():
            if kind == "Node":
                found["status"] = {"conditions": [{"type": "Succeeded", "status": status, "message": "the agent died"}]}

    def users(self) -> demo.Users:
        reader = cast("Reader", self)
        return demo.Users(reader, reader)


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_the_first_demo_applies_every_example(cluster: FakeCluster) -> None:
    assert demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES) == GRAPHS
    assert {("Graph", name) for name in GRAPHS} <= set(cluster.objects)


def test_the_next_one_changes_nothing_and_makes_a_fresh_graph(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES)
    cluster.finish()
    before = {key: found["metadata"]["resourceVersion"] for key, found in cluster.objects.items()}
    (graph,) = demo.apply_examples(cluster.users(), EXAMPLES, OTHER, PAGES)
    assert graph.startswith("licence-audit-")
    assert ("Graph", graph) in cluster.objects
    assert {key: cluster.objects[key]["metadata"]["resourceVersion"] for key in before} == before
    assert "no resourceVersion changed" in capsys.readouterr().err


def test_one_that_was_cut_between_the_examples_is_completed_with_its_own_input(cluster: FakeCluster) -> None:
    for _, manifest in demo.manifests(EXAMPLES / demo.AUDIT, DIGEST, ""):
        cluster.apply(manifest, manager=demo.MANAGER)
    before = {key: found["metadata"]["resourceVersion"] for key, found in cluster.objects.items()}
    assert demo.apply_examples(cluster.users(), EXAMPLES, OTHER, PAGES) == GRAPHS
    assert {key: cluster.objects[key]["metadata"]["resourceVersion"] for key in before} == before
    assert {("Node", "careless-audit"), ("Node", "tolerant")} <= set(cluster.objects)


def test_work_that_an_interruption_made_fail_does_not_stop_the_next_demo(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES)
    cluster.finish("False")
    (graph,) = demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES)
    assert graph.startswith("licence-audit-")
    assert "of an earlier demo: licence-audit was not accepted: the agent died; going on" in capsys.readouterr().err


def test_a_manifest_that_changes_something_is_named(cluster: FakeCluster) -> None:
    demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES)
    cluster.finish()
    apply = cluster.apply

    def restless(manifest: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        if manifest["kind"] == "Agent":
            cluster.objects.pop(("Agent", manifest["metadata"]["name"]))
        return apply(manifest, manager=manager)

    cluster.apply = restless  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="Agent auditor"):
        demo.apply_examples(cluster.users(), EXAMPLES, DIGEST, PAGES)
