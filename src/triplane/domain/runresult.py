"""What a finished run is recorded as: the host's word, checked against the work order and what was uploaded.

Only a claimed success is doubted; a failure is believed. The order of the checks is the order of the reasons.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from triplane.domain.journal import escape_text
from triplane.domain.redaction import redact_text
from triplane.domain.session import Outcome, RunOutput, RunResult, Usage
from triplane.errors import InvalidInput

OUTPUTS_FOLDER: Final = "/work/outputs/"
MAX_MESSAGE: Final = 1024
_WORD = re.compile(r"[A-Z][A-Za-z0-9]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeclaredOutput:
    """An output as the work order asks for it; ``path`` is relative to the outputs folder."""

    name: str
    path: str
    media_type: str
    schema: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """What the host says at the end of a run."""

    outcome: Outcome
    reason: str
    message: str
    outputs: tuple[tuple[str, str], ...]
    """(name, digest) of each output it uploaded."""
    reflection: str | None
    usage: Usage
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the content store and the contract check say of one reported output."""

    size: int
    problem: str | None = None
    reason: str = "ContractNotMet"


def declared_outputs(order: Mapping[str, Any]) -> dict[str, DeclaredOutput]:
    """The outputs of a work order by name."""
    return {
        item["name"]: DeclaredOutput(item["name"], relative_path(item["path"]), item["mediaType"], item.get("schema"))
        for item in order.get("outputs") or ()
    }


def relative_path(path: str) -> str:
    """A path in the sandbox's outputs folder, relative to it."""
    return path.removeprefix(OUTPUTS_FOLDER)


def check_reported(
    declared: Mapping[str, DeclaredOutput], outputs: Sequence[tuple[str, str | None, str | None]]
) -> None:
    """Raise ``InvalidInput`` unless the reported ``(name, path, media type)`` are the declared ones, each once."""
    names = [name for name, _, _ in outputs]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInput(f"output {doubled[0]} is reported twice")
    for name, path, media_type in outputs:
        wanted = declared.get(name)
        if wanted is None:
            raise InvalidInput(f"output {name!r} is not declared; the work order asks for {sorted(declared)}")
        if path is not None and relative_path(path) != wanted.path:
            raise InvalidInput(f"output {name} is reported at {path!r}; it is declared at {wanted.path!r}")
        if media_type is not None and media_type != wanted.media_type:
            raise InvalidInput(f"output {name} is reported as {media_type}; it is declared as {wanted.media_type}")


def decide_result(
    reported: ReportedRun,
    declared: Mapping[str, DeclaredOutput],
    uploaded: Mapping[str, Uploaded],
    reflection_problem: str | None,
) -> RunResult:
    """The result to record. A success with a missing or broken output, or without reflection, is a failure.

    ``uploaded`` has an entry for each reported output whose blob is there.
    """
    outputs = tuple(
        RunOutput(name, declared[name].path, digest, declared[name].media_type, uploaded[name].size)
        for name, digest in reported.outputs
        if name in uploaded
    )
    result = RunResult(
        reported.outcome,
        reported.reason if _WORD.fullmatch(reported.reason) else "Unspecified",
        _message(reported.message),
        outputs,
        reported.reflection if reflection_problem is None else None,
        reported.usage,
        reported.exit_code,
    )
    if reported.outcome is not Outcome.SUCCEEDED:
        return result
    failure = _failure(reported, declared, uploaded, reflection_problem)
    if failure is None:
        return result
    return replace(result, outcome=Outcome.FAILED, reason=failure[0], message=_message(failure[1]))


def _failure(
    reported: ReportedRun,
    declared: Mapping[str, DeclaredOutput],
    uploaded: Mapping[str, Uploaded],
    reflection_problem: str | None,
) -> tuple[str, str] | None:
    if reported.exit_code not in (None, 0):
        return ("HarnessFailed", f"the program ended with exit code {reported.exit_code}")
    digests = dict(reported.outputs)
    for name, wanted in declared.items():
        if name not in digests:
            return ("OutputMissing", f"output {name} was not left at {wanted.path}")
        if name not in uploaded:
            return ("OutputMissing", f"output {name} ({digests[name]}) was not uploaded")
    for name in declared:
        if (problem := uploaded[name].problem) is not None:
            return (uploaded[name].reason, f"output {name} ({declared[name].path}): {problem}")
    if reflection_problem is not None:
        return ("NoReflection", f"no run succeeds without a reflection: {reflection_problem}")
    return None


def _message(text: str) -> str:
    text = escape_text(redact_text(text), lines=True)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"
