"""Worker threads: a bounded number of persistent threads that run synchronous code for Trio tasks.

Why not :func:`trio.to_thread.run_sync`: its limiter bounds how many calls run, not which threads run them. Django keeps
a database connection per thread, so that the number of connections would be unbounded, and idle threads would die with
theirs open. Here the threads are the bound.

The rules:

- One pool per Trio run, made on first use. Its threads are started on demand, used last in, first out, and joined at
  the end of the run, after they have run what was registered with :func:`at_worker_exit`.
- Waiting for a worker can be cancelled. A call that has begun is never abandoned: its task waits for the end, and the
  cancellation is delivered at the task's next checkpoint.
- A *lease* holds one worker. A task inside a lease never takes a second worker: its hops run on the held thread, so
  that nested hops cannot deadlock on the bound, and see the thread's database transaction. Each call is a lease of
  its own to the tasks that it starts: what outlives the call goes to the pool.
- A worker goes back to the pool when it has done everything that it was given.
- Context variables go in with a call, and what it changed comes back.
- Ctrl-C waits for the end of the call, or comes out of the next async function that the call wants run. Between the
  lines here it cannot come: whoever waits for a message that has just been taken would wait for ever.
- How a call travels to its thread and back is in :mod:`trio_channels._threads.thread`.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple, cast

import trio

from ..exceptions import BridgeError, ConfigurationError, WorkerPoolBusy, WorkerPoolClosed
from .context import adopt
from .thread import Done, Job, Worker, lease_of_task

logger = logging.getLogger("trio_channels.threads")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

WORKERS = 10
#: Calls that may wait for a worker. A longer queue is a pile-up: at 10 ms a call, its end waits a second.
QUEUE_LIMIT = 1_000

#: Seconds of waiting for a thread after which the log says so; a call takes milliseconds.
STARVING = 5.0
#: Seconds between two such lines.
WARN_EVERY = 60.0
#: How many holders of threads the line names.
NAMED = 3

#: Set where a connection ends: what is called there waits for a worker however long the queue is.
never_refused: contextvars.ContextVar[bool] = contextvars.ContextVar("trio_channels never refused", default=False)

_pool_of_run: trio.lowlevel.RunVar[WorkerPool | None] = trio.lowlevel.RunVar("trio_channels pool", None)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool: threads, tasks that wait, the bounds, calls so far.

    Attributes:
        workers: threads that exist.
        leased: threads that are taken: by a call, a request or a block.
        held: those of the taken threads on which no call runs: a request or a block keeps them for its next call.
        idle: threads that are free.
        waiting: tasks that wait for a thread.
        limit: how many threads may exist.
        queue_limit: how many tasks may wait.
        calls: calls made so far.
    """

    workers: int
    leased: int
    held: int
    idle: int
    waiting: int
    limit: int
    queue_limit: int
    calls: int


class Lease:
    """One worker, held by ``async with pool.lease()`` blocks, the first of which got it, or by one call.

    Attributes:
        closed: whether the blocks or the call have ended; hops of tasks that still refer to it go to the pool.
        holders: how many hold the worker; 0 for a call on a worker that is held by others.
    """

    __slots__ = ("_around", "_pool", "_turns", "_worker", "closed", "holders")

    def __init__(self, pool: WorkerPool, worker: Worker, holders: int = 0, around: Lease | None = None) -> None:
        self._pool = pool
        self._worker = worker
        self._around = around  # for a call: the lease that holds the worker
        self._turns: trio.Lock | None = None
        self.closed = False
        self.holders = holders

    @property
    def of_this_run(self) -> bool:
        """Whether it belongs to the current Trio run: a context may have been carried to another one."""
        return self._pool.of_this_run

    def __repr__(self) -> str:
        return f"<Lease of {self._worker.thread.name!r}{', closed' if self.closed else ''}>"

    @property
    def turns(self) -> trio.Lock:
        """Held by the one outermost transaction that is open on the thread."""
        if self._around is not None:
            return self._around.turns
        if self._turns is None:
            self._turns = trio.Lock()
        return self._turns

    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a synchronous function on the held thread.

        Cancellation: seen before the call begins; a call that has begun is waited for.
        """
        if self.closed:
            raise WorkerPoolClosed("this lease of a worker thread has ended")
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._pool._call(self._worker, call, args, around=self)

    def call_done(self) -> None:
        """End the lease of one call."""
        self.closed = True
        self._worker.jobs -= 1
        if not self._worker.held:
            self._pool._release_if_free(self._worker)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Have one more block hold the worker; that of a call ends with the call."""
        if not self.holders:
            yield
            return
        self.holders += 1
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def inside(self, inner: Lease | None = None) -> Iterator[Lease]:
        """In the block, calls of the current task, and of tasks that it starts, run on the held thread.

        Args:
            inner: makes these calls.
        """
        inner, before = inner or Lease(self._pool, self._worker, around=self), lease_of_task.get()
        lease_of_task.set(inner)
        try:
            yield inner
        finally:
            inner.closed = True
            lease_of_task.set(before)

    def share(self, label: object) -> Lease:
        """A lease of the same worker that lasts until its :meth:`end`, beyond this one; `label` is its name."""
        if self._around is not None:
            return self._around.share(label)
        self._worker.holder = label
        if self.holders:
            self.holders += 1
            return self
        self._worker.held = True
        return Lease(self._pool, self._worker, holders=1)

    def end(self) -> None:
        """End one holder's part in the lease; with the last one the lease ends."""
        self.holders -= 1
        if self.holders:
            return
        self.closed = True
        self._worker.held = False
        self._worker.holder = None
        self._pool._release_if_free(self._worker)


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
        self._workers: list[Worker] = []
        self._idle: list[Worker] = []
        self._waiting: deque[_Turn] = deque()
        self._calls = 0
        self._closed = False
        self._warned = -math.inf

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<WorkerPool {seen.leased} of {seen.limit} leased, {seen.waiting} waiting>"

    def statistics(self) -> PoolStatistics:
        """An immutable snapshot."""
        return PoolStatistics(
            workers=len(self._workers),
            leased=len(self._workers) - len(self._idle),
            held=len(self._held()),
            idle=len(self._idle),
            waiting=len(self._waiting),
            limit=self._limit,
            queue_limit=self._queue_limit,
            calls=self._calls,
        )

    @property
    def of_this_run(self) -> bool:
        """Whether it is the current Trio run's."""
        return self is _pool_of_run.get()

    @property
    def has_free_thread(self) -> bool:
        """Whether the next call need not wait."""
        return bool(self._idle) or len(self._workers) < self._limit

    @trio.lowlevel.enable_ki_protection
    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a synchronous function on a worker thread: the held one inside a lease, else a free one.

        Raises:
            WorkerPoolBusy: `queue_limit` tasks wait already, and :data:`never_refused` is not set.
            WorkerPoolClosed: the Trio run is ending.

        Cancellation: waiting for a worker can be cancelled, and then nothing has run. A call that has begun is waited
        for, and its result returned.
        """
        held = current_lease()
        if held is not None:
            return await held.run_sync(call, *args)
        worker = await self._acquire()
        worker.held = False  # by this task; from here on the call has it
        return await self._call(worker, call, args)

    @trio.lowlevel.enable_ki_protection
    async def _call(
        self, worker: Worker, call: Callable[..., T], args: tuple[Any, ...], around: Lease | None = None
    ) -> T:
        """Make a call on a worker that is held, or idle and to be had again when the call has ended.

        Cancellation: none; the call is waited for. So is a KeyboardInterrupt, which is raised then.
        """
        job: Job[T] = Job(Lease(self, worker, around=around), worker.way_back, call, args)
        self._calls += 1
        worker.jobs += 1
        worker.inbox.put(job)
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                message = await worker.way_back.wait_for_message(job)
            except KeyboardInterrupt as error:
                interrupt = error  # for the next thing that this task does, if it is one that can be interrupted
                continue
            if isinstance(message, Done):
                break
            before = lease_of_task.get()
            await message.run(interrupt)
            interrupt = None
            lease_of_task.set(before)  # what was run had the thread's; this task has its own
            worker.inbox.put(message)
        adopt(job.context)
        try:
            if interrupt is not None:
                raise interrupt
            return message.result.unwrap()
        finally:
            del message, interrupt  # exceptions, whose tracebacks hold this frame

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def lease(self) -> AsyncIterator[Lease]:
        """Hold one worker for the length of the block; inside another lease, that one.

        Raises and cancellation: as :meth:`run_sync`.
        """
        held = current_lease()
        if held is not None:
            with held.joined():
                yield held
            return
        lease = await self.take()
        # From here on the task is inside: what it calls must not wait for a second worker while it keeps this one.
        lease_of_task.set(lease)
        try:
            yield lease
        finally:
            lease.end()
            lease_of_task.set(None)

    async def take(self, label: object = None) -> Lease:
        """Take a thread until :meth:`Lease.end`; `label` names the holder in the log.

        Raises and cancellation: as :meth:`run_sync`.
        """
        worker = await self._acquire()
        worker.holder = label
        return Lease(self, worker, holders=1)

    async def _acquire(self) -> Worker:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise WorkerPoolClosed("the Trio run that this worker pool belongs to has ended")
        if self._idle:
            worker = self._idle.pop()
            worker.held = True
            return worker
        if len(self._workers) < self._limit:
            worker = Worker(f"trio-channels worker {len(self._workers) + 1}")
            self._workers.append(worker)
            worker.held = True
            return worker
        if len(self._waiting) >= self._queue_limit and not never_refused.get():
            raise WorkerPoolBusy(
                f"all {self._limit} worker threads are taken and {self._queue_limit} calls wait already; "
                f"{self._remedy()}"
            )
        turn = _Turn()
        self._waiting.append(turn)
        try:
            with trio.move_on_after(STARVING):
                return await turn.wait()
            self._warn()
            return await turn.wait()
        except BaseException:
            self._leave(turn)
            raise

    def _leave(self, turn: _Turn) -> None:
        """Give up a place in the queue, or the thread that it came to while its task was being cancelled."""
        if turn.worker is None:
            self._waiting.remove(turn)
        else:
            turn.worker.held = False
            self._release_if_free(turn.worker)

    def _warn(self) -> None:
        now = trio.current_time()
        if now >= self._warned + WARN_EVERY:
            self._warned = now
            logger.warning(
                "all %d worker threads are taken and %d calls wait, one of them for %g seconds; %s",
                self._limit,
                len(self._waiting),
                STARVING,
                self._remedy(),
            )

    def _remedy(self) -> str:
        held = self._held()
        if not held:
            return "find the slow calls, or raise WORKER_THREADS"
        holders = sorted({str(worker.holder) for worker in held if worker.holder})
        named = f" ({', '.join(holders[:NAMED])}{', ...' if len(holders) > NAMED else ''})" if holders else ""
        return (
            f"{len(held)} of the threads are held between two calls of a request or a block{named}: raise "
            f"WORKER_THREADS, wait less after synchronous code in async views, or name the packages that leave nothing "
            f"on a thread in THREAD_NEUTRAL"
        )

    def _held(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.held and not worker.jobs]

    def _release_if_free(self, worker: Worker) -> None:
        if worker.held or worker.jobs:
            return
        if self._waiting:
            worker.held = True
            self._waiting.popleft().come(worker)
        else:
            self._idle.append(worker)

    def after_run(self) -> None:
        """At the end of the Trio run: end and join the threads. Every call has ended by then."""
        self._closed = True
        for worker in self._workers:
            worker.inbox.put(None)
        for worker in self._workers:
            worker.join()


class _Turn:
    """A place in the queue for a thread; kept while its task says that it has waited long."""

    __slots__ = ("_task", "worker")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self.worker: Worker | None = None

    async def wait(self) -> Worker:
        """Wait for the thread. Cancellation: the place is kept, and a thread that comes meanwhile too."""
        if self.worker is None:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        return cast(Worker, self.worker)

    def _stop_waiting(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def come(self, worker: Worker) -> None:
        """Hand over a thread, which is held."""
        self.worker = worker
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)


def existing_pool() -> WorkerPool | None:
    """This Trio run's pool, if it has been made.

    Raises:
        BridgeError: no Trio run is here.
    """
    try:
        return _pool_of_run.get()
    except RuntimeError:
        raise BridgeError(
            "worker threads belong to a Trio run, and there is none in this thread; on asyncio, use asgiref's functions"
        ) from None


def current_pool(limit: int = WORKERS, queue_limit: int = QUEUE_LIMIT) -> WorkerPool:
    """This Trio run's pool, made with these bounds if it is the first call."""
    pool = _pool_of_run.get()
    if pool is None:
        pool = WorkerPool(limit, queue_limit)
        trio.lowlevel.add_instrument(pool)
        _pool_of_run.set(pool)
    return pool


def current_lease() -> Lease | None:
    """The lease that the current task runs in, if it is still open: a block's or a call's."""
    lease = lease_of_task.get()
    return lease if lease is not None and not lease.closed and lease.of_this_run else None
