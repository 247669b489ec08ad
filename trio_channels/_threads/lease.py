"""Holding a thread: for one call, or for a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

from ..exceptions import WorkerPoolClosed
from .thread import PoolThread, lease_of_task

if TYPE_CHECKING:
    from .pool import WorkerPool

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Lease:
    """One thread, held by a call, or by ``async with pool.lease()`` blocks, the outermost of which took it.

    Attributes:
        closed: whether the call or the blocks have ended; later calls of tasks inside it go to the pool.
        holders: blocks that hold the thread; 0 for a call on a thread that a block holds.
    """

    __slots__ = ("_around", "_pool", "_thread", "_turns", "closed", "holders")

    def __init__(self, pool: WorkerPool, thread: PoolThread, holders: int = 0, around: Lease | None = None) -> None:
        self._pool = pool
        self._thread = thread
        self._around = around  # for a call: the lease that holds the thread
        self._turns: trio.Lock | None = None
        self.closed = False
        self.holders = holders

    @property
    def of_this_run(self) -> bool:
        """Whether it belongs to the current Trio run: a context may have been carried to another one."""
        return self._pool.of_this_run

    def __repr__(self) -> str:
        return f"<Lease of {self._thread.thread.name!r}{', closed' if self.closed else ''}>"

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
            raise WorkerPoolClosed("this lease of a thread has ended; take another one")
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._pool._call(self._thread, call, args, around=self)

    def call_done(self) -> None:
        """End the lease of one call."""
        self.closed = True
        self._thread.jobs -= 1
        self._pool._release_if_free(self._thread)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Hold the thread for one more block. The lease of a call ends with the call all the same."""
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
        inner, before = inner or Lease(self._pool, self._thread, around=self), lease_of_task.get()
        lease_of_task.set(inner)
        try:
            yield inner
        finally:
            inner.closed = True
            lease_of_task.set(before)

    def share(self, label: str) -> Lease:
        """A lease of the same thread that may outlive this one, until its :meth:`end`; `label` names it in the log."""
        if self._around is not None:
            return self._around.share(label)
        self._thread.holder = label
        if self.holders:
            self.holders += 1
            return self
        self._thread.held = True
        return Lease(self._pool, self._thread, holders=1)

    def end(self) -> None:
        """End the lease for one of its holders; after the last one, for all."""
        self.holders -= 1
        if self.holders:
            return
        self.closed = True
        self._thread.held = False
        self._thread.holder = None
        self._pool._release_if_free(self._thread)


def current_lease() -> Lease | None:
    """The lease that the current task runs in, if it is still open: a block's or a call's."""
    lease = lease_of_task.get()
    return lease if lease is not None and not lease.closed and lease.of_this_run else None
