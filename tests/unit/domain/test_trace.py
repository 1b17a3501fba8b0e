"""One trace id for everything that happens for one Task."""

import re

from triplane.domain.trace import trace_id, trace_of


def test_a_task_and_what_belongs_to_it_share_a_trace_and_others_do_not() -> None:
    task = {"kind": "Task", "metadata": {"uid": "u-1"}, "spec": {}}
    session = {"kind": "AgentSession", "metadata": {"uid": "u-2"}, "spec": {"taskRef": {"name": "t", "uid": "u-1"}}}
    graph = {"kind": "Graph", "metadata": {"uid": "u-3"}}
    assert trace_of(task) == trace_of(session) == trace_id("u-1")
    assert trace_of(graph) == trace_id("u-3") != trace_id("u-1")


def test_it_is_a_trace_id_of_w3c_trace_context() -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id("u-1"))
    assert trace_id("u-1") == "4a9d6e659be805f07ce283a87e62eb69", "lines written by an older version must still join"
