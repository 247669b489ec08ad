"""One worker thread, and how calls travel to it and back.

How a call travels: the task puts a job in the worker's inbox and parks; the worker's answer reschedules it. While the
thread runs it may ask its task to run an async function (:func:`run_in_trio`), and serves its inbox meanwhile.
"""

from __future__ import annotations

import contextvars
import os
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import outcome
import trio

from ._context import adopt, take_over
from .exceptions import BridgeError, WorkerPoolClosed

if TYPE_CHECKING:
    from ._threads import Lease

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: The lease that a task, or a call in a worker thread, belongs to.
lease_of_task: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("trio_channels lease", default=None)


class _ThisThread(threading.local):
    """What a worker thread knows of itself; None in other threads."""

    worker: Worker | None = None
    job: Job[Any] | None = None


_this_thread = _ThisThread()


def _serve_nobody() -> None:  # pragma: no cover - runs in forked children
    _this_thread.worker = _this_thread.job = None


# The thread that forks goes on in the child, but the Trio run that it served does not.
os.register_at_fork(after_in_child=_serve_nobody)


class Job(Generic[T]):
    """One call on its way to a worker thread and back."""

    __slots__ = ("_args", "_call", "_lease", "_task", "_way_back", "context")

    def __init__(self, lease: Lease, way_back: WayBack, call: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._lease = lease
        self._way_back = way_back
        self._call = call
        self._args = args
        self._task = trio.lowlevel.current_task()
        self.context = contextvars.copy_context()

    def process(self) -> None:
        """In the worker thread: make the call, and wake the task with its outcome."""
        outer = _this_thread.job
        _this_thread.job = self
        try:
            # No variable here holds the outcome: its exception's traceback holds this frame.
            self._way_back.call_soon(self._lease.job_done, self._task, Done(self.context.run(self._run)))
        finally:
            _this_thread.job = outer

    def _run(self) -> outcome.Outcome[T]:
        take_over()
        # Tasks that the call starts, through run_in_trio, come back to this thread; the task that made it does not.
        before = lease_of_task.set(self._lease)
        try:
            return outcome.capture(self._call, *self._args)
        finally:
            lease_of_task.reset(before)

    def ask(self, request: AsyncCall[Any]) -> None:
        """From the worker thread: hand a request to the parked task."""
        self._way_back.call_soon(trio.lowlevel.reschedule, self._task, outcome.Value(request))


class Done(Generic[T]):
    """The end of a job."""

    __slots__ = ("result",)

    def __init__(self, result: outcome.Outcome[T]) -> None:
        self.result = result


class AsyncCall(Generic[T]):
    """An async function that a worker thread wants run by the task that waits for it."""

    __slots__ = ("_call", "_context", "context", "result")

    def __init__(self, call: Callable[[], Awaitable[T]], context: contextvars.Context) -> None:
        self._call = call
        self._context = context
        self.context: contextvars.Context | None = None
        self.result: outcome.Outcome[T] | None = None

    async def run(self) -> None:
        """In the Trio task: run it, in the thread's context; keep the outcome and the context for the thread."""
        adopt(self._context)
        self.result = await outcome.acapture(self._call)
        self.context = contextvars.copy_context()

    def process(self) -> None:
        """In the worker thread: being taken out of the inbox is all the waking there is."""


class WayBack:
    """From the worker threads back to Trio: a queue of calls, and a socket pair that wakes a system task.

    What :meth:`trio.lowlevel.TrioToken.run_sync_soon` does, at three quarters of its cost per hop.

    Args:
        expected: whether a worker may still have something to say.
    """

    def __init__(self, expected: Callable[[], bool]) -> None:
        self._expected = expected
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._token = trio.lowlevel.current_trio_token()
        self._open = True
        self._notified = False  # a byte is in the socket that the reader has not seen
        trio.lowlevel.spawn_system_task(self._serve, name="trio-channels way back from workers")

    def call_soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """From a worker thread that serves a call: have a function called in the Trio thread. It must not raise."""
        if not self._open:  # the run is ending, and some other system task has come late
            self._token.run_sync_soon(function, *args)
            return
        self._calls.append((function, args))
        # Besides its own cost, a system call gives the interpreter's lock away in the middle of a handler.
        if not self._notified:
            self._notified = True
            self._writer.send(b"\0")

    async def _serve(self) -> None:
        try:
            while True:
                await self._serve_some()
        finally:
            with trio.CancelScope(shield=True):
                while self._expected():
                    await self._serve_some()
            self._open = False

    async def _serve_some(self) -> None:
        await trio.lowlevel.wait_readable(self._reader)
        self._reader.recv(4096)
        self._notified = False  # before the queue is looked at: what comes from now on sends a byte
        self.make_calls()

    def make_calls(self) -> None:
        """In the Trio thread: call what the worker threads want called."""
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)

    def close(self) -> None:
        """Close the sockets, after the run."""
        self._reader.close()
        self._writer.close()


class Inbox:
    """What waits for one worker thread.

    A pipe wakes the thread, not a lock: on Linux the reader of a pipe tends to run on the writer's core as soon as that
    waits, where a lock wakes another core, which then waits for the interpreter. On a busy machine that was a fifth of
    a synchronous echo; on an idle one it made no difference.
    """

    __slots__ = ("_items", "_reader", "_writer")

    def __init__(self) -> None:
        self._items: deque[Job[Any] | AsyncCall[Any] | None] = deque()
        self._reader, self._writer = os.pipe()

    def put(self, item: Job[Any] | AsyncCall[Any] | None) -> None:
        """Have the thread take something; never blocks, as a pipe holds more than can wait. None ends the thread."""
        self._items.append(item)
        os.write(self._writer, b"\0")

    def get(self) -> Job[Any] | AsyncCall[Any] | None:
        """In the thread: wait for the next."""
        os.read(self._reader, 1)
        return self._items.popleft()

    def close(self) -> None:
        """Close the pipe, when the thread has ended."""
        os.close(self._writer)
        os.close(self._reader)


class Worker:
    """A thread and its inbox.

    Attributes:
        held: whether a lease holds it; the pool's to set.
        jobs: how many calls it has been given and not finished. A task that a call has started may give it more, and
            these may still be waiting when the lease ends.
    """

    __slots__ = ("exit_callbacks", "held", "inbox", "jobs", "thread")

    def __init__(self, name: str) -> None:
        self.inbox = Inbox()
        self.held = False
        self.jobs = 0
        self.exit_callbacks: dict[Callable[[], object], None] = {}
        # A daemon, so that a crashed Trio run cannot keep the interpreter alive; a run that ends joins it.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        _this_thread.worker = self
        try:
            while (item := self.inbox.get()) is not None:
                item.process()
                del item  # a thread that waits for work keeps nothing of the last
        finally:
            for callback in self.exit_callbacks:
                callback()


def in_worker() -> bool:
    """Whether the current thread is a worker that serves a call."""
    return _this_thread.job is not None


def run_in_trio(call: Callable[[], Awaitable[T]]) -> T:
    """From a worker thread: have the task that waits for this thread run an async function; return its result.

    The thread serves its inbox meanwhile, so that hops of that function come back to it.

    Raises:
        BridgeError: the current thread is not a worker.
        WorkerPoolClosed: the Trio run has crashed.
    """
    job, worker = _this_thread.job, _this_thread.worker
    if job is None or worker is None:
        raise BridgeError("run_in_trio() was called outside a worker thread")
    request = AsyncCall(call, contextvars.copy_context())
    job.ask(request)
    while request.result is None or request.context is None:
        item = worker.inbox.get()
        if item is None:  # pragma: no cover - its test needs a process of its own
            worker.inbox.put(None)
            raise WorkerPoolClosed("the Trio run that this thread waited for has crashed")
        item.process()
    adopt(request.context)
    return request.result.unwrap()


def call_soon_in_trio(function: Callable[[*Ts], object], *args: *Ts) -> None:
    """From a worker thread: have a plain function called in the Trio thread, without waiting. It must not raise.

    Raises:
        BridgeError: the current thread is not a worker.
    """
    job = _this_thread.job
    if job is None:
        raise BridgeError("call_soon_in_trio() was called outside a worker thread")
    job._way_back.call_soon(function, *args)


def at_worker_exit(callback: Callable[[], object]) -> None:
    """Have `callback` called in this worker thread when it ends; once, however often it is registered."""
    worker = _this_thread.worker
    if worker is not None:
        worker.exit_callbacks[callback] = None
