"""One request, one thread.

Django promises that all ``thread_sensitive`` code of a request runs on one thread. Packages rely on it: they set a
tenant on the thread's database connection, keep a user in a :class:`threading.local`, or set a session variable of
PostgreSQL.

The rules:

- An :class:`Affinity` belongs to one request. It takes a thread of the pool for the request's first call, and keeps it
  until the request ends; every further call runs there.
- A *neutral* call leaves nothing on its thread. As long as all calls were neutral, each gives its thread back when it
  ends. So a request that waits, behind Django's own middleware, holds no thread.
- Code in a neutral call calls :func:`keep_thread` before it runs code that may leave something.
- A block (``pinned()``, ``aatomic()``) in a request is on the request's thread.
- Tasks beside each other in a request take *turns*: a call has one, with all that it calls, and so has a transaction.
  Otherwise one task would write in another's transaction, and lose its rows when that is rolled back.
- A request inside a request is a part of it.
- A task that outlives the request goes to the pool, when the call or block that it is in has ended.

:mod:`trio_channels._threads.neutral` decides which calls are neutral.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TypeVar, TypeVarTuple

import trio

from .lease import Lease, current_lease
from .pool import WorkerPool
from .thread import affinity_of_task

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Affinity:
    """The thread of one request; a context manager, whose block is the request.

    Args:
        pool: the pool of the current Trio run.
        label: names the request in the log line about threads that are held.
        care: called on the thread before the request's first call there, and after a block if it is given back then.
        shared: other requests may use the thread between two calls of this one; a thread is held by running calls only.

    Attributes:
        ended: whether the request has ended; then every call goes to the pool.
    """

    __slots__ = (
        *("_before", "_blocks", "_care", "_kept", "_label", "_lease", "_others", "_pool", "_shared", "_taken"),
        "ended",
    )

    def __init__(
        self, pool: WorkerPool, label: str, *, care: Callable[[], object] = bool, shared: bool = False
    ) -> None:
        self._pool = pool
        self._label = label
        self._care = care
        self._shared = shared
        self._lease: Lease | None = None
        self._kept = False
        self._blocks = 0
        self._taken = False  # whether a task has its turn
        self._others = trio.lowlevel.ParkingLot()  # tasks that wait for theirs
        self._before: Affinity | None = None
        self.ended = False

    def __repr__(self) -> str:
        return f"<Affinity of {self._label}: {self._lease or 'no thread'}>"

    def __enter__(self) -> Affinity:
        self._before = affinity_of_task.get()
        affinity_of_task.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def of_this_run(self) -> bool:
        """Whether it belongs to the current Trio run: a context may have been carried to another one."""
        return self._pool.of_this_run

    @property
    def lease(self) -> Lease | None:
        """The request's thread; None while it holds none."""
        return self._lease

    @property
    def keeps(self) -> bool:
        """Whether a call that is not neutral makes the request keep its thread."""
        return not self._shared and not self.ended

    def end(self) -> None:
        """Give the thread back, when no task that outlives the request uses it any more; idempotent."""
        self.ended = True
        if affinity_of_task.get() is self:
            affinity_of_task.set(self._before)
        self._kept = False
        self._give_back()

    def keep(self) -> None:
        """Hold the thread, from now or from the next call on, until the request ends."""
        self._kept = self.keeps

    def keep_lease(self, lease: Lease) -> None:
        """Make the thread of a call inside the request, or of a block around it, the request's own, if it has none."""
        self.keep()
        if self._kept and self._lease is None:
            self._lease = lease.share(self._label)

    @trio.lowlevel.enable_ki_protection
    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Make a call on the request's thread; it is neutral unless it comes to :func:`keep_thread`.

        Raises and cancellation: as :meth:`trio_channels._threads.pool.WorkerPool.run_sync`.
        """
        around = current_lease()
        if around is not None:
            try:
                return await around.run_sync(call, *args)
            finally:
                if self._kept:
                    self.keep_lease(around)
        lease, is_new = await self._take_turn()
        try:
            if is_new:
                return await lease.run_sync(self._with_care, call, *args)
            return await lease.run_sync(call, *args)
        finally:
            self._end_turn()

    def _with_care(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        self._care()
        return call(*args)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def block(self, *, alone: bool = False) -> AsyncIterator[Lease]:
        """Hold the request's thread for the length of the block; calls inside it run there.

        Args:
            alone: it is the block's turn until it ends: calls of the request's other tasks wait.

        Raises and cancellation: as :meth:`trio_channels._threads.pool.WorkerPool.run_sync`.
        """
        lease, is_new = await self._take_turn()
        self._blocks += 1
        try:
            if is_new:
                await lease.run_sync(self._care)
            if not alone:
                self._end_turn()
            try:
                with lease.inside(None if alone else BlockLease(self, lease)) as inner:
                    yield inner
            finally:
                if self._blocks == 1 and not self._kept:
                    with trio.CancelScope(shield=True):
                        await lease.run_sync(self._care)
        finally:
            self._blocks -= 1
            if alone:
                self._end_turn()
            else:
                self._give_back()

    async def _take_turn(self) -> tuple[Lease, bool]:
        """Wait for this task's turn, and for a thread; the thread, and whether it has just been taken."""
        if self._taken:
            await self._others.park()  # until it is handed over
        self._taken = True
        try:
            held = self._lease
            if held is not None:
                return held, False
            lease = await self._pool.take(self._label)
        except BaseException:
            self._end_turn()
            raise
        if (kept := self.lease) is not None:  # by a call that has no turn
            lease.end()
            return kept, False
        self._lease = lease
        return lease, True

    def _end_turn(self) -> None:
        if self._others:
            self._others.unpark()
        else:
            self._taken = False
            self._give_back()

    def _give_back(self) -> None:
        lease = self._lease
        if lease is not None and not (self._kept or self._blocks or self._taken):
            self._lease = None
            lease.end()


class BlockLease(Lease):
    """The lease of a block whose calls take turns with those of the request's other tasks."""

    __slots__ = ("_affinity",)

    def __init__(self, affinity: Affinity, lease: Lease) -> None:
        super().__init__(lease._pool, lease._thread, around=lease)
        self._affinity = affinity

    @trio.lowlevel.enable_ki_protection
    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """As that of every lease, when it is this task's turn."""
        await self._affinity._take_turn()
        try:
            return await super().run_sync(call, *args)
        finally:
            self._affinity._end_turn()

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def alone(self) -> AsyncIterator[Lease]:
        """In the block it is this task's turn. Cancellation: waiting for it can be cancelled."""
        await self._affinity._take_turn()
        try:
            with self.inside() as inner:
                yield inner
        finally:
            self._affinity._end_turn()


def keep_thread() -> None:
    """Say that the code that runs next may leave something on its thread: the current request, if any, keeps it."""
    affinity = affinity_of_task.get()
    if affinity is not None:
        affinity.keep()


def current_affinity() -> Affinity | None:
    """The affinity of the current task's request.

    None if there is no request, it has ended or belongs to another Trio run, or it keeps no thread between its calls.
    """
    affinity = affinity_of_task.get()
    return affinity if affinity is not None and affinity.keeps and affinity.of_this_run else None
