"""A process that serves: the main process, or a child of it."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, reduce
from pathlib import Path
from types import FrameType
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.utils import LifespanTimeoutError

from .. import _conf
from .._asgi.foreign import refuse_foreign, refuse_other_callables
from .._asgi.protocol import ASGIApplication, Message, Receive, Scope, Send
from .._concurrency.exception_groups import bare
from .._concurrency.system import allow_open_files
from .._concurrency.watchdog import Watchdog
from .._metrics import recording
from .._metrics.snapshot import Snapshot
from ..exceptions import CannotStart, ConfigurationError, InvalidChannelLayerError
from ..layers import InMemoryChannelLayer, channel_layers
from ..metrics.collecting import collect
from ..server.accepting import RESERVE
from ..server.access_log import use_our_log
from ..server.lifespan import CRASHED, LifespanFailed
from ..server.limits import ServerLimits
from ..server.run import warn_of_descriptors, worker_serve
from .cli import Options
from .lifeline import Inheritance, Lifeline
from .sockets import descriptors, listening, use

logger = logging.getLogger("trio_channels.runner")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds added to the time that the settings give. A process that takes longer has a hanging thread or a frozen loop.
MARGIN = 1.0
#: The application's name in Django's ``asgi.py``.
_DEFAULT = "application"


def run_single(options: Options) -> int:
    """Serve in this process until a signal comes; returns the exit code. Raises CannotStart."""
    with listening(options.config) as listeners, pid_file(options.config):
        use(options.config, descriptors(listeners))
        for _, sock in listeners:
            sock.detach()
        return _serve(options, None)


def run_child(options: Options, inheritance: Inheritance) -> int:
    """Serve in this process until its parent tells it to drain; returns and raises as :func:`run_single`."""
    use(options.config, inheritance.listeners)
    return _serve(options, inheritance)


def load(name: str) -> ASGIApplication:
    """Import an application by its name, ``module:attribute``. Raises CannotStart."""
    here = str(Path.cwd())  # on the import path, as manage.py has it
    if here not in sys.path:
        sys.path.insert(0, here)
    module_name, colon, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            reason = f"{name!r}: there is no module {error.name!r} in {here} or on the import path"
            hint = "" if colon else "; expected module:attribute, such as 'mysite.asgi:application'"
            raise CannotStart(reason + hint) from None
        raise CannotStart(f"importing {module_name!r} failed") from error
    except Exception as error:
        raise CannotStart(f"importing {module_name!r} failed") from error
    try:
        application: Any = reduce(getattr, (attribute or _DEFAULT).split("."), cast(Any, module))
    except AttributeError as error:
        raise CannotStart(f"{name!r}: {error}; expected module:attribute, such as 'mysite.asgi:application'") from None
    if not callable(application):
        raise CannotStart(f"{name!r} must be an ASGI application, a callable; got {type(application).__name__}")
    try:
        refuse_foreign(application)
        refuse_other_callables(application)
    except ConfigurationError as error:
        raise CannotStart(f"{name!r}: {error}") from None
    return cast(ASGIApplication, application)


@contextmanager
def pid_file(config: Config) -> Iterator[None]:
    """Write the file of hypercorn's option `pid_path`, with this process' id, and remove it after the block."""
    if config.pid_path is None:
        yield
        return
    path = Path(config.pid_path)
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _serve(options: Options, inheritance: Inheritance | None) -> int:
    config = options.config
    try:
        config.create_ssl_context()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CannotStart(
            f"cannot use the TLS certificate {config.certfile!r} with the key {config.keyfile!r}: {error}"
        ) from None
    application = load(options.application)
    use_our_log(config)
    if inheritance is not None and inheritance.number == 1:
        warn_of_separate_layers(options.workers)
    with Watchdog(logger) as watchdog:
        process = _Process(application, config, inheritance, watchdog)
        try:
            trio.run(process.run)
        except Exception as error:
            if not process.started:
                failure = _startup_error(error)
                raise failure from failure.__cause__
            cause = bare(error)
            if isinstance(cause, LifespanFailed):
                logger.critical("%s", cause)
            else:
                logger.critical("the server failed", exc_info=error)
            return CRASHED
    return 0


def warn_of_separate_layers(processes: int) -> None:
    """Warn of channel layers that do not connect the processes. The first process logs this for all.

    Raises CannotStart for a layer that is configured wrongly.
    """
    for alias in channel_layers.configs:
        try:
            layer = channel_layers[alias]
        except InvalidChannelLayerError as error:
            raise CannotStart(str(error)) from None
        if isinstance(layer, InMemoryChannelLayer):
            logger.warning(
                "the channel layer %r is in memory, and each of the %d processes has one of its own: a message to a "
                "group reaches only the members in the same process. Use RedisStreamsChannelLayer, or --workers 1",
                alias,
                processes,
            )


def _startup_error(error: Exception) -> CannotStart:
    cause = bare(error)
    if isinstance(cause, LifespanFailed):
        return CannotStart(str(cause))
    if isinstance(cause, LifespanTimeoutError):
        return CannotStart(f"the application did not start: {cause}")
    failure = CannotStart("the server failed before it served")
    failure.__cause__ = cause
    return failure


def _figures() -> Snapshot:
    """The figures of this process; none unless its application has a MetricsApplication."""
    return {} if recording.recorder is None else collect(recording.recorder)


class _Process:
    """Serves until a signal, or the parent, tells it to drain."""

    def __init__(
        self, application: ASGIApplication, config: Config, inheritance: Inheritance | None, watchdog: Watchdog
    ) -> None:
        self.started = False  # whether it serves, or has served
        self._stop = trio.Event()
        self._application = application
        self._config = config
        self._inheritance = inheritance
        self._watchdog = watchdog
        self._drain_time = 0.0
        self._last_figures: Snapshot = {}

    async def run(self) -> None:
        """Serve until the drain has ended. Cancellation: the server is cancelled, without a drain."""
        grace = ServerLimits.of(self._config).shutdown_grace
        self._drain_time = grace + _conf.limits().disconnect_timeout + MARGIN
        lifeline = None if self._inheritance is None else Lifeline(self._inheritance.lifeline)
        starting = trio.CancelScope()
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            self._handle_signals_of_frozen_loop()
            async with lifeline or nullcontext(), trio.open_nursery() as helpers:
                helpers.start_soon(self._handle_signals, signals)
                helpers.start_soon(self._cancel_startup_on_stop, starting)
                if lifeline is not None:
                    helpers.start_soon(self._stop_with_parent, lifeline)
                with starting:
                    await self._serve(lifeline)
                if lifeline is not None and self._last_figures:
                    with trio.move_on_after(MARGIN):
                        await lifeline.report_last(self._last_figures)
                helpers.cancel_scope.cancel()

    async def _serve(self, lifeline: Lifeline | None) -> None:
        allow_open_files(_conf.get("MAX_CONNECTIONS") + RESERVE)
        warn_of_descriptors()
        async with trio.open_nursery() as nursery:
            application = ASGIWrapper(cast(Any, self._observed))
            await nursery.start(partial(worker_serve, application, self._config, shutdown_trigger=self._wait_for_stop))
            self.started = True
            if lifeline is not None:
                if recording.recorder is not None:
                    recording.recorder.others = lifeline.sum
                await lifeline.ready(self._drain_time + self._config.shutdown_timeout + 2 * MARGIN)

    def _observed(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """The application, with its lifespan observed. Not a coroutine: that would slow every message."""
        if scope["type"] == "lifespan":
            return self._application(scope, self._observe_shutdown(receive), send)
        return self._application(scope, receive, send)

    def _observe_shutdown(self, receive: Receive) -> Receive:
        async def observed() -> Message:
            message: Message = await receive()
            if message["type"] == "lifespan.shutdown":
                # All connections have ended. Hypercorn gives the application `shutdown_timeout` from here.
                self._watchdog.within(self._config.shutdown_timeout + MARGIN, CRASHED)
                self._last_figures = _figures()
            return message

        return observed

    async def _wait_for_stop(self) -> None:
        try:
            await self._stop.wait()
        finally:  # it is cancelled if this process has had its `max_requests`
            self._limit_drain()

    def _limit_drain(self) -> None:
        """End the process by force if the drain takes longer than the settings allow."""
        self._watchdog.within(self._drain_time, CRASHED)

    async def _cancel_startup_on_stop(self, starting: trio.CancelScope) -> None:
        await self._stop.wait()
        if not self.started:
            self._limit_drain()
            starting.cancel()

    async def _stop_with_parent(self, lifeline: Lifeline) -> None:
        await lifeline.wait_closed(_figures)
        self._stop.set()

    def _handle_signals_of_frozen_loop(self) -> None:
        """Make the first signal limit the drain, and the second end the process, even if the event loop is frozen."""
        handlers_of_trio = {number: signal.getsignal(number) for number in STOP_SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            self._limit_drain()
            # A child ignores the second signal. Terminals and some service managers signal parent and children alike,
            # and only the parent decides.
            for each in STOP_SIGNALS:
                signal.signal(each, signal.SIG_DFL if self._inheritance is None else signal.SIG_IGN)
            cast(Callable[[int, FrameType | None], None], handlers_of_trio[signal.Signals(number)])(number, frame)

        for number in STOP_SIGNALS:
            signal.signal(number, handle)

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        number = await anext(signals)
        consequence = "" if self._inheritance is not None else "; a second signal ends the process at once"
        logger.info("%s: draining%s", signal.Signals(number).name, consequence)
        self._stop.set()
