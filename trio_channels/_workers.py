"""The worker pool as Django needs it: sized by the settings, with database connections cared for.

At the start and at the end of a lease, in the same hop, connections that are unusable or older than ``CONN_MAX_AGE``
are closed; inside a lease never, and Django leaves connections in an atomic block alone. A worker that ends closes its
connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import trio
from django.conf import settings
from django.db import close_old_connections, connections

from . import _conf
from ._threads import Lease, WorkerPool, current_lease, current_pool
from ._worker_thread import at_worker_exit

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def worker_pool() -> WorkerPool:
    """This Trio run's pool, of ``WORKER_THREADS`` threads and a queue of ``WORKER_QUEUE`` calls."""
    return current_pool(_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE"))


async def run_in_worker(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run a synchronous function on a worker thread, with database connections cared for.

    Raises and cancellation: as :meth:`trio_channels._threads.WorkerPool.run_sync`.
    """
    pool = worker_pool()
    if current_lease() is not None:
        return await pool.run_sync(call, *args)
    return await pool.run_sync(_with_fresh_connections, call, *args)


@asynccontextmanager
async def worker_lease() -> AsyncIterator[Lease]:
    """Hold one worker thread for the length of the block, with database connections cared for at both ends."""
    if (held := current_lease()) is not None:
        yield held
        return
    async with worker_pool().lease() as lease:
        await lease.run_sync(refresh_connections)
        try:
            yield lease
        finally:
            with trio.CancelScope(shield=True):
                await lease.run_sync(refresh_connections)


def _with_fresh_connections(call: Callable[[*Ts], T], *args: *Ts) -> T:
    refresh_connections()
    try:
        return call(*args)
    finally:
        refresh_connections()


def refresh_connections() -> None:
    """Close this thread's connections that are unusable or too old; close all of them when the worker ends."""
    if settings.configured:
        at_worker_exit(connections.close_all)
        close_old_connections()
