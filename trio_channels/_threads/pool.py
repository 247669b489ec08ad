"""The thread pool: a bounded number of persistent threads that run synchronous code for Trio tasks.

:func:`trio.to_thread.run_sync` will not do: its limiter bounds how many calls run, not how many threads there are.
Django keeps a database connection per thread, so the number of connections would be unbounded, and idle threads would
die with their connections open.

The rules:

- One pool per Trio run, made on first use. Its threads are started on demand and used last in, first out. At the end of
  the run they call the functions registered with :func:`at_thread_exit`, and are joined.
- Waiting for a thread can be cancelled. A call that has begun is never abandoned: its task waits for the end, and the
  cancellation is delivered at the task's next checkpoint.
- A *lease* holds one thread. A task inside a lease never takes a second thread: its calls run on the held one. So
  nested calls cannot deadlock on the bound, and they see the thread's database transaction. A call is a lease, too, for
  the tasks that it starts; a task that outlives the call goes to the pool.
- A thread goes back to the pool when it has finished every call that it was given.
- A call runs in a copy of its task's context. Its changes to context variables come back.
- Ctrl-C waits for the end of the call, or is raised by the next async function that the call runs. Inside the pool it
  is held back: between taking a message and passing it on it would leave a task waiting for ever.
"""

from __future__ import annotations

import contextvars
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import trio

from .._limits import COUNT, at_least
from ..exceptions import BridgeError, WorkerPoolBusy, WorkerPoolClosed
from .context import adopt
from .lease import Lease, current_lease
from .thread import AsyncCall, Job, PoolThread, lease_of_task
from .waiting import STARVING, WARN_EVERY, Turn, remedy

logger = logging.getLogger("trio_channels.threads")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 10
#: Calls that may wait for a thread. A longer queue is a pile-up: at 10 ms a call, its end waits a second.
QUEUE_LIMIT = 1_000

#: Set at the end of a connection: calls made there wait for a thread even in a full queue.
never_refused: contextvars.ContextVar[bool] = contextvars.ContextVar("trio_channels never refused", default=False)

_pool_of_run: trio.lowlevel.RunVar[WorkerPool | None] = trio.lowlevel.RunVar("trio_channels pool", None)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A snapshot of a pool: threads, tasks that wait, the bounds, calls so far.

    Leased threads are in use by a call, a request or a block; on held ones no call runs now.
    """

    workers: int
    leased: int
    held: int
    idle: int
    waiting: int
    limit: int
    queue_limit: int
    calls: int


class WorkerPool(trio.abc.Instrument):
    """At most `limit` threads, and `queue_limit` waiting tasks, of one Trio run; see the module's rules.

    `on_start` is called on each thread when it starts.
    """

    def __init__(
        self, limit: int = THREADS, queue_limit: int = QUEUE_LIMIT, on_start: Callable[[], object] = bool
    ) -> None:
        COUNT.require("the thread pool's limit", limit)
        at_least(0).require("the thread pool's queue_limit", queue_limit)
        self._limit = limit
        self._queue_limit = queue_limit
        self._on_start = on_start
        self._threads: list[PoolThread] = []
        self._idle: list[PoolThread] = []
        self._waiting: deque[Turn] = deque()
        self._calls = 0
        self._closed = False
        self._warned = -math.inf

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<WorkerPool {seen.leased} of {seen.limit} leased, {seen.waiting} waiting>"

    def statistics(self) -> PoolStatistics:
        """An immutable snapshot."""
        return PoolStatistics(
            workers=len(self._threads),
            leased=len(self._threads) - len(self._idle),
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
        return bool(self._idle) or len(self._threads) < self._limit

    @trio.lowlevel.enable_ki_protection
    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a synchronous function on a thread: inside a lease on the held one, otherwise on a free one."""
        held = current_lease()
        if held is not None:
            return await held.run_sync(call, *args)
        thread = await self._acquire()
        thread.held = False  # from here on the call holds it, not this task
        return await self._call(thread, call, args)

    @trio.lowlevel.enable_ki_protection
    async def _call(
        self, thread: PoolThread, call: Callable[..., T], args: tuple[Any, ...], around: Lease | None = None
    ) -> T:
        """Make a call on a thread that is held, or free again after it. Nothing interrupts it, not even Ctrl-C."""
        job: Job[T] = Job(Lease(self, thread, around=around), thread.way_back, call, args)
        self._calls += 1
        thread.jobs += 1
        thread.inbox.put(job)
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                message = await thread.way_back.wait_for_message(job)
            except KeyboardInterrupt as error:
                interrupt = error  # raised by the next async function of the call, or after its end
                continue
            if not isinstance(message, AsyncCall):
                break
            before = lease_of_task.get()
            await message.run(interrupt)
            interrupt = None
            lease_of_task.set(before)  # the function ran in the thread's context, this task goes on in its own
            thread.inbox.put(message)
        adopt(job.context)
        try:
            if interrupt is not None:
                raise interrupt
            return message.unwrap()
        finally:
            del message, interrupt  # exceptions, whose tracebacks hold this frame

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def lease(self) -> AsyncIterator[Lease]:
        """Hold one thread for the length of the block; inside another lease, that one."""
        held = current_lease()
        if held is not None:
            with held.joined():
                yield held
            return
        lease = await self.take()
        # From here on the task is inside: its calls must not wait for a second thread while it holds this one.
        lease_of_task.set(lease)
        try:
            yield lease
        finally:
            lease.end()
            lease_of_task.set(None)

    async def take(self, label: object = None) -> Lease:
        """Take a thread until :meth:`Lease.end`; the str of `label` names the holder in the log."""
        thread = await self._acquire()
        thread.holder = label
        return Lease(self, thread, holders=1)

    async def _acquire(self) -> PoolThread:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise WorkerPoolClosed("the Trio run that this thread pool belongs to has ended")
        if self._idle:
            thread = self._idle.pop()
            thread.held = True
            return thread
        if len(self._threads) < self._limit:
            thread = PoolThread(f"trio-channels thread {len(self._threads) + 1}", self._on_start)
            self._threads.append(thread)
            thread.held = True
            return thread
        if len(self._waiting) >= self._queue_limit and not never_refused.get():
            raise WorkerPoolBusy(
                f"all {self._limit} threads are taken and {self._queue_limit} calls wait already; "
                f"{remedy(self._held())}"
            )
        turn = Turn()
        self._waiting.append(turn)
        try:
            with trio.move_on_after(STARVING):
                return await turn.wait()
            self._warn()
            return await turn.wait()
        except BaseException:
            self._leave(turn)
            raise

    def _leave(self, turn: Turn) -> None:
        """Give up a place in the queue, or a thread that was handed over during the cancellation."""
        if turn.thread is None:
            self._waiting.remove(turn)
        else:
            turn.thread.held = False
            self._release_if_free(turn.thread)

    def _warn(self) -> None:
        now = trio.current_time()
        if now >= self._warned + WARN_EVERY:
            self._warned = now
            logger.warning(
                "all %d threads are taken and %d calls wait, one of them for %g seconds; %s",
                self._limit,
                len(self._waiting),
                STARVING,
                remedy(self._held()),
            )

    def _held(self) -> list[PoolThread]:
        return [thread for thread in self._threads if thread.held and not thread.jobs]

    def _release_if_free(self, thread: PoolThread) -> None:
        if thread.held or thread.jobs:
            return
        if self._waiting:
            thread.held = True
            self._waiting.popleft().come(thread)
        else:
            self._idle.append(thread)

    def after_run(self) -> None:
        """At the end of the Trio run: end and join the threads. Every call has ended by then."""
        self._closed = True
        for thread in self._threads:
            thread.inbox.put(None)
        for thread in self._threads:
            thread.join()


def existing_pool() -> WorkerPool | None:
    """This Trio run's pool, if it has been made."""
    try:
        return _pool_of_run.get()
    except RuntimeError:
        raise BridgeError(
            "a thread pool belongs to a Trio run, and none runs in this thread; on asyncio, use asgiref's functions"
        ) from None


def current_pool(
    limit: int = THREADS, queue_limit: int = QUEUE_LIMIT, on_start: Callable[[], object] = bool
) -> WorkerPool:
    """This Trio run's pool, made with these arguments if it is the first call."""
    pool = _pool_of_run.get()
    if pool is None:
        pool = WorkerPool(limit, queue_limit, on_start)
        trio.lowlevel.add_instrument(pool)
        _pool_of_run.set(pool)
    return pool
