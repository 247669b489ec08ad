"""Tests inside a transaction: the pool of their Trio run has one thread, which uses the test's connections.

So code on threads sees the test's rows, and its own are rolled back with them. The rules:

- :func:`lending` is set around each test. The Trio run of the test then lends the connections of the thread that it
  runs in, if one of these is in a transaction when the run first needs a thread.
- The connections are lent as long as the thread of the pool lives: to the end of the Trio run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import _conf
from .._threads.database import pool_maker
from .._threads.pool import WorkerPool, current_pool, existing_pool
from .._threads.thread import at_thread_exit
from ..exceptions import ConfigurationError

_lent: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("trio_channels connections are lent", False)

#: How often each connection is lent, by its id.
_times: Counter[int] = Counter()

#: For a test whose tasks wait for the only thread.
REMEDY = (
    "The test is in a transaction, so that its pool has one thread, and calls wait for it. Do not hold it while "
    "another task needs it, or use @pytest.mark.django_db(transaction=True), which gives each thread its own connection"
)


@contextmanager
def lending(*, always: bool = False) -> Iterator[None]:
    """In the block, a Trio run that is inside a transaction shares its connections; with `always`, every Trio run."""
    token = pool_maker.set(partial(_make_pool, always))
    try:
        yield
    finally:
        pool_maker.reset(token)


def _make_pool(always: bool) -> WorkerPool | None:
    if not _conf.available():
        return None
    mine = connections.all()
    if always or any(connection.in_atomic_block for connection in mine):
        return share({connection.alias: connection for connection in mine})
    return None


def share(shared: Mapping[str, BaseDatabaseWrapper]) -> WorkerPool:
    """Make the pool of this Trio run: one thread, which uses these connections, given by alias."""
    if existing_pool() is not None:  # its threads have connections of their own
        raise ConfigurationError(
            "expected a Trio run that has not called the ORM or a thread yet; got one that has. Share the connections "
            "first"
        )
    _lent.set(True)
    return current_pool(1, _conf.get("WORKER_QUEUE"), partial(_take, shared))


@asynccontextmanager
async def shared_connections(shared: Mapping[str, BaseDatabaseWrapper]) -> AsyncIterator[None]:
    """:func:`share` as the block of a server; the connections are lent to the end of its Trio run."""
    share(shared)
    yield


def waits_for_thread() -> bool:
    """Whether a task of this Trio run waits for the only thread of a test."""
    pool = existing_pool()
    return _lent.get() and pool is not None and pool.statistics().waiting > 0


def _take(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    at_thread_exit(partial(_give_back, shared))  # before the thread closes the connections that it has
    for alias, connection in shared.items():
        connection.inc_thread_sharing()
        # At the start and end of every request, Django closes even a connection in a transaction.
        attributes: dict[str, object] = vars(connection)
        attributes["close_if_unusable_or_obsolete"] = lambda: None
        _times[id(connection)] += 1
        connections[alias] = connection


def _give_back(shared: Mapping[str, BaseDatabaseWrapper]) -> None:
    for alias, connection in shared.items():
        del connections[alias]
        _times[id(connection)] -= 1
        if not _times[id(connection)]:  # two servers may share one, or a run inside of another
            del _times[id(connection)]
            del vars(connection)["close_if_unusable_or_obsolete"]
        connection.dec_thread_sharing()
