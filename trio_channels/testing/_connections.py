"""Lend the test thread's database connections to the thread pool, so that its threads see the test's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import _conf
from .._threads.pool import current_pool, existing_pool
from ..exceptions import ConfigurationError


@asynccontextmanager
async def shared_connections(shared: Mapping[str, BaseDatabaseWrapper]) -> AsyncIterator[None]:
    """Make the code of this Trio run use these connections, given by alias, on one thread, one call at a time."""
    if existing_pool() is not None:  # its threads have connections of their own
        raise ConfigurationError(
            "expected a Trio run that has not called the ORM or a thread yet; got one that has. Make the fixture that "
            "calls it depend on 'trio_db'"
        )
    pool = current_pool(1, _conf.get("WORKER_QUEUE"))
    with ExitStack() as stack:
        for connection in shared.values():
            stack.enter_context(_lent(connection))
        try:
            await pool.run_sync(_take, shared)
            yield
        finally:
            # The thread ends with the run, and would close its connections.
            await pool.run_sync(_give_back, shared)


@contextmanager
def _lent(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """In the block, other threads may use the connection, and Django keeps it open. Blocks may be nested."""
    connection.inc_thread_sharing()
    attributes: dict[str, object] = vars(connection)
    before = attributes.get("close_if_unusable_or_obsolete")
    # At the start and end of every request, Django closes even a connection in a transaction.
    attributes["close_if_unusable_or_obsolete"] = lambda: None
    try:
        yield
    finally:
        del attributes["close_if_unusable_or_obsolete"]
        if before is not None:
            attributes["close_if_unusable_or_obsolete"] = before
        connection.dec_thread_sharing()


def _take(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    for alias, connection in shared.items():
        connections[alias] = connection


def _give_back(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    for alias in shared:
        del connections[alias]
