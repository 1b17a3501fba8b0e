"""The condition types of this version and what each says (Kubernetes API conventions; kstatus)."""

from collections.abc import Mapping

CONDITION_TYPES: Mapping[str, str] = {
    "Ready": "A long-running kind (Graph, Workflow, Agent, Harness, Capability, Guideline, Tool, Policy) can be used.",
    "Succeeded": "Bounded work (Node, Task, AgentSession) ended well. Unknown while it is active; "
    "False means the work failed, not that it is stuck.",
    "Reviewed": "The outputs (Task, Artifact) were approved by an independent Review bound to their digests; "
    "False means rejected.",
    "ResolvedRefs": "Every object the spec names exists. It heals by itself once the missing one is applied.",
    "Isolated": "The run is sandboxed (AgentSession). False only where `allowUnisolated` is set.",
    "Suspended": "Somebody holds it on purpose (Task, and its Node or Graph): nothing is launched. Absent otherwise.",
    "WaitingForApproval": "A person must give leave to launch (Task), or to call a tool. Absent otherwise.",
    "Reconciling": "The operator is working towards the spec (kstatus, abnormal-true).",
    "Stalled": "Nothing more will happen until somebody acts; reason and message say who and how "
    "(kstatus, abnormal-true).",
}
"""Type to meaning; the generated reference prints it."""
