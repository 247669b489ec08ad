"""Transactions across awaits: Django's ``atomic``, entered and left on one thread that is held in between.

The rules:

- A cancellation is looked for before the commit. Commit and rollback are shielded, and go directly to the held thread,
  never through the pool's queue.
- Blocks inside a block are savepoints, which a database keeps as a stack. So blocks of tasks beside each other, inside
  one block or on one thread, take turns. In a request, other calls take turns with them.
- A block must not outlive the block around it. If it does, the outer one rolls back and says so.
"""

from __future__ import annotations

import contextvars
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from django.db import transaction

from .. import _conf
from ..exceptions import TransactionError, TransactionTimeout
from .database import pinned
from .lease import Lease

_innermost: contextvars.ContextVar[_Block | None] = contextvars.ContextVar("trio_channels transaction", default=None)


class _Block:
    """One ``aatomic`` block; `enter` and `leave` are called in the Trio task."""

    def __init__(self, lease: Lease, outer: _Block | None, atomic: transaction.Atomic) -> None:
        self._lease = lease
        self._outer = outer
        self._atomic = atomic
        self._depth = (0, 0)
        self.turns = trio.Lock()  # held by the one block inside this one that is open
        self.closed = False

    async def enter(self) -> None:
        await self._lease.run_sync(self._enter)

    def _enter(self) -> None:
        self._refuse_orphan()
        self._atomic.__enter__()
        connection = transaction.get_connection(self._atomic.using)
        self._depth = (len(connection.savepoint_ids), len(connection.atomic_blocks))

    async def leave(self, error: BaseException | None) -> None:
        """Commit, or with an error roll back."""
        self.closed = True
        with trio.CancelScope(shield=True):
            await self._lease.run_sync(self._leave, error)

    def _leave(self, error: BaseException | None) -> None:
        if error is None:
            self._refuse_orphan()
        elif self._orphan:
            return  # rolled back with the block around it
        if self._forget_inner() and error is None:
            error = TransactionError(
                "aatomic() was left while a block inside it, of another task, was open; rolled back"
            )
            self._atomic.__exit__(type(error), error, None)
            raise error
        self._atomic.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _forget_inner(self) -> bool:
        """Drop Django's record of the blocks that are still open inside; whether there were any."""
        connection = transaction.get_connection(self._atomic.using)
        savepoints, blocks = self._depth
        left_open = len(connection.savepoint_ids) > savepoints
        del connection.savepoint_ids[savepoints:]
        del connection.atomic_blocks[blocks:]
        return left_open

    @property
    def _orphan(self) -> bool:
        return self._outer is not None and (self._outer.closed or self._outer._orphan)

    def _refuse_orphan(self) -> None:
        if self._orphan:
            raise TransactionError("the aatomic() block around this one has ended; nothing of this one is committed")


@asynccontextmanager
async def aatomic(
    using: str | None = None, savepoint: bool = True, durable: bool = False, *, timeout: float | None = None
) -> AsyncIterator[None]:
    """A database transaction across awaits: ``async with aatomic(): ...``, or a decorator of an async function.

    Every call to the database inside it, also of tasks that are started inside it, runs on one thread, which is held
    for the length of the block; so do not wait for the network inside it. In an HTTP request that is the request's
    thread, and calls of the request's other tasks wait for the end of the block. A block inside a block is a savepoint.
    A task that outlives the block has no part in the transaction.

    Args:
        using: the database's alias; Django's default if None.
        savepoint, durable: as for :func:`django.db.transaction.atomic`.
        timeout: seconds after which the block is cancelled and rolled back; ``TRANSACTION_TIMEOUT`` if None, and
            without a limit of its own inside another block.

    Raises:
        TransactionTimeout: the block took longer than `timeout`; rolled back.
        TransactionError: the block was left while one of another task was open inside it, or after the one around it.
        WorkerPoolBusy: too many calls wait for a thread already.
        django.db.Error: raised by the database, on commit too.

    Cancellation: waiting for a thread can be cancelled. A cancelled block rolls back; one that has begun to commit does
    so. Both are shielded.
    """
    outer = _innermost.get()
    while outer is not None and outer.closed:  # this task was started in it, and has outlived it
        outer = outer._outer
    if timeout is None:
        timeout = _conf.get("TRANSACTION_TIMEOUT") if outer is None else math.inf
    async with pinned(alone=True) as lease, lease.turns if outer is None else outer.turns:
        block = _Block(lease, outer, transaction.atomic(using, savepoint, durable))
        with trio.move_on_after(timeout) as scope:
            await block.enter()
            _innermost.set(block)
            try:
                yield
                await trio.lowlevel.checkpoint_if_cancelled()
            except BaseException as error:
                await block.leave(error)
                raise
            else:
                await block.leave(None)
            finally:
                _innermost.set(outer)
    if scope.cancelled_caught:
        raise TransactionTimeout(
            f"aatomic() took longer than {timeout:g} seconds and was rolled back; keep waits for the network out "
            f"of it, or give it another timeout"
        )
