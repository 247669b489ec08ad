"""Worker threads: a bounded number of persistent threads that run synchronous code for Trio tasks.

Why not :func:`trio.to_thread.run_sync`: its limiter bounds how many calls run, not which threads run them. Django keeps
a database connection per thread, so that the number of connections would be unbounded, and idle threads would die with
theirs open. Here the threads are the bound.

The rules:

- One pool per Trio run, made on first use. Its threads are started on demand, used last in, first out, and joined at
  the
  end of the run, after they have run what was registered with :func:`at_worker_exit`.
- Waiting for a worker can be cancelled. A call that has begun is never abandoned: its task waits for the end, and the
  cancellation is delivered at the task's next checkpoint.
- A *lease* holds one worker. A task inside a lease never takes a second worker: its hops run on the held thread, so
  that nested hops cannot deadlock on the bound, and see the thread's database transaction.
- Context variables go in with a call, and what it changed comes back.

How a call travels: the task puts a job in the worker's inbox and parks; the worker's answer reschedules it. While the
thread runs it may ask its task to run an async function (:func:`run_in_trio`), and serves its inbox meanwhile.
"""

from __future__ import annotations

import contextvars
import queue
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, TypeVarTuple, cast

import outcome
import trio

from ._context import adopt, take_over
from .exceptions import BridgeError, ConfigurationError, WorkerPoolBusy, WorkerPoolClosed

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
P = ParamSpec("P")

WORKERS = 10
#: Calls that may wait for a worker. A longer queue is a pile-up: at 10 ms a call, its end waits a second.
QUEUE_LIMIT = 1_000

_lease_of_task: contextvars.ContextVar[Lease | None] = contextvars.ContextVar("trio_channels lease", default=None)
_pool_of_run: trio.lowlevel.RunVar[WorkerPool | None] = trio.lowlevel.RunVar("trio_channels pool", None)


class _ThisThread(threading.local):
    """What a worker thread knows of itself; None in other threads."""

    worker: _Worker | None = None
    job: _Job[Any] | None = None


_this_thread = _ThisThread()


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool: threads that exist, are leased, are idle; tasks that wait; the bounds; calls so far."""

    workers: int
    leased: int
    idle: int
    waiting: int
    limit: int
    queue_limit: int
    calls: int


class _Job(Generic[T]):
    """One call on its way to a worker thread and back."""

    __slots__ = ("_args", "_call", "_lease", "_task", "_way_back", "context")

    def __init__(self, lease: Lease, way_back: _WayBack, call: Callable[..., T], args: tuple[Any, ...]) -> None:
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
            result = self.context.run(self._run)
        finally:
            _this_thread.job = outer
        self.wake(_Done(result))

    def _run(self) -> outcome.Outcome[T]:
        take_over()
        # Tasks that the call starts, through run_in_trio, come back to this thread; the task that made it does not.
        before = _lease_of_task.set(self._lease)
        try:
            return outcome.capture(self._call, *self._args)
        finally:
            _lease_of_task.reset(before)

    def wake(self, message: _Done[T] | _AsyncCall[Any]) -> None:
        """From the worker thread: hand `message` to the parked task."""
        self._way_back.call_soon(trio.lowlevel.reschedule, self._task, outcome.Value(message))


class _Done(Generic[T]):
    """The end of a job."""

    __slots__ = ("result",)

    def __init__(self, result: outcome.Outcome[T]) -> None:
        self.result = result


class _AsyncCall(Generic[T]):
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


class _WayBack:
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
        trio.lowlevel.spawn_system_task(self._serve, name="trio-channels way back from workers")

    def call_soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """From a worker thread that serves a call: have a function called in the Trio thread. It must not raise."""
        if not self._open:  # the run is ending, and some other system task has come late
            self._token.run_sync_soon(function, *args)
            return
        self._calls.append((function, args))
        try:
            self._writer.send(b"\0")
        except BlockingIOError:
            pass  # so much is unread that the reader will come anyway

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
        while self._calls:
            function, args = self._calls.popleft()
            function(*args)

    def close(self) -> None:
        """Close the sockets, after the run."""
        self._reader.close()
        self._writer.close()


class _Worker:
    """A thread and its inbox."""

    __slots__ = ("exit_callbacks", "inbox", "thread")

    def __init__(self, name: str) -> None:
        #: None ends the thread.
        self.inbox: queue.SimpleQueue[_Job[Any] | _AsyncCall[Any] | None] = queue.SimpleQueue()
        self.exit_callbacks: dict[Callable[[], object], None] = {}
        # A daemon, so that a crashed Trio run cannot keep the interpreter alive; a run that ends joins it.
        self.thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        _this_thread.worker = self
        try:
            while (item := self.inbox.get()) is not None:
                item.process()
        finally:
            for callback in self.exit_callbacks:
                callback()


class Lease:
    """One worker, held by one ``async with pool.lease()`` block.

    Attributes:
        closed: whether the block has ended; hops of tasks that still refer to it go to the pool.
    """

    __slots__ = ("_pool", "_worker", "closed")

    def __init__(self, pool: WorkerPool, worker: _Worker) -> None:
        self._pool = pool
        self._worker = worker
        self.closed = False

    def __repr__(self) -> str:
        return f"<Lease of {self._worker.thread.name!r}{', closed' if self.closed else ''}>"

    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a synchronous function on the held thread.

        Cancellation: seen before the call begins; a call that has begun is waited for.
        """
        if self.closed:
            raise WorkerPoolClosed("this lease of a worker thread has ended")
        await trio.lowlevel.checkpoint_if_cancelled()
        pool = self._pool
        job: _Job[T] = _Job(self, pool._way_back, call, args)
        pool._calls += 1
        pool._under_way += 1
        self._worker.inbox.put(job)
        try:
            while not isinstance(message := await trio.lowlevel.wait_task_rescheduled(_never_abandon), _Done):
                before = _lease_of_task.get()
                await message.run()
                _lease_of_task.set(before)  # what was run had the thread's; this task has its own
                self._worker.inbox.put(message)
        finally:
            pool._under_way -= 1
        adopt(job.context)
        return cast(T, message.result.unwrap())


def _never_abandon(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class WorkerPool(trio.abc.Instrument):
    """At most `limit` worker threads for the tasks of one Trio run; see the module's rules.

    Args:
        limit: how many threads may exist.
        queue_limit: how many tasks may wait for one.

    Raises:
        ConfigurationError: an argument is not a count.
    """

    def __init__(self, limit: int = WORKERS, queue_limit: int = QUEUE_LIMIT) -> None:
        for name, value, least in (("limit", limit, 1), ("queue_limit", queue_limit, 0)):
            if value < least:
                raise ConfigurationError(f"the worker pool's {name} must be an int of at least {least}; got {value!r}")
        self._limit = limit
        self._queue_limit = queue_limit
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self._calls = 0
        self._under_way = 0
        self._way_back = _WayBack(lambda: self._under_way > 0)
        self._closed = False

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<WorkerPool {seen.leased} of {seen.limit} leased, {seen.waiting} waiting>"

    def statistics(self) -> PoolStatistics:
        """An immutable snapshot."""
        return PoolStatistics(
            workers=len(self._workers),
            leased=len(self._workers) - len(self._idle),
            idle=len(self._idle),
            waiting=len(self._waiting),
            limit=self._limit,
            queue_limit=self._queue_limit,
            calls=self._calls,
        )

    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a synchronous function on a worker thread: the held one inside a lease, else a free one.

        Raises:
            WorkerPoolBusy: `queue_limit` tasks wait already.
            WorkerPoolClosed: the Trio run is ending.

        Cancellation: waiting for a worker can be cancelled, and then nothing has run. A call that has begun is waited
        for, and its result returned.
        """
        held = current_lease()
        if held is not None:
            return await held.run_sync(call, *args)
        worker = await self._acquire()
        lease = Lease(self, worker)
        try:
            return await lease.run_sync(call, *args)
        finally:
            lease.closed = True
            self._release(worker)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease]:
        """Hold one worker for the length of the block; inside another lease, that one.

        Raises and cancellation: as :meth:`run_sync`.
        """
        held = current_lease()
        if held is not None:
            yield held
            return
        worker = await self._acquire()
        lease = Lease(self, worker)
        try:
            yield lease
        finally:
            lease.closed = True
            self._release(worker)

    async def _acquire(self) -> _Worker:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise WorkerPoolClosed("the Trio run that this worker pool belongs to has ended")
        if self._idle:
            return self._idle.pop()
        if len(self._workers) < self._limit:
            worker = _Worker(f"trio-channels worker {len(self._workers) + 1}")
            self._workers.append(worker)
            return worker
        if len(self._waiting) >= self._queue_limit:
            raise WorkerPoolBusy(
                f"all {self._limit} worker threads are busy and {self._queue_limit} calls wait already; "
                f"find the slow calls, or raise WORKER_THREADS"
            )
        task = trio.lowlevel.current_task()
        self._waiting.append(task)

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        return cast(_Worker, await trio.lowlevel.wait_task_rescheduled(leave))

    def _release(self, worker: _Worker) -> None:
        if self._waiting:
            trio.lowlevel.reschedule(self._waiting.popleft(), outcome.Value(worker))
        else:
            self._idle.append(worker)

    def after_run(self) -> None:
        """At the end of the Trio run: end and join the threads. Every call has ended by then."""
        self._closed = True
        for worker in self._workers:
            worker.inbox.put(None)
        for worker in self._workers:
            worker.thread.join()
        self._way_back.close()


def current_pool(limit: int = WORKERS, queue_limit: int = QUEUE_LIMIT) -> WorkerPool:
    """This Trio run's pool, made with these bounds if it is the first call."""
    pool = _pool_of_run.get()
    if pool is None:
        pool = WorkerPool(limit, queue_limit)
        trio.lowlevel.add_instrument(pool)
        _pool_of_run.set(pool)
    return pool


def current_lease() -> Lease | None:
    """The lease that the current task or worker call runs in, if it is still open."""
    lease = _lease_of_task.get()
    return None if lease is None or lease.closed else lease


def in_worker() -> bool:
    """Whether the current thread is a worker that serves a call."""
    return _this_thread.job is not None


def run_in_trio(call: Callable[[], Awaitable[T]]) -> T:
    """From a worker thread: have the task that waits for this thread run an async function; return its result.

    The thread serves its inbox meanwhile, so that hops of that function come back to it.

    Raises:
        BridgeError: the current thread is not a worker.
    """
    job, worker = _this_thread.job, _this_thread.worker
    if job is None or worker is None:
        raise BridgeError("run_in_trio() was called outside a worker thread")
    request = _AsyncCall(call, contextvars.copy_context())
    job.wake(request)
    while request.result is None or request.context is None:
        item = worker.inbox.get()
        if item is not None:  # the thread is not ended while a call is under way
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
