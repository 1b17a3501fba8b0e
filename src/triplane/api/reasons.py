"""Every reason a condition or an Event can carry. Reasons are API: they change only with the version.

``REASONS`` is the one list; docs/reference/reasons.md is generated from it, and a test holds the code to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """What a reason means, and who must act for things to go on."""

    meaning: str
    act: str


_NOBODY = "nobody"
_OPERATOR = "the operator; it goes on by itself"

REASONS: Mapping[str, Reason] = {
    # Waiting for references
    "Pending": Reason("The operator has not looked at the object yet.", _OPERATOR),
    "GraphNotFound": Reason("`graphRef` names a Graph that does not exist.", "whoever applies the Graph"),
    "NodeNotFound": Reason("The Node of this Task does not exist.", "whoever applies the Node"),
    "AgentNotFound": Reason("An `agentRef` names an Agent that does not exist.", "whoever applies the Agent"),
    "CapabilityNotFound": Reason("A required Capability does not exist.", "whoever applies the Capability"),
    "HarnessNotFound": Reason("The Agent's Harness does not exist.", "whoever applies the Harness"),
    "TaskNotFound": Reason("An input comes from a Task that does not exist.", "whoever applies the Task"),
    "InputNotAccepted": Reason("An input comes from a Task that is not accepted.", "that Task's people and agents"),
    "InputNotStored": Reason(
        "An input's digest was not stored in the Task's namespace.",
        "whoever has the content: `triplane blob put -n NAMESPACE`",
    ),
    "OutputNotFound": Reason("An input names an output its Task does not have.", "whoever corrects the name"),
    "ResolvedRefs": Reason("Every reference resolves.", _NOBODY),
    # Stalled
    "ContractConflict": Reason(
        "Task and Capabilities declare one output differently, or none at all.", "whoever applied them"
    ),
    "NoEligibleAgent": Reason(
        "No Agent fits: missing, suspended, without a capability or a Harness.", "whoever applies or mends an Agent"
    ),
    "NoIndependentReviewer": Reason(
        "Nobody eligible to review is independent of the producer.", "a user other than the producing Agent's"
    ),
    "TaskNameTaken": Reason("A Task of the step's name belongs to something else.", "whoever deletes or renames it"),
    # Under way
    "Working": Reason("The operator is taking the next step.", _OPERATOR),
    "Offered": Reason("The session waits for its launch permit.", _OPERATOR),
    "Queued": Reason("A run waits for a free runner.", "nobody, unless no runner is up"),
    "Starting": Reason("A runner is preparing the run.", _NOBODY),
    "Running": Reason("The agent is at work.", "the agent"),
    "InReview": Reason("Another agent is judging the outputs.", "the reviewing agent"),
    "WaitingForPerson": Reason("One of the named people must review.", "those people: apply a Review"),
    "NotProduced": Reason("There are no outputs to review yet.", _NOBODY),
    "NotStarted": Reason("No run has started yet.", _NOBODY),
    "RunnerLost": Reason("The runner vanished; a new run follows, up to a limit.", _OPERATOR),
    "Progressing": Reason("Reconciling: something is under way.", _NOBODY),
    "Settled": Reason("Reconciling: nothing is under way.", _NOBODY),
    "NotStalled": Reason("Stalled: nothing stands in the way.", _NOBODY),
    # Good ends
    "Accepted": Reason("An independent Review approved exactly these outputs.", _NOBODY),
    "Approved": Reason("Reviewed: approved.", _NOBODY),
    "Completed": Reason("The run ended well and left what was asked.", _NOBODY),
    "Observed": Reason("The Graph is there and counted.", _NOBODY),
    "Ready": Reason("It can be used.", _NOBODY),
    "Sandboxed": Reason("The harness runs in a sandbox.", _NOBODY),
    # Bad ends of a Task
    "Rejected": Reason("Reviewed: rejected, with findings.", "the producing agent, if a rework is left"),
    "NotAccepted": Reason("The Task ended without accepting this.", _NOBODY),
    "ReworksExhausted": Reason("Rejected more often than `maxReworks` allows.", "whoever makes a new Task"),
    "SessionRevoked": Reason("The session was revoked.", "whoever makes a new Task"),
    "GraphDeleted": Reason("The Graph was deleted after work began.", "whoever makes a new Task"),
    "NodeDeleted": Reason("The Node was deleted after work began.", "whoever makes a new Node"),
    "TaskFailed": Reason("The Node's Task failed and was deleted since.", "whoever makes a new Node"),
    "Revoked": Reason("The session or run was revoked, and stopped.", _NOBODY),
    "Suspended": Reason("The Agent is suspended and gets no new runs.", "whoever owns the Agent"),
    # Bad ends of a run
    "HarnessFailed": Reason("The program ended with an exit code other than 0.", "whoever keeps the program"),
    "TimedOut": Reason("The run took longer than `timeoutSeconds` and was killed.", "whoever sets the limit"),
    "NoReflection": Reason("The program ended well but did not reflect.", "whoever keeps the program"),
    "OutputMissing": Reason("A declared output was not left behind.", "whoever keeps the program"),
    "OutputRefused": Reason("An output is a link, a device, too large or out of bounds.", "whoever keeps the program"),
    "ContractNotMet": Reason("An output breaks its media type or JSON Schema.", "whoever keeps the program"),
    "SecretInOutput": Reason("An output holds what looks like a secret.", "whoever keeps the program"),
    "SubjectsDiffer": Reason("The verdict is on other digests than were produced.", "whoever keeps the reviewer"),
    "VerdictMissing": Reason("The review session left no verdict.", "whoever keeps the reviewer"),
    "InputUnusable": Reason("An input could not be prepared.", "whoever stored the input"),
    "ProgramRefused": Reason("The program is not a plain file or folder.", "whoever keeps the runner"),
    "ProgramNotApproved": Reason("The program is not in the approved folder.", "whoever keeps the runner"),
    "ProgramChanged": Reason("The program has another digest than the Harness pins.", "whoever pins or keeps it"),
    "HarnessInvalid": Reason("The Harness cannot be run as it is written.", "whoever applied the Harness"),
    "NoSandbox": Reason(
        "No sandbox is possible there, and unisolated runs are not allowed.", "whoever keeps the runner"
    ),
    "SandboxFailed": Reason("The sandbox could not be started.", "whoever keeps the runner"),
    "HostFailed": Reason("The session host met an error of its own.", "whoever keeps the runner"),
    "Unspecified": Reason("The host gave no reason in one word; the message says more.", "whoever keeps the runner"),
    "ReportRefused": Reason("The gateway refused the run's report.", "whoever keeps the runner"),
    # Events only
    "Placed": Reason("An Agent was chosen to do the work.", _NOBODY),
    "ReviewPlaced": Reason("An Agent was chosen to review.", _NOBODY),
}
"""Reason to meaning, grouped as the reference shows them."""
