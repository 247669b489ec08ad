"""Database access from async code, on the bounded worker threads."""

from __future__ import annotations

from ._workers import refresh_connections, run_in_worker
from .sync import sync_to_async

__all__ = ["aclose_old_connections", "database_sync_to_async"]

#: Makes an async function of one that uses the ORM; a decorator or a call. With us every call to a worker thread cares
#: for database connections, so that it is :func:`trio_channels.sync.sync_to_async` under the name Channels users know.
database_sync_to_async = sync_to_async


async def aclose_old_connections() -> None:
    """Close the unusable and too old database connections of one worker thread.

    Not needed: every call to a worker does it at its start and end. Kept for Channels' users.
    """
    await run_in_worker(refresh_connections)
