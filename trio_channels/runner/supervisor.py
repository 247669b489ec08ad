"""The parent process: it starts the processes that serve, restarts those that crash, and has all of them drain."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .._concurrency.backoff import BackOff
from ..exceptions import CannotStart
from ..server.access_log import use_our_log
from ..server.lifespan import CRASHED
from .cli import Options
from .figures import Figures, Reporter
from .lifeline import READY, Inheritance
from .serving import STOP_SIGNALS, pid_file
from .sockets import Listeners, duplicates, listening

logger = logging.getLogger("trio_channels.runner")

#: Seconds before a crashed process is started again, before jitter: the first delay and the longest.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
#: Seconds of life after which earlier crashes are forgotten.
STEADY = 60.0
#: Failed starts in a row after which the parent gives up. The service manager takes over.
MAX_FAILED_STARTS = 5
#: Seconds that a process may take to end if it does not serve yet.
START_TIMEOUT = 30.0
#: Seconds to wait for the last figures of a process that has ended. They have been sent, or never will be.
LAST_FIGURES = 1.0


def run_parent(options: Options) -> int:
    """Serve in several child processes until a signal comes; returns the exit code. Raises CannotStart."""
    use_our_log(options.config)
    with listening(options.config) as listeners, pid_file(options.config):
        parent = _Parent(options, listeners)
        trio.run(parent.run)
        return parent.code


class _Child:
    """One process that serves, and the parent's end of its lifeline."""

    def __init__(self, process: trio.Process, lifeline: trio.SocketStream) -> None:
        self.process = process
        self.end_timeout = START_TIMEOUT  # the seconds that it may take to drain
        self._lifeline = lifeline
        self._reporter = Reporter(lifeline)
        self._started_at = trio.current_time()

    async def serves(self) -> bool:
        """Wait until it serves (True), or has ended before (False)."""
        received = b""
        try:
            while missing := READY.size - len(received):  # figures may come behind
                data = await self._lifeline.receive_some(missing)
                if not data:
                    break
                received += data
        except trio.BrokenResourceError:
            pass
        if len(received) < READY.size:
            return False
        (self.end_timeout,) = READY.unpack(received)
        return True

    @asynccontextmanager
    async def reporting(self, figures: Figures) -> AsyncIterator[None]:
        """In the block, the child takes part in the figures. At its end its last ones are waited for."""
        figures.add(self._reporter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reporter.run, figures)
            try:
                yield
                with trio.move_on_after(LAST_FIGURES):
                    await self._reporter.ended.wait()
            finally:
                figures.remove(self._reporter)
                nursery.cancel_scope.cancel()

    def drain(self) -> None:
        try:
            self._lifeline.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already

    @property
    def age(self) -> float:
        return trio.current_time() - self._started_at

    @property
    def end(self) -> str:
        """How it ended, as a sentence for log lines."""
        code = self.process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"process {self.process.pid} {how}"


class RestartBackoff(BackOff):
    """The delays between the restarts of one process: each is twice the last, until the process lives long enough."""

    def __init__(self) -> None:
        super().__init__(FIRST_DELAY, LONGEST_DELAY)

    def delay(self, age: float) -> float:
        """The seconds to wait before the restart of a process that crashed at this age, in seconds."""
        if age >= STEADY:
            self.reset()
        return self.next_delay()


class _Parent:
    def __init__(self, options: Options, listeners: Listeners) -> None:
        self.code = 0  # the exit code for this process
        self._options = options
        self._listeners = listeners
        self._children: set[_Child] = set()
        self._figures = Figures()
        self._first_settled = trio.Event()  # the first child serves, or has failed
        self._stop = trio.Event()

    async def run(self) -> None:
        """Run the child processes until all have ended. Cancellation: they drain, and are not waited for."""
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self._handle_signals, signals)
                helpers.start_soon(self._drain_on_stop)
                async with trio.open_nursery() as keepers:
                    # The first child starts alone, so that a failing start is logged once.
                    keepers.start_soon(self._keep_running, 1)
                    await self._first_settled.wait()
                    for number in range(2, self._options.workers + 1):
                        keepers.start_soon(self._keep_running, number)
                helpers.cancel_scope.cancel()

    async def _keep_running(self, number: int) -> None:
        """Keep one child running until the parent stops."""
        backoff = RestartBackoff()
        failed_starts: int | None = None  # since the child last served; None if it never has
        while not self._stop.is_set():
            try:
                async with self._running(number) as child, self._killed_if_late(child):
                    served = await child.serves()
                    if served:
                        failed_starts = 0
                        self._first_settled.set()
                    async with child.reporting(self._figures):
                        code = await child.process.wait()
            except CannotStart as error:  # the system is short of processes or descriptors: the other children go on
                failed_starts = MAX_FAILED_STARTS if failed_starts is None else failed_starts + 1
                if failed_starts >= MAX_FAILED_STARTS:
                    self._give_up(str(error), CRASHED)
                else:
                    await self._wait_to_restart(backoff.delay(0), logging.ERROR, str(error))
                continue
            if self._stop.is_set():
                if served and code:
                    logger.error("%s while it was draining", child.end)
                    self.code = self.code or CRASHED
            elif not served and failed_starts is None:
                self._give_up(f"{child.end}, and never served", code)
            elif not served and failed_starts == MAX_FAILED_STARTS - 1:
                self._give_up(f"{child.end}: {MAX_FAILED_STARTS} failed starts in a row", CRASHED)
            else:
                failed_starts = 0 if served else (failed_starts or 0) + 1
                orderly = served and code == 0
                # No delay after an orderly end: with `max_requests` there are many.
                delay = 0.0 if orderly and child.age > FIRST_DELAY else backoff.delay(child.age)
                await self._wait_to_restart(delay, logging.INFO if orderly else logging.ERROR, child.end)
        self._first_settled.set()

    @asynccontextmanager
    async def _running(self, number: int) -> AsyncIterator[_Child]:
        """Start a child process. Raises CannotStart if the system is short of processes or descriptors."""
        async with AsyncExitStack() as stack:
            try:
                with duplicates(self._listeners) as listeners:
                    ours, theirs = socket.socketpair()
                    with theirs:
                        lifeline = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
                        await stack.enter_async_context(lifeline)
                        process = await self._start(Inheritance(number, theirs.fileno(), listeners))
            except OSError as error:
                raise CannotStart(f"the system cannot start another process: {error}") from None
            child = _Child(process, lifeline)
            self._children.add(child)
            if self._stop.is_set():
                child.drain()
            try:
                yield child
            finally:
                self._children.discard(child)

    @asynccontextmanager
    async def _killed_if_late(self, child: _Child) -> AsyncIterator[None]:
        """Kill the child if it does not drain in time: its event loop is frozen."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_when_late, child)
            yield
            nursery.cancel_scope.cancel()

    async def _kill_when_late(self, child: _Child) -> None:
        await self._stop.wait()
        await trio.sleep(child.end_timeout)
        logger.error(
            "process %d did not end within %g seconds; killing it. Its event loop may be frozen",
            child.process.pid,
            child.end_timeout,
        )
        child.process.kill()

    async def _start(self, inheritance: Inheritance) -> trio.Process:
        warnings = [f"-W{option}" for option in sys.warnoptions]
        return await trio.lowlevel.open_process(
            [sys.executable, *warnings, "-m", "trio_channels", *self._options.arguments],
            env=inheritance.environment(),
            pass_fds=inheritance.descriptors(),
        )

    async def _wait_to_restart(self, delay: float, level: int, reason: str) -> None:
        logger.log(level, "%s; starting another in %.1f seconds", reason, delay)
        with trio.move_on_after(delay):
            await self._stop.wait()

    def _give_up(self, reason: str, code: int) -> None:
        logger.critical("stopping: %s", reason)
        self.code = code if code > 0 else CRASHED
        self._stop.set()

    async def _drain_on_stop(self) -> None:
        await self._stop.wait()
        # New clients would wait in the backlog of an open socket from which no process accepts.
        for _, sock in self._listeners:
            sock.close()
        for child in self._children:
            child.drain()

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        number = await anext(signals)
        logger.info("%s: draining; a second signal ends all processes at once", signal.Signals(number).name)
        self._stop.set()
        number = await anext(signals)
        logger.warning("%s: the second signal; ending all processes at once", signal.Signals(number).name)
        self.code = 128 + number  # as shells report the end by a signal
        for child in self._children:
            child.process.kill()
