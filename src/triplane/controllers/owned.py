"""What an object owned, whether or not that is still there: the graph store forgets nothing."""

from triplane.domain.resourcegraph import ResourceRecord
from triplane.ports import GraphStore


async def owned_by(graph: GraphStore, uid: str, kind: str) -> dict[str, ResourceRecord]:
    """Name to the objects of that kind that it owned, as they were observed last; two round trips.

    Of several incarnations of one name the latest counts.
    """
    edges = await graph.edges(uid, kinds=frozenset({"owns"}))  # there since each was first observed
    records = await graph.get_many([edge.target for edge in edges]) if edges else {}
    return {
        record.name: record for record in sorted(records.values(), key=lambda record: record.seq) if record.kind == kind
    }
