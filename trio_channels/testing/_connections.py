"""One thread's database connections for the worker threads of a test: they then see its transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import _conf
from .._threads.pool import current_pool, existing_pool
from ..exceptions import ConfigurationError


@asynccontextmanager
async def shared_connections(shared: Mapping[str, BaseDatabaseWrapper]) -> AsyncIterator[None]:
    """Have this Trio run's code use these connections, by alias, on one worker thread: they serve one call at a time.

    Raises:
        ConfigurationError: the run has worker threads already, with connections of their own.

    Cancellation: seen before the block begins.
    """
    if existing_pool() is not None:
        raise ConfigurationError(
            "worker threads have been used in this Trio run before the connections could be shared with them; "
            "have what used them (an async fixture?) depend on 'trio_db'"
        )
    pool = current_pool(1, _conf.get("WORKER_QUEUE"))
    for connection in shared.values():
        connection.inc_thread_sharing()
        # Ours spares a connection in a transaction; Django itself, at the start and end of every request, does not.
        connection.close_if_unusable_or_obsolete = _leave_open  # type: ignore[method-assign]
    try:
        await pool.run_sync(_take, shared)
        yield
    finally:
        # The thread ends with the run, and would close what it has.
        await pool.run_sync(_give_back, shared)
        for connection in shared.values():
            del connection.close_if_unusable_or_obsolete
            connection.dec_thread_sharing()


def _take(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    for alias, connection in shared.items():
        connections[alias] = connection


def _give_back(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    for alias in shared:
        del connections[alias]


def _leave_open() -> None:
    pass
