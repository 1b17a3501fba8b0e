"""The kinds of this version, by name."""

from collections.abc import Mapping

from triplane.api.agent import Agent
from triplane.api.agentsession import AgentSession
from triplane.api.artifact import Artifact
from triplane.api.capability import Capability
from triplane.api.graph import Graph
from triplane.api.guideline import Guideline
from triplane.api.harness import Harness
from triplane.api.meta import Resource
from triplane.api.node import Node
from triplane.api.policy import Policy
from triplane.api.review import Review
from triplane.api.task import Task
from triplane.api.tool import Tool
from triplane.api.workflow import Workflow

KINDS: Mapping[str, type[Resource]] = {
    cls.kind_name(): cls
    for cls in (
        Graph,
        Workflow,
        Node,
        Task,
        Agent,
        Harness,
        Capability,
        Guideline,
        Tool,
        Policy,
        AgentSession,
        Artifact,
        Review,
    )
}
"""Kind name to model, in the order in which lists of kinds are shown."""
