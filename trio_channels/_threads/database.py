"""The worker pool as Django needs it: sized by the settings, with database connections cared for.

At the start and at the end of a call, in the same hop, connections that are unusable or older than ``CONN_MAX_AGE`` are
closed; inside a lease never, but at its start and its end, and none that is in an atomic block. A worker that ends
closes its connections.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TypeVar, TypeVarTuple

import trio
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .. import _conf
from .affinity import Affinity, BlockLease, current_affinity
from .pool import Lease, WorkerPool, current_lease, current_pool, existing_pool
from .thread import at_worker_exit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def worker_pool() -> WorkerPool:
    """This Trio run's pool, of ``WORKER_THREADS`` threads and a queue of ``WORKER_QUEUE`` calls."""
    return existing_pool() or current_pool(_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE"))


async def run_in_worker(call: Callable[[*Ts], T], *args: *Ts, neutral: bool = False) -> T:
    """Run a synchronous function on a worker thread, with database connections cared for.

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
        return await worker_pool().run_sync(_with_fresh_connections, call, *args)
    if not neutral:
        affinity.keep()
    return await affinity.run_sync(call, *args)


async def run_anywhere(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_worker` with a call that may run on any thread, beside the others of its request.

    It does not wait for a thread while its request holds one: if none is free, it runs on that one.
    """
    pool = worker_pool()
    if pool.has_free_thread and current_lease() is None:
        return await pool.run_sync(_with_fresh_connections, call, *args)
    return await run_in_worker(call, *args, neutral=True)


async def visit_worker(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_worker` with a call that is neutral unless it comes to ``keep_thread()``."""
    affinity = current_affinity()
    return await (run_in_worker(call, *args) if affinity is None else affinity.run_sync(call, *args))


def request_thread(label: object) -> AbstractContextManager[Affinity]:
    """In the block, which is a request, synchronous code shares one thread; see :mod:`trio_channels._threads.affinity`.

    Args:
        label: its str names the request in the log.
    """
    outer = current_affinity()
    if outer is not None:
        return nullcontext(outer)
    shared = not _conf.get("THREAD_PER_REQUEST")
    return Affinity(worker_pool(), label, care=refresh_connections, shared=shared)


@asynccontextmanager
async def pinned(*, alone: bool = False) -> AsyncIterator[Lease]:
    """Hold one worker thread for the length of the block; inside another such block, or a call, that one.

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
    async with worker_pool().lease() as lease:
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
