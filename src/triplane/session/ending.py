"""What the end of a program means for its run: nothing, or one reason why it did not succeed; and how that is told."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triplane.domain.redaction import KnownSecrets
from triplane.domain.session import Outcome, Usage
from triplane.session.client import usage_body
from triplane.session.harness.exec import Ended, Overtime
from triplane.session.harness.protocol import Reflection
from triplane.session.refusal import RunEndsEarly, failed


@dataclass(frozen=True, slots=True)
class Result:
    """How the run ended, before the gateway has checked it."""

    outcome: Outcome
    reason: str
    message: str
    exit_code: int | None = None
    outputs: tuple[dict[str, str], ...] = ()
    reflection: Reflection | None = None


def check_end(ended: Ended, order: Mapping[str, Any], last_error: str) -> None:
    """Raise ``RunEndsEarly`` unless the program ended well, within its budget, and left a reflection.

    ``last_error`` is what it last wrote to standard error.
    """
    code = ended.exit_code
    if ended.spent is not None:
        raise failed("BudgetExceeded", str(ended.spent), exit_code=code)
    if ended.overtime is Overtime.IDLE:
        raise RunEndsEarly(
            Outcome.TIMED_OUT,
            "IdleTimeout",
            f"the program wrote nothing to standard output for {order.get('idleTimeoutSeconds')} s; all of its "
            "processes were killed. Raise idleTimeoutSeconds, or let it report progress",
            exit_code=code,
        )
    if ended.overtime is Overtime.WHOLE:
        raise RunEndsEarly(
            Outcome.TIMED_OUT,
            "TimedOut",
            f"the run took longer than its {order.get('timeoutSeconds') or 3600} s; all of its processes were killed. "
            "Raise timeoutSeconds, or make the work smaller",
            exit_code=code,
        )
    if code != 0:
        signal = f" (signal {code - 128})" if 128 < code < 193 else ""
        said = f"; it last wrote to standard error: {last_error[:500]}" if last_error else ""
        raise failed("HarnessFailed", f"the program ended with exit code {code}{signal}{said}", exit_code=code)
    if ended.heard.reflection is None:
        raise failed(
            "NoReflection",
            "the program ended well but did not reflect, nor when it was asked once more: it must print a "
            "reflection line (docs/reference/exec-protocol.md)",
            exit_code=code,
        )


def report_of(result: Result, usage: Usage, secrets: Sequence[str]) -> tuple[dict[str, Any], bytes | None]:
    """``(body of finish, reflection to upload)``, neither of which holds any of the secrets. The host reflects on
    failures, never on a success."""
    known = KnownSecrets(secrets)
    message = known.redacted(result.message)
    reflection = result.reflection
    if reflection is None and result.outcome is not Outcome.SUCCEEDED:
        reflection = Reflection((), (message[:2000],), source="host")
    octets = None
    if reflection is not None:
        document = known.redacted_json(reflection.wire())
        octets = json.dumps(document, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
    body = {
        "outcome": result.outcome.value,
        "reason": result.reason,
        "message": message,
        "exitCode": result.exit_code,
        "outputs": list(result.outputs),
        "reflection": None,
        "usage": usage_body(usage),
    }
    return body, octets
