"""One request, one thread.

Django promises that all ``thread_sensitive`` code of a request runs on one thread. Packages rely on it: they set a
tenant on the thread's database connection, keep a user in a :class:`threading.local`, or set a session variable of
PostgreSQL.

The rules:

- An :class:`Affinity` belongs to one request. It takes a thread of the pool for the request's first call, and keeps it
  until the request ends; every further call runs there.
- A *neutral* call leaves nothing on its thread. As long as all calls were neutral, each gives its thread back when it
  ends. So a request that waits, behind Django's own middleware, holds no thread.
- Code in a neutral call that is about to run code that may leave something calls :func:`keep_thread` first.
- A task that outlives the request goes to the pool.

:mod:`trio_channels._neutral` decides which calls are neutral.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, TypeVarTuple

import trio

from ._threads import Lease, WorkerPool
from ._worker_thread import affinity_of_task

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Affinity:
    """The thread of one request; a context manager, whose block is the request.

    Args:
        pool: the pool of the current Trio run.
        label: names the request in the log line about threads that are held.
        shared: other requests may use the thread between two calls of this one; a thread is held by running calls only.

    Attributes:
        ended: whether the request has ended; then every call goes to the pool.
    """

    __slots__ = ("_acquiring", "_kept", "_label", "_lease", "_others", "_pool", "_shared", "ended")

    def __init__(self, pool: WorkerPool, label: str, *, shared: bool = False) -> None:
        self._pool = pool
        self._label = label
        self._shared = shared
        self._lease: Lease | None = None
        self._kept = False
        self._acquiring = False
        self._others = trio.lowlevel.ParkingLot()
        self.ended = False

    def __repr__(self) -> str:
        return f"<Affinity of {self._label}: {self._lease or 'no thread'}>"

    def __enter__(self) -> Affinity:
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

    @property
    def kept(self) -> bool:
        """Whether the request holds its thread until it ends."""
        return self._kept

    def end(self) -> None:
        """Give the thread back; idempotent."""
        self.ended = True
        if affinity_of_task.get() is self:
            affinity_of_task.set(None)
        self._kept = False
        self._give_back()

    def keep(self) -> None:
        """Hold the thread, from now or from the next call on, until the request ends."""
        self._kept = self.keeps

    def keep_lease(self, lease: Lease) -> None:
        """Make the thread of a block inside the request the request's own, unless it has one."""
        self.keep()
        if self._kept and self._lease is None:
            self._lease = lease.share(self._label)

    async def hold(self) -> Lease:
        """The request's thread, taken from the pool if need be.

        Raises and cancellation: as :meth:`trio_channels._threads.WorkerPool.run_sync`.
        """
        while self._lease is None:
            if self._acquiring:  # for another task of the request
                await self._others.park()
                continue
            self._acquiring = True
            try:
                self._lease = await self._pool.take(self._label)
            finally:
                self._acquiring = False
                self._others.unpark_all()
        return self._lease

    async def run_sync(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Make a call that is neutral unless it comes to :func:`keep_thread`; its thread is the request's meanwhile.

        Raises and cancellation: as :meth:`trio_channels._threads.WorkerPool.run_sync`.
        """
        lease = await self.hold()
        try:
            return await lease.run_sync(call, *args)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        lease = self._lease
        if lease is not None and not self._kept:
            self._lease = None
            lease.end()


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
