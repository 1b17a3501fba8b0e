"""Why the API server refuses an object: which layer, which rule, what about it, and who can change that.

Read off the ``metav1.Status`` of the refusal (Kubernetes API reference, "Status"), whose wording the API server and
``domain.admission`` fix. What is not recognised is passed on in the words it came in.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from triplane.domain.conditions import condition


class Layer(StrEnum):
    """Who refused, from the outside in."""

    ROLES = "roles"
    """RBAC."""
    SCHEMA = "schema"
    """The kind's schema and the CEL rules in it."""
    STATIC = "static policy"
    """The API server's own ValidatingAdmissionPolicies (docs/reference/admission.md)."""
    GRAPH = "graph"
    """The admission webhook: what no schema can tell about the object and what it depends on."""
    AUTHORITY = "authority"
    """The admission webhook: more than there is to give."""
    POLICY = "policy"
    """The admission webhook: a rule of a Policy."""
    WEBHOOK = "webhook"
    """The admission webhook cannot be asked, or cannot tell now."""
    LAUNCH = "launch"
    """It was admitted, but nothing is launched."""
    SERVER = "server"
    """Anything else the API server says."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that stands in the way."""

    layer: Layer
    message: str
    rule: str | None = None
    """Name of the static policy, ``<namespace>/<name> <rule>`` of a Policy, or the reason in one word."""
    field: str | None = None
    axis: str | None = None
    value: str | None = None
    limit: str | None = None
    holder: str | None = None
    """Whose limit it is: ``Graph team/audit``, ``the installation``."""
    ask: str | None = None
    """Who can change it."""

    def wire(self) -> dict[str, str]:
        """JSON; what is not known is left out."""
        return {key: str(value) for key, value in asdict(self).items() if value is not None}


WEBHOOK: Final = "governance.admission.triplane.dev"
_DENIED = re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<said>.*)', re.DOTALL)
_UNREACHABLE = re.compile(r'failed calling webhook "(?P<name>[^"]+)": (?P<said>.*)', re.DOTALL)
_STATIC = re.compile(
    r"ValidatingAdmissionPolicy '(?P<name>[^']+)' with binding '[^']*' denied request: (?P<said>.*)", re.DOTALL
)
_RBAC = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"')
_STRICT = re.compile(r'(?:unknown|duplicate) field "(?P<field>[^"]+)"')
_POLICY = re.compile(r"Policy (?P<name>\S+/\S+) (?P<rule>.+)", re.DOTALL)
_AXIS = re.compile(
    r"axis (?P<axis>[A-Za-z.]+): (?P<value>.+) is beyond (?P<limit>.+), the limit of (?P<holder>.+)", re.DOTALL
)
_ASK = re.compile(r"(?P<said>.*); ask (?P<ask>[^;]+)", re.DOTALL)
_CONTROLLED = re.compile(r"is controlled by '(?P<user>[^']+)'")
_STOPPED: Final = frozenset(
    {"PolicyDenied", "AuthorityExceeded", "AuthorityExpired", "BudgetExceeded", "AxisNotEnforced"}
)


def causes_of(status: Mapping[str, Any]) -> tuple[Cause, ...]:
    """What stands in the way, of the ``Status`` of a refusal; at least one cause."""
    message = str(status.get("message") or status.get("reason") or "no reason given")
    if found := _UNREACHABLE.search(message):
        return (_unreachable(found["name"], found["said"]),)
    if found := _STATIC.search(message):
        return (_static(found["name"], found["said"]),)
    details = status.get("details") or {}
    listed = [each for each in details.get("causes") or () if each.get("message")]
    if (found := _DENIED.search(message)) and found["name"] == WEBHOOK:
        if status.get("code") == 503 or not listed:
            return (Cause(Layer.WEBHOOK, found["said"], ask="nobody; try again"),)
        return tuple(_of_webhook(each) for each in listed)
    if found:
        return (Cause(Layer.SERVER, found["said"], rule=found["name"], ask="whoever keeps that webhook"),)
    if found := _RBAC.search(message):
        who = f"whoever binds roles in the namespace; {found['user']} may not {found['verb']} {found['resource']}"
        return (Cause(Layer.ROLES, message, rule=found["verb"], ask=who),)
    if status.get("code") == 422 and listed:
        author = "whoever writes the object"
        return tuple(
            Cause(Layer.SCHEMA, str(each["message"]), each.get("reason"), each.get("field"), ask=author)
            for each in listed
        )
    if fields := [found["field"] for found in _STRICT.finditer(message)]:
        return tuple(
            Cause(Layer.SCHEMA, f'unknown field "{field}"', "strict", field, ask="whoever writes the object")
            for field in fields
        )
    return (Cause(Layer.SERVER, message, rule=status.get("reason")),)


def stopped(obj: Mapping[str, Any]) -> tuple[Cause, ...]:
    """Of an object that is stored: why nothing of it is launched now, as its conditions say."""
    found = condition(obj.get("status") or {}, "Stalled")
    if found is None or found["status"] != "True" or found["reason"] not in _STOPPED:
        return ()
    message, ask = _parted(str(found["message"]))
    beyond = _AXIS.search(message)
    parts = beyond.groupdict() if beyond else {}
    return (Cause(Layer.LAUNCH, message, rule=str(found["reason"]), ask=ask, **parts),)


def sentences(title: str, causes: Sequence[Cause]) -> Iterator[str]:
    """For people: the verdict, then for each cause what it is and who can change it."""
    if not causes:
        yield f"{title} would be admitted"
        return
    launch = all(each.layer is Layer.LAUNCH for each in causes)
    yield f"{title} is admitted, but not launched" if launch else f"{title} is denied"
    for each in causes:
        where = " ".join(part for part in (each.rule, each.field) if part and part != "FieldValueInvalid")
        said = each.message
        if each.axis is not None:
            said = f"axis {each.axis}: asked for {each.value}; {each.holder} allows {each.limit}"
        yield f"  {each.layer}{f' ({where})' if where else ''}: {said}"
        if each.ask is not None:
            yield f"    who can change it: {each.ask}"


def _unreachable(name: str, said: str) -> Cause:
    if name == WEBHOOK:
        who = "whoever keeps the installation (`triplane status`); deletes, `suspend` and `cancel` work meanwhile"
        return Cause(Layer.WEBHOOK, said, rule="Unreachable", ask=who)
    return Cause(Layer.SERVER, said, rule=name, ask="whoever keeps that webhook")


def _static(name: str, said: str) -> Cause:
    controlled = _CONTROLLED.search(said)
    if controlled:
        ask = controlled["user"]
    elif name == "installation.triplane.dev":
        ask = "whoever holds triplane-policy-admin in triplane-system"
    else:
        ask = "nobody: this holds for administrators too" if name.endswith(".triplane.dev") else "the cluster's admins"
    return Cause(Layer.STATIC, said, rule=name, ask=ask)


def _of_webhook(cause: Mapping[str, Any]) -> Cause:
    field, reason = str(cause.get("field") or ""), cause.get("reason")
    message, ask = _parted(str(cause["message"]))
    if found := _POLICY.fullmatch(field):
        who = ask or "whoever wrote that Policy"
        return Cause(Layer.POLICY, message, rule=f"{found['name']} {found['rule']}", field=None, ask=who)
    if found := _AXIS.fullmatch(message):
        return Cause(Layer.AUTHORITY, message, rule=reason, field=field, ask=ask, **found.groupdict())
    layer = Layer.AUTHORITY if reason == "AuthorityExceeded" else Layer.GRAPH
    return Cause(layer, message, rule=reason, field=field, ask=ask or "whoever writes the object")


def _parted(message: str) -> tuple[str, str | None]:
    """A message and who it says to ask (``domain.admission.Violation.text``)."""
    found = _ASK.fullmatch(message)
    return (found["said"], found["ask"]) if found else (message, None)
