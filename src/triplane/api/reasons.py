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
    "ToolNotFound": Reason("`tools` names a Tool that does not exist.", "whoever applies the Tool"),
    "ToolInvalid": Reason(
        "The Tool cannot be offered as it is written; the message says why.", "whoever keeps the Tool"
    ),
    "CapabilityVersionNotFound": Reason(
        "A required version of a Capability is not published, or all are archived.", "whoever keeps the Capability"
    ),
    "HarnessNotFound": Reason("The Agent's Harness does not exist.", "whoever applies the Harness"),
    "TaskNotFound": Reason("A Task that must come first does not exist.", "whoever applies the Task"),
    "AwaitingDependency": Reason("Tasks that must come first are not over.", "those Tasks' people and agents"),
    "InputNotStored": Reason(
        "An input's digest was not stored in the Task's namespace.",
        "whoever has the content: `triplane blob put -n NAMESPACE`",
    ),
    "WorkflowNotFound": Reason("`workflowRef` names a Workflow that does not exist.", "whoever applies the Workflow"),
    "QueueTurn": Reason("Earlier Nodes of the queue are not over.", _OPERATOR),
    "ResolvedRefs": Reason("Every reference resolves.", _NOBODY),
    # Stalled
    "ContractConflict": Reason(
        "Task and Capabilities declare one output differently, or none at all.", "whoever applied them"
    ),
    "InputContractNotMet": Reason(
        "An input is missing, or is not what a required Capability asks for.", "whoever makes a new Task"
    ),
    "GuidelinesTooLarge": Reason(
        "More Guidelines apply than one run may be given.", "whoever narrows or shortens some of them"
    ),
    "NoEligibleAgent": Reason(
        "No Agent fits: missing, suspended, without a capability or a Harness.", "whoever applies or mends an Agent"
    ),
    "NoIndependentReviewer": Reason(
        "Nobody eligible to review is independent of the producer.", "a user other than the producing Agent's"
    ),
    "PolicyInvalid": Reason(
        "The Policy cannot be asked: the message says which expression, and where. Whatever it is about is denied.",
        "whoever applied the Policy",
    ),
    "PolicyDenied": Reason(
        "A Policy stands in the way; the message names it, its rule and whom to ask.", "whoever the Policy names"
    ),
    "AuthorityExceeded": Reason(
        "The work needs more than it is granted; the message names axis, value, limit and whose that is.",
        "whoever the message names",
    ),
    "AuthorityNarrowed": Reason(
        "A session that was at work had more than it may have now: it was stopped, and the Task goes on under what is "
        "left.",
        _OPERATOR,
    ),
    "AuthorityExpired": Reason("The time for which authority was given is over.", "whoever the message names"),
    "PolicyWarning": Reason("A Policy warns of what was launched; it goes on.", "whoever the Policy names"),
    "NoIndependentApprover": Reason(
        "Everybody who may give leave to launch controls the Agent.", "whoever names somebody else in `approval.people`"
    ),
    "TaskNameTaken": Reason("A Task of a step's name belongs to something else.", "whoever deletes or renames it"),
    "DependencyCycle": Reason(
        "The steps, or Tasks, wait for each other.", "whoever breaks the cycle that is spelled out"
    ),
    "DuplicateStep": Reason("Two steps have one name, or would be one Task.", "whoever renames one"),
    "UnknownStep": Reason("A step is named that is not there.", "whoever corrects the name"),
    "DuplicateEdge": Reason("One thing is taken twice to the same place.", "whoever removes one of the two"),
    "EdgeInvalid": Reason("An edge has no source, two, or a `to` that its merge does not know.", "whoever mends it"),
    "LimitExceeded": Reason(
        "Too many steps, dependencies or dependents, too deep, or too large.", "whoever divides the work"
    ),
    "ConditionInvalid": Reason("A condition cannot be compiled, or costs too much.", "whoever mends the expression"),
    "ParameterUnknown": Reason(
        "A parameter is used or set that is not declared.", "whoever declares it or corrects the name"
    ),
    "ParameterMissing": Reason("A parameter without a default is not set.", "whoever sets it"),
    "ParameterInvalid": Reason("A parameter's value is not of its type.", "whoever corrects it"),
    "StepInvalid": Reason("With parameters put in, a step breaks a rule for Tasks.", "whoever changes the value"),
    "PlanLost": Reason(
        "The blob of what the Node runs is gone or damaged.", "whoever cancels or deletes the Node, and makes a new one"
    ),
    "SpecInvalid": Reason(
        "A release with other rules stored the object, or one that it goes by; the message names the field.",
        "whoever corrects it, or makes it anew",
    ),
    "TaskRefused": Reason(
        "The API server refuses a Task of the Node; the message says why.", "whoever may lift that, such as a quota"
    ),
    # Under way
    "Working": Reason("The operator is taking the next step.", _OPERATOR),
    "Offered": Reason("The session waits for its launch permit.", _OPERATOR),
    "AgentAtLimit": Reason(
        "The Agent has as many sessions at work as `maxConcurrentSessions` allows.", "nobody; it goes on by itself"
    ),
    "RetryBackoff": Reason("A run did not succeed; the next one waits its time.", _OPERATOR),
    "Queued": Reason("A run waits for a free runner.", "nobody, unless no runner is up"),
    "Starting": Reason("A runner is preparing the run.", _NOBODY),
    "Running": Reason("The agent is at work.", "the agent"),
    "InReview": Reason("Another agent is judging the outputs.", "the reviewing agent"),
    "WaitingForPerson": Reason("One of the named people must review.", "those people: apply a Review"),
    "WaitingForApproval": Reason(
        "One of the named people must give leave to launch, or to call a tool.",
        "those people: `triplane review approve` or `reject`",
    ),
    "NotProduced": Reason("There are no outputs to review yet.", _NOBODY),
    "NotStarted": Reason("No run has started yet.", _NOBODY),
    "RunnerLost": Reason("The runner vanished; a new run follows, up to a limit.", _OPERATOR),
    "Progressing": Reason("Reconciling: something is under way.", _NOBODY),
    "Settled": Reason("Reconciling: nothing is under way.", _NOBODY),
    "NotStalled": Reason("Stalled: nothing stands in the way.", _NOBODY),
    # Good ends
    "Accepted": Reason("An independent Review approved exactly these outputs.", _NOBODY),
    "Approved": Reason("Reviewed: approved.", _NOBODY),
    "ConditionFalse": Reason("Skipped: `when` is false.", _NOBODY),
    "InputsSkipped": Reason("Skipped: nothing was produced for one of its inputs.", _NOBODY),
    "Completed": Reason("The run ended well and left what was asked.", _NOBODY),
    "Observed": Reason("The Graph is there and counted.", _NOBODY),
    "Ready": Reason("It can be used.", _NOBODY),
    "Sandboxed": Reason("The harness runs in a sandbox.", _NOBODY),
    # Bad ends of a Task
    "Rejected": Reason("Reviewed: rejected, with findings.", "the producing agent, if a rework is left"),
    "NotAccepted": Reason("The Task ended without accepting this.", _NOBODY),
    "ApprovalDenied": Reason("A person refused leave to launch.", "whoever makes a new Task"),
    "ApprovalTimedOut": Reason(
        "Nobody gave leave to launch in time, and `approval.onTimeout` is Deny.", "whoever makes a new Task"
    ),
    "ReworksExhausted": Reason("Rejected more often than `maxReworks` allows.", "whoever makes a new Task"),
    "DependencyFailed": Reason(
        "A Task that must come first failed or was cancelled.", "whoever mends that and makes both anew"
    ),
    "ConditionFailed": Reason("A condition has no value: it fails on what it sees.", "whoever makes a new Task"),
    "OutputNotFound": Reason("An input takes an output its Task was accepted without.", "whoever makes a new Task"),
    "InputPathMissing": Reason("An input takes a value that the output does not have.", "whoever makes a new Task"),
    "InputNotMergeable": Reason("The outputs cannot be merged as the input asks.", "whoever makes a new Task"),
    "InputTooLarge": Reason("A composed input would be too large.", "whoever makes a new Task"),
    "SessionRevoked": Reason("The session was revoked.", "whoever makes a new Task"),
    "GraphDeleted": Reason("The Graph was deleted after work began.", "whoever makes a new Task"),
    "NodeDeleted": Reason("The Node was deleted after work began.", "whoever makes a new Node"),
    "TaskFailed": Reason("A Task of the Node failed and was deleted since.", "whoever makes a new Node"),
    "StepsFailed": Reason("Several steps of the Node failed; the message names the first.", "whoever makes a new Node"),
    "Cancelled": Reason("Somebody set `cancel`.", "whoever makes it anew"),
    "FailFast": Reason("Another step failed, and the Node's `failureMode` is FailFast.", "whoever makes a new Node"),
    "Replaced": Reason("A later Node of the queue took its place.", _NOBODY),
    "Revoked": Reason("The session or run was revoked, and stopped.", _NOBODY),
    "Suspended": Reason(
        "Somebody suspended the Agent, or the Task, its Node or its Graph: no run is launched.",
        "whoever suspended it, when it is to go on",
    ),
    # Bad ends of a run
    "HarnessFailed": Reason("The program ended with an exit code other than 0.", "whoever keeps the program"),
    "TimedOut": Reason("The run took longer than `timeoutSeconds` and was killed.", "whoever sets the limit"),
    "IdleTimeout": Reason(
        "The program reported nothing for `idleTimeoutSeconds` and was killed.", "whoever keeps the program"
    ),
    "BudgetExceeded": Reason(
        "Tokens, cost, time or sessions of a budget are spent; a run that spent more was killed.",
        "whoever the message names",
    ),
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
    "ToolUnavailable": Reason(
        "A Tool of the run could not be started, or does not speak MCP as it should.",
        "whoever keeps the Tool or its server",
    ),
    "SecretForbidden": Reason(
        "The run may not have a Secret it asks for: the message says whose right is missing.",
        "whoever sets the authority, or gives the requester or the gateway that right",
    ),
    "SecretUnavailable": Reason(
        "A Secret, or a key of it, is missing or cannot be an environment variable.", "whoever keeps the Secret"
    ),
    "PathForbidden": Reason("The frozen authority does not grant a shared path.", "whoever sets the authority"),
    "PathUnavailable": Reason(
        "A shared path is not there, is no plain file or folder, or the runner shares none.", "whoever keeps the runner"
    ),
    "AxisNotEnforced": Reason(
        "The runner has no sandbox, and cannot enforce an axis of authority that somebody set.",
        "whoever gives the runner a sandbox, or writes a Policy that lets it go",
    ),
    "NoSandbox": Reason(
        "No sandbox is possible there, and unisolated runs are not allowed.", "whoever keeps the runner"
    ),
    "SandboxFailed": Reason("The sandbox could not be started.", "whoever keeps the runner"),
    "HostFailed": Reason("The session host met an error of its own.", "whoever keeps the runner"),
    "Unspecified": Reason("The host gave no reason in one word; the message says more.", "whoever keeps the runner"),
    "ReportRefused": Reason("The gateway refused the run's report.", "whoever keeps the runner"),
    # Events only
    "LogBroken": Reason(
        "The operator read the log again and found an entry that is not what was appended; the message names it.",
        "a cluster admin: stop the writers and follow the message",
    ),
    "Placed": Reason("An Agent was chosen to do the work.", _NOBODY),
    "LaunchApproved": Reason("A person gave leave to launch a session.", _NOBODY),
    "ApprovedByDefault": Reason("Nobody answered in time, and the default gave leave to launch.", _NOBODY),
    "CallApproved": Reason("A person gave leave to call a tool.", _NOBODY),
    "CallRefused": Reason("A person refused leave to call a tool.", _NOBODY),
    "ReviewPlaced": Reason("An Agent was chosen to review.", _NOBODY),
}
"""Reason to meaning, grouped as the reference shows them."""
