"""One worker thread, and how calls travel to it and back.

How a call travels: the task puts a job in the worker's inbox and listens on the worker's way back, until the answer
comes. While the thread runs it may ask its task to run an async function (:func:`run_in_trio`), and serves its inbox
meanwhile; so several tasks may wait for one thread, one of whom listens for all.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import outcome
import trio

from ..exceptions import BridgeError, WorkerPoolClosed
from .context import adopt, take_over

if TYPE_CHECKING:
    from .affinity import Affinity
    from .pool import Lease

logger = logging.getLogger("trio_channels.threads")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: The lease that a task, or a call in a worker thread, belongs to.
lease_of_task: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("trio_channels lease", default=None)

#: The request that a task, or a call in a worker thread, belongs to, and the request's thread.
affinity_of_task: contextvars.ContextVar[Affinity | None] = contextvars.ContextVar(
    "trio_channels affinity", default=None
)


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

    __slots__ = ("_args", "_call", "_lease", "_way_back", "context", "message", "task")

    def __init__(self, lease: Lease, way_back: WayBack, call: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._lease = lease
        self._way_back = way_back
        self._call = call
        self._args = args
        self.task = trio.lowlevel.current_task()
        self.context = contextvars.copy_context()
        self.message: Done[T] | AsyncCall[Any] | None = None

    def process(self) -> None:
        """In the worker thread: make the call, and wake the task with its outcome."""
        outer = _this_thread.job
        _this_thread.job = self
        try:
            # No variable here holds the outcome: its exception's traceback holds this frame.
            self._way_back.call_soon(self._end, Done(self.context.run(self._run)))
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

    def _end(self, done: Done[T]) -> None:
        self._lease.call_done()
        self._way_back.deliver(self, done)

    def ask(self, request: AsyncCall[Any]) -> None:
        """From the worker thread: hand a request to the task that waits."""
        self._way_back.call_soon(self._way_back.deliver, self, request)


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

    async def run(self, interrupt: KeyboardInterrupt | None = None) -> None:
        """In the Trio task: run it, in the thread's context; keep the outcome and the context for the thread.

        Args:
            interrupt: came while the thread was at work, and is what the thread gets in place of a result.
        """
        adopt(self._context)
        if interrupt is None:
            self.result = await outcome.acapture(self._unprotected)
        else:
            self.result = outcome.Error(interrupt)
        self.context = contextvars.copy_context()

    @trio.lowlevel.disable_ki_protection
    async def _unprotected(self) -> T:
        return await self._call()

    def process(self) -> None:
        """In the worker thread: being taken out of the inbox is all the waking there is."""


class WayBack:
    """From one worker thread back to the tasks that wait for it: a queue of calls, and a pipe that wakes them.

    One of the tasks listens and makes the calls, among which are the deliveries to the others. So there is no task
    between, which would be one more to wake, and one more wait for I/O to begin, with every call.
    """

    __slots__ = ("_calls", "_listens", "_notified", "_reader", "_waiting", "_writer")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._notified = False  # a byte is in the pipe that the listener has not seen
        self._listens = False
        self._waiting: dict[Job[Any], None] = {}  # those that do not listen; the first waits longest

    def call_soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """From the thread, while it serves a call: have the Trio thread call a function. What it raises is logged."""
        self._calls.append((function, args))
        # Besides its own cost, a system call gives the interpreter's lock away in the middle of a handler.
        if not self._notified:
            self._notified = True
            os.write(self._writer, b"\0")

    async def wait_for_message(self, job: Job[T]) -> Done[T] | AsyncCall[Any]:
        """Wait for what the thread next has to say to a job's task.

        Cancellation: none; it is delivered at the task's next checkpoint.
        """
        while job.message is None:
            if self._listens:
                self._waiting[job] = None
                await trio.lowlevel.wait_task_rescheduled(_never_abandon)
            else:
                self._listens = True
                try:
                    await trio.lowlevel.wait_readable(self._reader)
                except trio.Cancelled:  # a call that has begun is waited for
                    with trio.CancelScope(shield=True):
                        await trio.lowlevel.wait_readable(self._reader)
                finally:
                    self._listens = False
                self._hear()
        message, job.message = job.message, None
        if self._waiting and not self._listens:
            self._wake(next(iter(self._waiting)))  # to listen
        return message

    def _hear(self) -> None:
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:  # woken for nothing
            return
        self._notified = False  # before the queue is looked at: what comes from now on sends a byte
        while self._calls:
            function, args = self._calls.popleft()
            try:
                function(*args)
            except Exception:  # not this task's, whose call goes on; and there are others that wait for what is next
                logger.exception("%r, which a call on a worker thread had asked for, failed", function)

    def deliver(self, job: Job[T], message: Done[T] | AsyncCall[Any]) -> None:
        """In the Trio thread: give a job's task what it waits for."""
        job.message = message
        if job in self._waiting:
            self._wake(job)

    def _wake(self, job: Job[Any]) -> None:
        del self._waiting[job]
        trio.lowlevel.reschedule(job.task)

    def close(self) -> None:
        """Close the pipe, when the thread has ended."""
        os.close(self._writer)
        os.close(self._reader)


def _never_abandon(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


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
    """A thread, its inbox, and its way back.

    Attributes:
        held: whether a lease holds it; the pool's to set.
        holder: its str names the holder in the log, if it has a name.
        jobs: how many calls it has been given and not finished. A task that a call has started may give it more, and
            these may still be waiting when the lease ends.
    """

    __slots__ = ("exit_callbacks", "held", "holder", "inbox", "jobs", "thread", "way_back")

    def __init__(self, name: str) -> None:
        self.held = False
        self.holder: object = None
        self.jobs = 0
        self.exit_callbacks: dict[Callable[[], object], None] = {}
        # A daemon, so that a crashed Trio run cannot keep the interpreter alive; a run that ends joins it.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        with ExitStack() as undo:  # where there are no file descriptors, or threads, to be had
            self.inbox = Inbox()
            undo.callback(self.inbox.close)
            self.way_back = WayBack()
            undo.callback(self.way_back.close)
            self.thread.start()
            undo.pop_all()

    def _serve(self) -> None:
        _this_thread.worker = self
        try:
            while (item := self.inbox.get()) is not None:
                item.process()
                del item  # a thread that waits for work keeps nothing of the last
        finally:
            for callback in self.exit_callbacks:
                callback()

    def join(self) -> None:
        """Wait for the end of the thread, which has been asked to end, and close what leads to it and back."""
        self.thread.join()
        self.inbox.close()
        self.way_back.close()


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
    """From a worker thread: have the Trio thread call a plain function, without waiting. What it raises is logged.

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
