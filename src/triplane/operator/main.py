"""Starts and ends the operator process. Any instant is a good one to kill it: everything it knows can be read
again.

Exit codes: 0 told to stop, 1 it cannot go on, 2 settings or credentials that cannot work, 3 fenced by a newer
operator, 4 the API server went back in time, 5 the log is not the one whose checkpoints were signed.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from triplane import endpoints, processmemory
from triplane.adapters.cel.expressions import CelExpressions
from triplane.adapters.cel.policies import CelPolicies
from triplane.adapters.clock import SystemClock
from triplane.adapters.filesystem.accounts import read_accounts
from triplane.adapters.filesystem.ceiling import read_ceiling
from triplane.adapters.kube.cluster import KubeCluster
from triplane.adapters.meteredlog import MeteredLog
from triplane.controllers.registry import Reconcilers
from triplane.errors import Contradicted, Fenced, InvalidInput, TriplaneError, Unavailable
from triplane.logging import configure_logging
from triplane.operator.gauges import expose
from triplane.operator.health import HealthServer
from triplane.operator.keys import follow
from triplane.operator.metrics import Metrics
from triplane.operator.notary import expose_notary, notarised, open_notary
from triplane.operator.principals import Principals
from triplane.operator.rescan import Herald, expose_rescan, open_rescan, rescanning
from triplane.operator.rewind import Rewound
from triplane.operator.shell import Shell, Stores
from triplane.settings import Settings
from triplane.wiring import OperatorBackends, gateway_url, open_operator, own_trust, service_token

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
EXIT_STOPPED, EXIT_FAILED, EXIT_UNUSABLE, EXIT_FENCED, EXIT_REWOUND, EXIT_CONTRADICTED = range(6)
EXIT_CODES: Final = (
    (Fenced, EXIT_FENCED),
    (Rewound, EXIT_REWOUND),
    (Contradicted, EXIT_CONTRADICTED),
    (InvalidInput, EXIT_UNUSABLE),
    (TriplaneError, EXIT_FAILED),
)
FORCED_EXIT_SECONDS: Final = 30.0
"""A stop that takes longer is cut short: the next operator takes up what is left."""


def main() -> int:
    """Run the operator of this process's settings until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = Settings()
        configure_logging(settings.log_level)
    except ValueError as error:
        print(f"triplane operator: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    try:
        return asyncio.run(run(settings))
    except TriplaneError as error:
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        # Expected ends: their message says what to do, a traceback would bury it.
        log.error("the operator ends", error=f"{type(error).__name__}: {error}", code=code)  # noqa: TRY400
        return code


async def run(settings: Settings) -> int:
    """Open the planes, begin a new epoch, work until told to stop."""
    stop = _stop_on_signals()
    planes = await _insist(lambda: open_operator(settings), stop)
    if planes is None:
        return EXIT_STOPPED
    try:
        epoch = await _insist(planes.log.begin_epoch, stop)
        if epoch is None:
            return EXIT_STOPPED
        log.info("operator started", epoch=epoch, namespace=settings.namespace or "all")
        await _work(settings, planes, stop)
        log.info("operator stopped")
        return EXIT_STOPPED
    finally:
        await planes.close()


async def _work(settings: Settings, planes: OperatorBackends, stop: asyncio.Event) -> None:
    clock = SystemClock()
    ceiling, accounts = read_ceiling(settings.authority), read_accounts(settings.accounts)
    metrics = Metrics()
    event_log = MeteredLog(planes.log, metrics.appended)
    metrics.appending = lambda: event_log.waiting
    cluster = KubeCluster(settings.kubeconfig, fence=planes.log.check_epoch, clock=clock, meter=metrics)
    gateway = Principals(lambda: gateway_url(settings), lambda: service_token(settings, "operator"))
    shell = Shell(
        cluster,
        Stores(planes.log, planes.sessions),
        clock,
        kubeconfig=settings.kubeconfig,
        namespace=settings.namespace,
        lease_seconds=settings.lease_seconds,
        accept_restore=settings.accept_restore,
        path_open=gateway.answers,
        metrics=metrics,
    )
    expose(metrics, shell, clock)
    expressions, policies = CelExpressions(), CelPolicies()
    reconcilers = Reconcilers(
        cluster,
        shell.index,
        event_log,
        planes.sessions,
        planes.graph,
        planes.content,
        gateway.principal,
        clock,
        shell.enqueue,
        expressions=expressions,
        policies=policies,
        contracts=planes.contracts,
        ceiling=ceiling,
        accounts=accounts,
        keys=planes.keys,
        max_concurrent_sessions=settings.max_concurrent_sessions,
    )
    health = HealthServer(shell, clock)
    try:
        port = await health.start()
        await asyncio.to_thread(endpoints.announce, settings.run, "operator", f"http://127.0.0.1:{port}")
        following = asyncio.create_task(follow(reconcilers.signing))
        try:
            notary = open_notary(settings, planes, cluster, clock)
            expose_notary(metrics, notary, clock, settings.witness_quorum)
            await _insist(notary.begin, stop)
            herald = Herald(cluster, cluster, clock)
            rescan = open_rescan(
                settings, planes.log, planes.checkpoints, lambda: own_trust(settings, planes.log.origin), herald
            )
            expose_rescan(metrics, rescan)
            processmemory.settle()
            async with notarised(notary, stop), rescanning(rescan, clock):
                await shell.run(reconcilers, stop)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    finally:
        await health.stop()
        await gateway.close()
        await policies.close()
        await expressions.close()
        await cluster.close()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: int) -> None:
        log.info("told to stop", signal=signal.Signals(number).name)
        stop.set()
        # The kernel ends us if our own ending hangs: SIGALRM's default action is to terminate.
        signal.setitimer(signal.ITIMER_REAL, FORCED_EXIT_SECONDS)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    return stop


async def _insist(attempt: Callable[[], Awaitable[Any]], stop: asyncio.Event) -> Any | None:
    """What ``attempt`` returns, as soon as the backends are there; None when told to stop first."""
    tries = 0
    while not stop.is_set():
        try:
            return await attempt()
        except Unavailable as error:
            wait = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
            log.warning("waiting for a backend", error=str(error), seconds=wait)
            tries += 1
            try:
                await asyncio.wait_for(stop.wait(), wait)
            except TimeoutError:
                continue
    return None
