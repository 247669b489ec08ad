"""One thread of the pool, and the path of a call to it and back.

The task puts a job in the thread's inbox and listens on the thread's way back until the answer comes. A running call
may ask its task to run an async function (:func:`run_in_trio`); the thread serves its inbox meanwhile. So several tasks
may wait for one thread. One of them listens for all.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

import outcome
import trio

from .._concurrency.system import after_fork, close_pipe, open_pipe, read_pipe, set_pipe_blocking, write_pipe
from ..exceptions import BridgeError, WorkerPoolClosed
from .context import adopt, take_over

if TYPE_CHECKING:
    from .affinity import Affinity
    from .lease import Lease

logger = logging.getLogger("trio_channels.threads")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: The lease that a task, or a call on a pool thread, belongs to.
lease_of_task: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("trio_channels lease", default=None)

#: The thread of the request that a task, or a call on a pool thread, belongs to.
affinity_of_task: contextvars.ContextVar[Affinity | None] = contextvars.ContextVar(
    "trio_channels affinity", default=None
)


class _ThisThread(threading.local):
    """The current thread as a pool thread, and the call that it runs; both None in other threads."""

    thread: PoolThread | None = None
    job: Job[Any] | None = None


_this_thread = _ThisThread()


def _serve_nobody() -> None:  # pragma: no cover - runs in forked children
    _this_thread.thread = _this_thread.job = None


# The forking thread goes on in the child process; the Trio run that it served does not.
after_fork(_serve_nobody)


class Job(Generic[T]):
    """One call on its way to a thread and back."""

    __slots__ = ("_args", "_call", "_lease", "_way_back", "context", "message", "task")

    def __init__(self, lease: Lease, way_back: WayBack, call: Callable[..., T], args: tuple[Any, ...]) -> None:
        self._lease = lease
        self._way_back = way_back
        self._call = call
        self._args = args
        self.task = trio.lowlevel.current_task()
        self.context = contextvars.copy_context()
        self.message: outcome.Outcome[T] | AsyncCall[Any] | None = None

    def process(self) -> None:
        """In the thread: make the call, and wake the task with its outcome."""
        outer = _this_thread.job
        _this_thread.job = self
        try:
            # No local variable holds the outcome: the traceback of its exception refers to this frame.
            self._way_back.call_soon(self._end, self.context.run(self._run))
        finally:
            _this_thread.job = outer

    def _run(self) -> outcome.Outcome[T]:
        take_over()
        # Tasks that the call starts through run_in_trio() come back to this thread. Its own task does not.
        before = lease_of_task.set(self._lease)
        try:
            return outcome.capture(self._call, *self._args)
        finally:
            lease_of_task.reset(before)

    def _end(self, result: outcome.Outcome[T]) -> None:
        self._lease.call_done()
        self._way_back.deliver(self, result)

    def ask(self, request: AsyncCall[Any]) -> None:
        """In the thread: hand a request to the waiting task."""
        self._way_back.call_soon(self._way_back.deliver, self, request)


class AsyncCall(Generic[T]):
    """An async function that a thread asks its waiting task to run."""

    __slots__ = ("_call", "_context", "context", "result")

    def __init__(self, call: Callable[[], Awaitable[T]], context: contextvars.Context) -> None:
        self._call = call
        self._context = context
        self.context: contextvars.Context | None = None
        self.result: outcome.Outcome[T] | None = None

    async def run(self, interrupt: KeyboardInterrupt | None = None) -> None:
        """In the Trio task: run the function in the thread's context; an `interrupt` takes the result's place."""
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
        """In the thread: nothing to do; leaving the inbox has woken the thread."""


class WayBack:
    """From one thread back to its waiting tasks: a queue of calls, and a pipe that wakes a task.

    One of the tasks listens and makes the calls. A task for that alone would cost one more task switch and wait.
    """

    __slots__ = ("_calls", "_listens", "_notified", "_reader", "_waiting", "_writer")

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._reader, self._writer = open_pipe()
        set_pipe_blocking(self._reader, False)
        self._notified = False  # the pipe holds a byte that the listener has not read
        self._listens = False
        self._waiting: dict[Job[Any], None] = {}  # the jobs of tasks that do not listen; the first waits longest

    def call_soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """In the thread, during a call: have the Trio thread call a function. Its exceptions are logged."""
        self._calls.append((function, args))
        # A system call is not only slow: it releases the interpreter's lock in the middle of a handler.
        if not self._notified:
            self._notified = True
            write_pipe(self._writer, b"\0")

    async def wait_for_message(self, job: Job[T]) -> outcome.Outcome[T] | AsyncCall[Any]:
        """Wait for the thread's next message to the task of a job; it cannot be cancelled."""
        while job.message is None:
            if self._listens:
                self._waiting[job] = None
                await trio.lowlevel.wait_task_rescheduled(_never_abandon)
            else:
                self._listens = True
                try:
                    await trio.lowlevel.wait_readable(self._reader)
                except trio.Cancelled:  # a call that has begun is never abandoned
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
            read_pipe(self._reader, 4096)
        except BlockingIOError:  # a spurious wake-up
            return
        self._notified = False  # before the queue is emptied: a later call sends a byte again
        while self._calls:
            function, args = self._calls.popleft()
            try:
                function(*args)
            except Exception:  # this task's call goes on, and other tasks wait for the next function
                logger.exception("%r failed; a call on a pool thread had it called in the Trio thread", function)

    def deliver(self, job: Job[T], message: outcome.Outcome[T] | AsyncCall[Any]) -> None:
        """In the Trio thread: give a job's task its message."""
        job.message = message
        if job in self._waiting:
            self._wake(job)

    def _wake(self, job: Job[Any]) -> None:
        del self._waiting[job]
        trio.lowlevel.reschedule(job.task)

    def close(self) -> None:
        """Close the pipe; the thread has ended."""
        close_pipe(self._writer)
        close_pipe(self._reader)


def _never_abandon(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class Inbox:
    """The queue of one thread. A pipe wakes the thread, not a lock.

    On Linux the reader of a pipe tends to run on the writer's core as soon as that waits; a lock wakes another core,
    which then waits for the interpreter's lock. On a busy machine the pipe saves a fifth of a synchronous echo.
    """

    __slots__ = ("_items", "_reader", "_writer")

    def __init__(self) -> None:
        self._items: deque[Job[Any] | AsyncCall[Any] | None] = deque()
        self._reader, self._writer = open_pipe()

    def put(self, item: Job[Any] | AsyncCall[Any] | None) -> None:
        """Add an item; None ends the thread. Never blocks: a pipe holds more bytes than there can be items."""
        self._items.append(item)
        write_pipe(self._writer, b"\0")

    def get(self) -> Job[Any] | AsyncCall[Any] | None:
        """In the thread: wait for the next item."""
        read_pipe(self._reader, 1)
        return self._items.popleft()

    def close(self) -> None:
        """Close the pipe; the thread has ended."""
        close_pipe(self._writer)
        close_pipe(self._reader)


class PoolThread:
    """A thread, its inbox, and its way back."""

    __slots__ = ("_on_start", "exit_callbacks", "held", "holder", "inbox", "jobs", "thread", "way_back")

    def __init__(self, name: str, on_start: Callable[[], object]) -> None:
        self._on_start = on_start
        self.held = False  # by a lease
        self.holder: object = None  # its str is the holder's name in the log
        self.jobs = 0  # calls given and not finished; some may still wait when the lease has ended
        self.exit_callbacks: dict[Callable[[], object], None] = {}
        # A daemon: a crashed Trio run must not keep the interpreter alive. A run that ends joins the thread.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        with ExitStack() as undo:  # the system may have no file descriptor or thread left
            self.inbox = Inbox()
            undo.callback(self.inbox.close)
            self.way_back = WayBack()
            undo.callback(self.way_back.close)
            self.thread.start()
            undo.pop_all()

    def _serve(self) -> None:
        _this_thread.thread = self
        try:
            self._on_start()
            while (item := self.inbox.get()) is not None:
                item.process()
                del item  # an idle thread must keep nothing of its last call alive
        finally:
            for callback in self.exit_callbacks:
                callback()

    def join(self) -> None:
        """Wait for the end of the thread, which None in its inbox has asked for, and close both pipes."""
        self.thread.join()
        self.inbox.close()
        self.way_back.close()


def in_pool_thread() -> bool:
    """Whether the current thread is a pool thread that runs a call."""
    return _this_thread.job is not None


def run_in_trio(call: Callable[[], Awaitable[T]]) -> T:
    """On a pool thread: have the waiting task run an async function; return its result.

    The thread serves its inbox meanwhile, so the function's own calls to threads come back to it.
    """
    job, thread = _this_thread.job, _this_thread.thread
    if job is None or thread is None:
        raise BridgeError("run_in_trio() was called outside a pool thread")
    request = AsyncCall(call, contextvars.copy_context())
    job.ask(request)
    while request.result is None or request.context is None:
        item = thread.inbox.get()
        if item is None:  # pragma: no cover - its test needs a process of its own
            thread.inbox.put(None)
            raise WorkerPoolClosed("the Trio run that this thread waited for has crashed")
        item.process()
    adopt(request.context)
    return request.result.unwrap()


def call_soon_in_trio(function: Callable[[*Ts], object], *args: *Ts) -> None:
    """On a pool thread: have the Trio thread call a function, without waiting. Its exceptions are logged."""
    job = _this_thread.job
    if job is None:
        raise BridgeError("call_soon_in_trio() was called outside a pool thread")
    job._way_back.call_soon(function, *args)


def at_thread_exit(callback: Callable[[], object]) -> None:
    """Have `callback` called on this pool thread when it ends; once, however often it is registered."""
    thread = _this_thread.thread
    if thread is not None:
        thread.exit_callbacks[callback] = None
