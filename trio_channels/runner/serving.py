"""The one process that serves: the main process, or a worker."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from .. import _conf
from .._asgi.protocol import ASGIApplication, Message, Receive, Scope, Send
from .._concurrency.watchdog import Watchdog
from ..exceptions import CannotStart
from ..layers import InMemoryChannelLayer, channel_layers
from ..server.limits import ServerLimits
from ..server.run import worker_serve
from .cli import Options
from .exit_codes import CRASHED
from .lifeline import Lifeline, Place
from .loading import load
from .log import open_log
from .pin import choose, keep_to, offset_of_server
from .sockets import descriptors, listening, use

logger = logging.getLogger("trio_channels.runner")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds beyond the time that the settings give: what is then still there is a thread that hangs, or a frozen loop.
FAREWELL = 1.0


def run_single(options: Options) -> int:
    """Serve in this process until a signal comes; returns the exit code.

    Raises:
        CannotStart: something is missing, wrong or taken.
    """
    core = choose(os.sched_getaffinity(0), offset_of_server(), 0) if options.pin else None
    with listening(options.config) as listeners, pid_file(options.config):
        use(options.config, descriptors(listeners))
        for _, sock in listeners:
            sock.detach()
        return _run(options, None, core)


def run_worker(options: Options, place: Place) -> int:
    """Serve in this process until its parent wants it to end; returns and raises as :func:`run_single`."""
    use(options.config, place.listeners)
    return _run(options, place, place.core)


@contextmanager
def pid_file(config: Config) -> Iterator[None]:
    """Hypercorn's option `pid_path`: a file with this process' id, for the length of the block."""
    if config.pid_path is None:
        yield
        return
    path = Path(config.pid_path)
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _run(options: Options, place: Place | None, core: int | None) -> int:
    config = options.config
    if core is not None:
        keep_to(core)  # before the application is loaded, which may start threads
    try:
        config.create_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CannotStart(f"the TLS certificate cannot be used: {error}") from None
    application = load(options.application)
    open_log(config)
    if core is not None:
        logger.info("%s keeps to core %d", "the server" if place is None else f"worker {place.number}", core)
    if place is not None and place.number == 1:
        warn_of_islands(options.workers)
    with Watchdog(logger) as watchdog:
        process = _Process(application, config, place, watchdog)
        try:
            trio.run(process.run)
        except Exception as error:
            if not process.started:
                raise _why_not_started(error) from None
            logger.critical("the server failed", exc_info=error)
            return CRASHED
    return 0


def warn_of_islands(workers: int) -> None:
    """Say that a layer which is one per process does not join the workers; once, by the first of them."""
    for alias in channel_layers.configs:
        if isinstance(channel_layers[alias], InMemoryChannelLayer):
            logger.warning(
                "the channel layer %r is one in each of the %d workers: members of a group do not hear those of "
                "another. Use a layer that joins processes, or one worker",
                alias,
                workers,
            )


def _why_not_started(error: Exception) -> CannotStart:
    leaf = error
    while isinstance(leaf, ExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    if isinstance(leaf, LifespanFailureError | LifespanTimeoutError):
        return CannotStart(f"the application does not start: {leaf}")
    failure = CannotStart("the server failed before it served anything")
    failure.__cause__ = leaf
    return failure


class _Process:
    """Serves until it is told to stop.

    Attributes:
        started: whether it has come to serve.
    """

    def __init__(self, application: ASGIApplication, config: Config, place: Place | None, watchdog: Watchdog) -> None:
        self.started = False
        self._refused = False
        self._stop = trio.Event()
        self._application = application
        self._config = config
        self._place = place
        self._watchdog = watchdog
        self._drain_time = 0.0

    async def run(self) -> None:
        """Serve, to the end of the drain.

        Cancellation: the server is cancelled, without a drain.
        """
        grace = ServerLimits.of(self._config).shutdown_grace
        self._drain_time = grace + _conf.limits().disconnect_timeout + FAREWELL
        if self._place is None:
            await self._run(None)
        else:
            async with Lifeline(self._place.lifeline) as lifeline:
                await self._run(lifeline)

    async def _run(self, lifeline: Lifeline | None) -> None:
        starting = trio.CancelScope()
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            self._obey_even_if_frozen()
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self._obey_signals, signals)
                helpers.start_soon(self._stop_starting, starting)
                if lifeline is not None:
                    helpers.start_soon(self._obey_parent, lifeline)
                with starting:
                    await self._serve(lifeline)
                helpers.cancel_scope.cancel()

    async def _serve(self, lifeline: Lifeline | None) -> None:
        async with trio.open_nursery() as nursery:
            application = ASGIWrapper(cast(Any, self._watched))
            await nursery.start(partial(worker_serve, application, self._config, shutdown_trigger=self._until_end))
            if self._refused:
                return  # hypercorn says that it serves, and fails a moment later
            self.started = True
            if lifeline is not None:
                await lifeline.ready(self._drain_time + self._config.shutdown_timeout + 2 * FAREWELL)

    def _watched(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The application; not as a coroutine of its own, which would be on the way of every message."""
        if scope["type"] == "lifespan":
            return self._application(scope, self._noting_end(receive), self._noting_refusal(send))
        return self._application(scope, receive, send)

    def _noting_end(self, receive: Receive) -> Receive:
        async def noted() -> Message:
            message: Message = await receive()
            if message["type"] == "lifespan.shutdown":  # the connections have ended; hypercorn waits so long for this
                self._watchdog.within(self._config.shutdown_timeout + FAREWELL, CRASHED)
            return message

        return noted

    def _noting_refusal(self, send: Send) -> Send:
        async def noted(message: Message) -> None:
            self._refused = self._refused or message["type"] == "lifespan.startup.failed"
            await send(message)

        return noted

    async def _until_end(self) -> None:
        try:
            await self._stop.wait()
        finally:  # or the worker has had its `max_requests`
            self._limit_drain()

    def _limit_drain(self) -> None:
        """Have the process end, if need be by force, when everybody has had the time that the settings give them."""
        self._watchdog.within(self._drain_time, CRASHED)

    async def _stop_starting(self, starting: trio.CancelScope) -> None:
        await self._stop.wait()
        if not self.started:
            self._limit_drain()
            starting.cancel()

    async def _obey_parent(self, lifeline: Lifeline) -> None:
        await lifeline.wait_closed()
        self._stop.set()

    def _obey_even_if_frozen(self) -> None:
        """Have a signal limit the time that is left, and the next one end it, be the loop as busy as it may."""
        tell_trio = {number: signal.getsignal(number) for number in STOP_SIGNALS}

        def obey(number: int, frame: FrameType | None) -> None:
            self._limit_drain()
            # Not a worker: a terminal and some supervisors send to the parent and to its workers, and the parent is
            # who counts.
            for each in STOP_SIGNALS:
                signal.signal(each, signal.SIG_DFL if self._place is None else signal.SIG_IGN)
            cast(Callable[[int, FrameType | None], None], tell_trio[signal.Signals(number)])(number, frame)

        for number in STOP_SIGNALS:
            signal.signal(number, obey)

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        number = await anext(signals)
        logger.info("%s: draining; another one ends it at once", signal.Signals(number).name)
        self._stop.set()
