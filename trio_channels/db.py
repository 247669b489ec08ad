"""Database access from async code, on the bounded worker threads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ._threads import database
from ._threads.database import refresh_connections, run_in_thread
from ._threads.transactions import aatomic
from .sync import sync_to_async

__all__ = ["aatomic", "aclose_old_connections", "database_sync_to_async", "pinned"]

#: Makes an async function of one that uses the ORM; a decorator or a call. With us every call to a worker thread cares
#: for database connections, so that it is :func:`trio_channels.sync.sync_to_async` under the name Channels users know.
database_sync_to_async = sync_to_async


async def aclose_old_connections() -> None:
    """Close the unusable and too old database connections of one worker thread.

    Not needed: every call to a worker does it at its start and end. Kept for Channels' users.

    Cancellation: waiting for a thread can be cancelled.
    """
    await run_in_thread(refresh_connections)


@asynccontextmanager
async def pinned() -> AsyncIterator[None]:
    """Hold one worker thread for the length of the block: ``async with pinned(): ...``.

    Every call to a worker inside it, also of tasks that are started inside it, runs on that thread, one after the
    other, with the same database connection. For what belongs to a connection: advisory locks, temporary tables,
    session variables. A block inside a block holds the same thread. A task that outlives the block goes to the pool.

    Raises:
        WorkerPoolBusy: too many calls wait for a thread already.

    Cancellation: waiting for a thread can be cancelled.
    """
    async with database.pinned():
        yield
