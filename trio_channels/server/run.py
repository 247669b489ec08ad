"""A server: hypercorn's configuration, lifespan and sockets, with our connections."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from random import randint
from typing import Any, cast

import trio
from django.conf import settings
from hypercorn.config import Config, Sockets
from hypercorn.trio.statsd import StatsdLogger
from hypercorn.trio.udp_server import UDPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Framework, LifespanState
from hypercorn.utils import repr_socket_addr, wrap_app

from .. import _conf
from .._asgi.foreign import refuse_foreign
from .._asgi.mounting import check
from .._asgi.protocol import ASGIApplication
from .._concurrency.blocked import reporting
from .._concurrency.exception_groups import bare
from .._metrics import recording
from ..exceptions import ConfigurationError
from .accepting import Acceptor, descriptor_problem
from .access_log import use_our_log
from .connections import Server, ServerStatistics
from .hardening import version_problem
from .lifespan import CANNOT_START, CRASHED, Lifespan, LifespanFailed
from .limits import ServerLimits

logger = logging.getLogger("trio_channels.server")

_servers: trio.lowlevel.RunVar[list[Server]] = trio.lowlevel.RunVar("trio_channels.server.servers")

Trigger = Callable[[], Awaitable[object]]
Accept = Callable[[], Awaitable[object]]


async def serve(
    app: ASGIApplication | Framework,
    config: Config,
    *,
    shutdown_trigger: Trigger | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until the trigger returns; the interface is that of ``hypercorn.trio.serve``.

    Args:
        app: the application, with the types of trio-channels or of hypercorn.
        config: hypercorn's configuration. ``workers`` and the other options for processes are ignored.
        shutdown_trigger: when it returns, the server shuts down: it accepts no more connections, closes every
            WebSocket with 1012, lets requests end, and cancels the rest after ``SHUTDOWN_GRACE`` seconds.
        task_status: gets the bound addresses, such as ``["http://127.0.0.1:8000"]``, once connections are accepted.

    Raises:
        OSError: an address cannot be bound.
        ConfigurationError: the application needs asyncio, the installed version of hypercorn is not supported, or
            ``root_path`` is malformed.
        LifespanFailureError, LifespanTimeoutError: from hypercorn; the application did not start or end, or its
            lifespan failed meanwhile: then the server has drained. They may come in an exception group.

    Cancellation: closes all connections at once; applications are cancelled, and run their clean-up.
    """
    await worker_serve(
        wrap_app(cast(Framework, app), config.wsgi_max_body_size, None),
        config,
        shutdown_trigger=shutdown_trigger,
        task_status=task_status,
    )


def statistics() -> ServerStatistics:
    """The sums of the figures of all servers in this Trio run.

    Raises:
        RuntimeError: called outside of a Trio run.
    """
    servers = _servers.get([])
    return ServerStatistics(
        connections=sum(len(server.connections) for server in servers),
        websockets=sum(len(server.websockets) for server in servers),
        requests=sum(len(server.requests) for server in servers),
        accepted=sum(server.accepted for server in servers),
        refused=sum(server.refused for server in servers),
        refusals=dict(sum((server.refusals for server in servers), Counter())),
        ended=dict(sum((server.ended for server in servers), Counter())),
        ending=any(server.ending for server in servers),
    )


async def worker_serve(
    app: AppWrapper,
    config: Config,
    *,
    sockets: Sockets | None = None,
    shutdown_trigger: Trigger | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As hypercorn's ``worker_serve``, with our connections. Raises and cancellation: as :func:`serve`."""
    if problem := version_problem():
        raise ConfigurationError(problem)
    refuse_foreign(app)
    check(config.root_path)
    config.set_statsd_logger_class(StatsdLogger)
    use_our_log(config)
    limits = ServerLimits.of(config)
    state: LifespanState = {}
    lifespan = Lifespan(app, config, state)
    most = config.max_requests
    context = WorkerContext(None if most is None else most + randint(0, config.max_requests_jitter))
    server = Server(app, config, limits, context, state)
    async with trio.open_nursery() as lifespan_nursery:
        lifespan_nursery.start_soon(lifespan.run)
        await lifespan.start_up()
        with _registered(server), _watched():
            async with trio.open_nursery() as times:
                times.start_soon(server.clock.run)
                if recording.recorder is not None:
                    times.start_soon(recording.recorder.watch_loop)
                async with trio.open_nursery() as connections:
                    binds, accept = await _open(server, sockets, connections)
                    task_status.started(binds)
                    await _until_shutdown(accept, context, lifespan, shutdown_trigger)
                    connections.cancel_scope.deadline = trio.current_time() + limits.shutdown_grace
                    connections.start_soon(server.see_off)
                times.cancel_scope.cancel()
        await lifespan.shut_down()
        lifespan_nursery.cancel_scope.cancel()


async def hardened_worker_serve(app: AppWrapper, config: Config, **options: Any) -> None:
    """:func:`worker_serve` in the place of hypercorn's; hypercorn's log says so once in each process."""
    use_our_log(config)
    await config.log.info("This worker's connections are hardened by trio-channels (HARDEN_HYPERCORN)")
    warn_of_descriptors()
    await worker_serve(app, config, **options)


async def hardened_worker(app: AppWrapper, config: Config, **options: Any) -> None:
    """:func:`hardened_worker_serve` for hypercorn's command: a failed start is a line, and an exit code.

    Raises:
        SystemExit: the application or the configuration is wrong (CANNOT_START), or the application did not end in
            order, or failed before (CRASHED).
    """
    try:
        await hardened_worker_serve(app, config, **options)
    except Exception as error:
        failure = bare(error)
        if not isinstance(failure, LifespanFailed | ConfigurationError):
            raise
        await config.log.critical("%s", failure)
        has_served = isinstance(failure, LifespanFailed) and failure.stage != "startup"
        raise SystemExit(CRASHED if has_served else CANNOT_START) from None


def warn_of_descriptors() -> None:
    """Log if the process may not open as many files as it may have connections."""
    if problem := descriptor_problem(_conf.get("MAX_CONNECTIONS")):
        logger.warning(problem)


#: Seconds, under DEBUG. A frame of an animation that is late by as much is seen.
_BLOCKED = 0.1


def _watched() -> AbstractContextManager[None]:
    """In the block, log code that blocks the event loop, if the setting BLOCKED_LOOP or DEBUG says so."""
    limit = _conf.get("BLOCKED_LOOP")
    if limit is None:
        limit = _BLOCKED if _conf.available() and settings.DEBUG else 0.0
    return reporting(limit, _log_blocked) if limit else nullcontext()


def _log_blocked(seconds: float, task: str, stack: str) -> None:
    logger.warning(
        "the event loop has been blocked for %.2f seconds, so that all other connections of this process wait. Call "
        "blocking code through sync_to_async(). The task is %s:\n%s",
        seconds,
        task,
        stack,
    )


def _listening_sockets(config: Config) -> Sockets:
    sockets = config.create_sockets()
    for sock in [*sockets.secure_sockets, *sockets.insecure_sockets]:
        sock.listen(config.backlog)
    return sockets


@contextmanager
def _registered(server: Server) -> Iterator[None]:
    """Include the server in :func:`statistics` during the block."""
    try:
        servers = _servers.get()
    except LookupError:
        servers = []
        _servers.set(servers)
    servers.append(server)
    try:
        yield
    finally:
        servers.remove(server)


async def _open(server: Server, given: Sockets | None, connections: trio.Nursery) -> tuple[list[str], list[Accept]]:
    """The bound addresses, and the functions that accept connections on them."""
    config = server.config
    binds: list[str] = []
    accept: list[Accept] = []
    tls = config.create_ssl_context()  # before a socket is opened: it may fail
    sockets = given or _listening_sockets(config)
    if tls is not None:
        accept += [partial(Acceptor(server, sock, tls).run, connections) for sock in sockets.secure_sockets]
        binds += [f"https://{repr_socket_addr(sock.family, sock.getsockname())}" for sock in sockets.secure_sockets]
    accept += [partial(Acceptor(server, sock, None).run, connections) for sock in sockets.insecure_sockets]
    binds += [f"http://{repr_socket_addr(sock.family, sock.getsockname())}" for sock in sockets.insecure_sockets]
    for bind in binds:
        await config.log.info("Running on %s (CTRL + C to quit)", bind)
    for sock in sockets.quic_sockets:
        await connections.start(_serve_datagrams, server, sock)
        bind = repr_socket_addr(sock.family, sock.getsockname())
        await config.log.info("Running on https://%s (QUIC, as hypercorn has it) (CTRL + C to quit)", bind)
    return binds, accept


async def _serve_datagrams(server: Server, sock: socket.socket, task_status: trio.TaskStatus[None]) -> None:
    state = ConnectionState(server.state.copy())
    with sock:  # hypercorn leaves it open
        await UDPServer(server.app, server.config, server.context, state, sock).run(task_status=task_status)


async def _until_shutdown(
    accept: list[Accept], context: WorkerContext, lifespan: Lifespan, trigger: Trigger | None
) -> None:
    """Accept connections until the trigger returns, Ctrl-C, ``max_requests``, or the lifespan fails."""

    async def stop_after(wait: Trigger) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for run in accept:
                nursery.start_soon(run)
            nursery.start_soon(stop_after, context.terminate.wait)
            nursery.start_soon(stop_after, lifespan.failed)
            if trigger is not None:
                nursery.start_soon(stop_after, trigger)
    except* KeyboardInterrupt:
        pass
    finally:
        await context.terminated.set()
