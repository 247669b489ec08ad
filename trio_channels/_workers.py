"""The worker pool as Django needs it: sized by the settings, with database connections cared for.

At the start and at the end of a call, in the same hop, connections that are unusable or older than ``CONN_MAX_AGE`` are
closed; inside a lease never, but at its start and its end, and none that is in an atomic block. A worker that ends
closes its connections.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar, TypeVarTuple

import trio
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from . import _conf
from ._affinity import Affinity, current_affinity
from ._threads import Lease, WorkerPool, current_lease, current_pool, existing_pool
from ._worker_thread import at_worker_exit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def worker_pool() -> WorkerPool:
    """This Trio run's pool, of ``WORKER_THREADS`` threads and a queue of ``WORKER_QUEUE`` calls."""
    return existing_pool() or current_pool(_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE"))


async def run_in_worker(call: Callable[[*Ts], T], *args: *Ts, neutral: bool = False) -> T:
    """Run a synchronous function on a worker thread, with database connections cared for.

    Args:
        neutral: the call leaves nothing on its thread, so that its request need not keep the thread.

    Raises and cancellation: as :meth:`trio_channels._threads.WorkerPool.run_sync`.
    """
    pool, lease, affinity = worker_pool(), current_lease(), current_affinity()
    if affinity is None or neutral:
        if lease is None:
            return await pool.run_sync(_with_fresh_connections, call, *args)
    elif lease is None:
        affinity.keep()
        lease = await affinity.hold()
        return await lease.run_sync(_refreshed, call, *args)
    else:
        affinity.keep_lease(lease)
    return await pool.run_sync(call, *args)


async def visit_worker(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_worker` with a call that is neutral unless it comes to ``keep_thread()``."""
    lease, affinity = current_lease(), current_affinity()
    if affinity is None:
        return await run_in_worker(call, *args)
    if lease is None:
        return await affinity.run_sync(_refreshed, call, *args)
    try:
        return await lease.run_sync(call, *args)
    finally:
        if affinity.kept:
            affinity.keep_lease(lease)


@contextmanager
def request_thread(label: str) -> Iterator[Affinity]:
    """In the block, which is a request, synchronous code shares one thread; see :mod:`trio_channels._affinity`.

    Args:
        label: names the request in the log.
    """
    with Affinity(worker_pool(), label, shared=not _conf.get("THREAD_PER_REQUEST")) as affinity:
        yield affinity


@asynccontextmanager
async def pinned() -> AsyncIterator[Lease]:
    """Hold one worker thread for the length of the block; inside another such block, or a call, that one.

    Raises and cancellation: as :func:`trio_channels.db.pinned`.
    """
    async with worker_pool().lease() as lease:
        if lease.holders == 1:
            await lease.run_sync(refresh_connections)
        try:
            yield lease
        finally:
            if lease.holders == 1:
                with trio.CancelScope(shield=True):
                    await lease.run_sync(refresh_connections)


def _refreshed(call: Callable[[*Ts], T], *args: *Ts) -> T:
    refresh_connections()
    return call(*args)


def _with_fresh_connections(call: Callable[[*Ts], T], *args: *Ts) -> T:
    refresh_connections()
    try:
        return call(*args)
    finally:
        refresh_connections()


class _OpenConnections(threading.local):
    """The database connections that the current thread has opened."""

    def __init__(self) -> None:
        self.opened: set[BaseDatabaseWrapper] = set()


_open_connections = _OpenConnections()


def _remember(connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
    _open_connections.opened.add(connection)
    at_worker_exit(connections.close_all)


# Asking Django for a thread's connections takes longer than all else that a call to a worker does around the call.
connection_created.connect(_remember, dispatch_uid="trio_channels")


def refresh_connections() -> None:
    """Close this thread's connections that are unusable or too old; never one that is in an atomic block.

    Django itself closes one of those too: in an atomic block the connection is not in the mode of its settings.
    """
    opened = _open_connections.opened
    if opened:
        for connection in list(opened):
            if connection.in_atomic_block:
                continue
            connection.close_if_unusable_or_obsolete()
            if connection.connection is None:
                opened.discard(connection)
