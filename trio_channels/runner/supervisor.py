"""The parent of several workers: starts them, starts again those that crash, and has each drain."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from .._concurrency.backoff import BackOff
from ..exceptions import CannotStart
from .cli import Options
from .exit_codes import CRASHED
from .lifeline import READY, Place
from .log import open_log
from .pin import choose, offset_of_server, warn_of_sharing
from .serving import STOP_SIGNALS, pid_file
from .sockets import Listeners, descriptors, listening

logger = logging.getLogger("trio_channels.runner")

#: Seconds before a crashed worker is started again, before jitter: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: Seconds after which a worker's earlier crashes are forgotten.
STEADY = 60.0
#: Starts in a row that may fail before the parent gives up, and leaves it to the supervisor.
MAX_FAILED_STARTS = 5
#: Seconds that a worker which does not serve yet may take to end.
START_PATIENCE = 30.0


def run_parent(options: Options) -> int:
    """Serve in several worker processes until a signal comes; returns the exit code.

    Raises:
        CannotStart: an address cannot be listened on. What else stands in the way, a worker says.
    """
    open_log(options.config)
    if options.pin:
        warn_of_sharing(options.workers)
    with listening(options.config) as listeners, pid_file(options.config):
        parent = _Parent(options, listeners)
        trio.run(parent.run)
        return parent.code


class _Worker:
    """One worker process, and the parent's end of its lifeline.

    Attributes:
        patience: seconds that it may take to end when it is told to.
    """

    def __init__(self, process: trio.Process, lifeline: trio.SocketStream) -> None:
        self.process = process
        self.patience = START_PATIENCE
        self._lifeline = lifeline
        self._began = trio.current_time()

    async def serves(self) -> bool:
        """Wait until it serves, or has ended without."""
        said = b""
        try:
            while len(said) < READY.size and (more := await self._lifeline.receive_some(READY.size - len(said))):
                said += more
        except trio.BrokenResourceError:
            pass
        if len(said) < READY.size:
            return False
        (self.patience,) = READY.unpack(said)
        return True

    def drain(self) -> None:
        """Have it end in an orderly way."""
        try:
            self._lifeline.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended

    @property
    def lived(self) -> float:
        """Seconds since its start."""
        return trio.current_time() - self._began

    @property
    def end(self) -> str:
        """How it ended, for log lines."""
        code = self.process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"worker {self.process.pid} {how}"


class _Parent:
    """Keeps the workers.

    Attributes:
        code: what this process is to exit with.
    """

    def __init__(self, options: Options, listeners: Listeners) -> None:
        self.code = 0
        self._options = options
        self._listeners = listeners
        self._offset = offset_of_server()
        self._workers: set[_Worker] = set()
        self._first_is_known = trio.Event()
        self._stop = trio.Event()

    async def run(self) -> None:
        """Run the workers until all have ended.

        Cancellation: the workers drain, without being waited for.
        """
        with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self._obey_signals, signals)
                helpers.start_soon(self._drain_when_told)
                async with trio.open_nursery() as keepers:
                    # The first alone: what keeps it from starting is said once.
                    keepers.start_soon(self._keep, 1)
                    await self._first_is_known.wait()
                    for number in range(2, self._options.workers + 1):
                        keepers.start_soon(self._keep, number)
                helpers.cancel_scope.cancel()

    async def _keep(self, number: int) -> None:
        """Keep one worker running until the parent stops."""
        back_off = BackOff(FIRST_PAUSE, LONGEST_PAUSE)
        failed_starts: int | None = None  # since it last served; None before it ever has
        while not self._stop.is_set():
            try:
                async with self._running(number) as worker, self._killed_if_it_stays(worker):
                    serves = await worker.serves()
                    if serves:
                        failed_starts = 0
                        self._first_is_known.set()
                    code = await worker.process.wait()
            except CannotStart as error:  # no process, or no descriptors, for the moment: no reason to end the others
                failed_starts = MAX_FAILED_STARTS if failed_starts is None else failed_starts + 1
                if failed_starts >= MAX_FAILED_STARTS:
                    self._give_up(str(error), CRASHED)
                else:
                    await self._pause_for(back_off.next_delay(), logging.ERROR, str(error))
                continue
            if self._stop.is_set():
                self._ended_while_stopping(worker, served=serves)
            elif not serves and failed_starts is None:
                self._give_up(f"{worker.end}, and never served", code)
            elif not serves and failed_starts == MAX_FAILED_STARTS - 1:
                self._give_up(f"{worker.end}: {MAX_FAILED_STARTS} failed starts in a row", CRASHED)
            else:
                failed_starts = 0 if serves else (failed_starts or 0) + 1
                await self._pause(worker, back_off, orderly=serves and code == 0)
        self._first_is_known.set()

    @asynccontextmanager
    async def _running(self, number: int) -> AsyncIterator[_Worker]:
        """A new worker process, for as long as somebody looks after it.

        Raises:
            CannotStart: the system has no process, or no descriptors, for it.
        """
        async with AsyncExitStack() as stack:
            try:
                ours, theirs = socket.socketpair()
                lifeline = await stack.enter_async_context(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
                with theirs:
                    place = Place(number, theirs.fileno(), descriptors(self._listeners), self._core(number))
                    process = await self._start(place)
            except OSError as error:
                raise CannotStart(f"worker {number} cannot be started: {error}") from None
            worker = _Worker(process, lifeline)
            self._workers.add(worker)
            if self._stop.is_set():
                worker.drain()
            try:
                yield worker
            finally:
                self._workers.discard(worker)

    @asynccontextmanager
    async def _killed_if_it_stays(self, worker: _Worker) -> AsyncIterator[None]:
        """In the block, kill a worker that has not ended long after it was told to: its loop is frozen."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._kill_at_last, worker)
            yield
            nursery.cancel_scope.cancel()

    async def _kill_at_last(self, worker: _Worker) -> None:
        await self._stop.wait()
        await trio.sleep(worker.patience)
        logger.error("worker %d does not end; killing it", worker.process.pid)
        worker.process.kill()

    def _core(self, number: int) -> int | None:
        """The core that a worker is to keep to: the same one each time it is started."""
        return choose(os.sched_getaffinity(0), self._offset, number) if self._options.pin else None

    async def _start(self, place: Place) -> trio.Process:
        warnings = [f"-W{option}" for option in sys.warnoptions]
        return await trio.lowlevel.open_process(
            [sys.executable, *warnings, "-m", "trio_channels", *self._options.arguments],
            env=place.environment(),
            pass_fds=place.descriptors(),
        )

    async def _pause(self, worker: _Worker, back_off: BackOff, *, orderly: bool) -> None:
        """Wait before the next start: not after an orderly end, of which `max_requests` makes many."""
        lived = worker.lived
        if lived >= STEADY:
            back_off.reset()
        pause = 0.0 if orderly and lived > FIRST_PAUSE else back_off.next_delay()
        await self._pause_for(pause, logging.INFO if orderly else logging.ERROR, worker.end)

    async def _pause_for(self, pause: float, level: int, why: str) -> None:
        logger.log(level, "%s; starting another in %.1f seconds", why, pause)
        with trio.move_on_after(pause):
            await self._stop.wait()

    def _ended_while_stopping(self, worker: _Worker, *, served: bool) -> None:
        if served and worker.process.returncode:
            logger.error("%s while it was draining", worker.end)
            self.code = self.code or CRASHED

    def _give_up(self, why: str, code: int) -> None:
        logger.critical("stopping: %s", why)
        self.code = code if code > 0 else CRASHED
        self._stop.set()

    async def _drain_when_told(self) -> None:
        await self._stop.wait()
        # Or what connects would wait in the queue of a socket that nobody accepts from.
        for _, sock in self._listeners:
            sock.close()
        for worker in self._workers:
            worker.drain()

    async def _obey_signals(self, signals: AsyncIterator[int]) -> None:
        number = await anext(signals)
        logger.info("%s: draining; another one ends it at once", signal.Signals(number).name)
        self._stop.set()
        number = await anext(signals)
        logger.warning("%s again: ending at once", signal.Signals(number).name)
        self.code = 128 + number  # what a shell says of a process that a signal ended
        for worker in self._workers:
            worker.process.kill()
