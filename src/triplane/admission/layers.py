"""Which layers judge a request, in the order in which their objections are listed."""

from collections.abc import Awaitable, Callable

from triplane.adapters.cel.expressions import CelExpressions
from triplane.adapters.cel.policies import CelPolicies
from triplane.adapters.filesystem.ceiling import read_ceiling
from triplane.adapters.kube.lookup import Lookup
from triplane.adapters.kube.watched import Watched
from triplane.admission.app import Layers
from triplane.admission.authority import AuthorityCheck
from triplane.admission.checks import GraphCheck
from triplane.admission.independence import SelfReviewCheck
from triplane.admission.lenses import LensCheck
from triplane.admission.policies import BrokenPolicies, PolicyCheck
from triplane.admission.violations import ViolationNotes
from triplane.settings import Settings
from triplane.wiring import gateway_url, service_token


def layers_of(settings: Settings) -> Layers:
    """The layers of a process with these settings. Raises ``InvalidInput`` for settings that cannot work."""
    lookup, expressions = Lookup(settings.kubeconfig), CelExpressions()
    # Two workers: compiling somebody's new Policy must not keep everybody else's requests waiting.
    broken, engine = CelPolicies(), CelPolicies()
    policies = Watched(lookup, "Policy")
    known = {kind: Watched(lookup, kind) for kind in ("Graph", "Agent")}
    notes = ViolationNotes(lambda: gateway_url(settings), lambda: service_token(settings, "admission"))
    checks = (
        GraphCheck(expressions),
        AuthorityCheck(read_ceiling(settings.authority)),
        LensCheck(),
        SelfReviewCheck(),
        BrokenPolicies(broken),
        PolicyCheck(policies, engine, notes, known),
    )
    closed = (lookup, expressions, broken, engine)
    return Layers(checks, lookup, (*(Closed(each.close) for each in closed), notes, policies, *known.values()))


class Closed:
    """A part that is ready at once, and only has to be closed."""

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close

    async def start(self) -> None:
        """Nothing to begin."""

    def missing(self) -> str | None:
        """Nothing to wait for."""
        return None

    async def close(self) -> None:
        """Close it."""
        await self._close()
