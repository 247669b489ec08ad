"""Database access from async code, on the threads of the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ._threads import database
from ._threads.database import refresh_connections, run_in_thread
from ._threads.transactions import aatomic
from .sync import sync_to_async

__all__ = ["aatomic", "aclose_old_connections", "database_sync_to_async", "pinned"]

#: Makes an async function of one that uses the ORM; a decorator or a call. It is another name, known from Channels, of
#: :func:`trio_channels.sync.sync_to_async`, which manages database connections in every call.
database_sync_to_async = sync_to_async


async def aclose_old_connections() -> None:
    """Close the unusable and expired database connections of one thread.

    You do not need it: every call on a thread does so at its start and end. It exists for compatibility with Channels.

    Cancellation: the wait for a thread can be cancelled.
    """
    await run_in_thread(refresh_connections)


@asynccontextmanager
async def pinned() -> AsyncIterator[None]:
    """Hold one thread for the length of the block: ``async with pinned(): ...``.

    All calls inside the block, also of tasks started inside it, run on that thread, one after the other and with the
    same database connection. Use it for the state of a connection: advisory locks, temporary tables, session variables.
    A nested block holds the same thread. A task that outlives the block uses the pool again.

    Raises:
        WorkerPoolBusy: too many calls already wait for a thread.

    Cancellation: the wait for a thread can be cancelled.
    """
    async with database.pinned():
        yield
