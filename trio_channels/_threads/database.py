"""The thread pool for Django: sized by the settings, with care for database connections.

Each call closes connections that are unusable or older than ``CONN_MAX_AGE`` at its start and its end. Inside a lease
this happens at the lease's start and end instead. A connection in an atomic block is never closed. A thread that ends
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

from .. import _conf
from .affinity import Affinity, BlockLease, current_affinity
from .lease import Lease, current_lease
from .pool import WorkerPool, current_pool, existing_pool
from .thread import at_thread_exit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def thread_pool() -> WorkerPool:
    """This Trio run's pool, of ``WORKER_THREADS`` threads and a queue of ``WORKER_QUEUE`` calls."""
    return existing_pool() or current_pool(_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE"))


async def run_in_thread(call: Callable[[*Ts], T], *args: *Ts, neutral: bool = False) -> T:
    """Run a synchronous function on a thread, with care for database connections.

    Args:
        neutral: the call leaves nothing on its thread, so that its request need not keep the thread.

    Raises and cancellation: as :meth:`trio_channels._threads.pool.WorkerPool.run_sync`.
    """
    lease, affinity = current_lease(), current_affinity()
    if lease is not None:
        if affinity is not None and not neutral:
            affinity.keep_lease(lease)
        return await lease.run_sync(call, *args)
    if affinity is None or (neutral and affinity.lease is None):
        return await thread_pool().run_sync(_with_fresh_connections, call, *args)
    if not neutral:
        affinity.keep()
    return await affinity.run_sync(call, *args)


async def run_anywhere(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_thread`, for a call that may run on any thread, beside the others of its request.

    If no thread is free and the request holds one, the call runs on that one.
    """
    pool = thread_pool()
    if pool.has_free_thread and current_lease() is None:
        return await pool.run_sync(_with_fresh_connections, call, *args)
    return await run_in_thread(call, *args, neutral=True)


async def visit_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_thread`, for a call that is neutral unless it calls ``keep_thread()``.

    Cancellation: as for :func:`run_in_thread`.
    """
    affinity = current_affinity()
    return await (run_in_thread(call, *args) if affinity is None else affinity.run_sync(call, *args))


@contextmanager
def request_thread(label: str) -> Iterator[Affinity]:
    """A request: synchronous code in the block shares one thread; see :mod:`trio_channels._threads.affinity`.

    Args:
        label: names the request in the log.
    """
    outer = current_affinity()
    if outer is not None:
        yield outer
        return
    shared = not _conf.get("THREAD_PER_REQUEST")
    with Affinity(thread_pool(), label, care=refresh_connections, shared=shared) as affinity:
        yield affinity


@asynccontextmanager
async def pinned(*, alone: bool = False) -> AsyncIterator[Lease]:
    """Hold one thread for the length of the block; inside another such block, or a call, that one.

    Args:
        alone: calls that the other tasks of the request make outside the block wait for its end.

    Raises and cancellation: as :func:`trio_channels.db.pinned`.
    """
    affinity, around = current_affinity(), current_lease()
    if affinity is not None and around is None:
        async with affinity.block(alone=alone) as lease:
            yield lease
        return
    if alone and isinstance(around, BlockLease):
        async with around.alone() as lease:
            yield lease
        return
    async with thread_pool().lease() as lease:
        if lease.holders == 1:
            await lease.run_sync(refresh_connections)
        try:
            yield lease
        finally:
            if lease.holders == 1:
                with trio.CancelScope(shield=True):
                    await lease.run_sync(refresh_connections)


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
    at_thread_exit(connections.close_all)


# Asking Django for a thread's connections would take longer than everything else around a call on a thread.
connection_created.connect(_remember, dispatch_uid="trio_channels")


def refresh_connections() -> None:
    """Close this thread's connections that are unusable or too old; never one that is in an atomic block.

    Django's own function closes such a one, too: in an atomic block the autocommit mode is not that of the settings.
    """
    opened = _open_connections.opened
    if opened:
        for connection in list(opened):
            if connection.in_atomic_block:
                continue
            connection.close_if_unusable_or_obsolete()
            if connection.connection is None:
                opened.discard(connection)
