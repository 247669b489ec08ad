"""The thread pool for Django: sized by the settings, with care for database connections.

Each call, or each lease, closes connections that are unusable or older than ``CONN_MAX_AGE`` at its start and its end,
but none in an atomic block. A thread that ends closes its connections.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
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


#: Makes the pool of a Trio run, or returns None for the usual one; set by tests, before the run starts.
pool_maker: ContextVar[Callable[[], WorkerPool | None]] = ContextVar("trio_channels pool maker", default=lambda: None)


def thread_pool() -> WorkerPool:
    """This Trio run's pool, of ``WORKER_THREADS`` threads and a queue of ``WORKER_QUEUE`` calls."""
    return existing_pool() or pool_maker.get()() or current_pool(_conf.get("WORKER_THREADS"), _conf.get("WORKER_QUEUE"))


async def run_in_thread(call: Callable[[*Ts], T], *args: *Ts, neutral: bool = False) -> T:
    """Run a synchronous function on a thread; a `neutral` call does not make its request keep the thread."""
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
    """As :func:`run_in_thread`, on any free thread; if none is free, on the one that the request holds."""
    pool = thread_pool()
    if pool.has_free_thread and current_lease() is None:
        return await pool.run_sync(_with_fresh_connections, call, *args)
    return await run_in_thread(call, *args, neutral=True)


async def visit_thread(call: Callable[[*Ts], T], *args: *Ts) -> T:
    """As :func:`run_in_thread`, for a call that is neutral unless it calls ``keep_thread()``."""
    affinity = current_affinity()
    return await (run_in_thread(call, *args) if affinity is None else affinity.run_sync(call, *args))


def request_thread(label: object) -> AbstractContextManager[Affinity]:
    """A request, whose `label` has its name for the log as its str: synchronous code in the block shares one thread."""
    outer = current_affinity()
    if outer is not None:
        return nullcontext(outer)
    shared = not _conf.get("THREAD_PER_REQUEST")
    return Affinity(thread_pool(), label, care=_refresh_all_connections, shared=shared)


@asynccontextmanager
async def pinned(*, alone: bool = False) -> AsyncIterator[Lease]:
    """Hold one thread for the block; with `alone`, calls of the request's other tasks outside wait for its end."""
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
                    await lease.run_sync(_refresh_all_connections)


def _with_fresh_connections(call: Callable[[*Ts], T], *args: *Ts) -> T:
    refresh_connections()
    try:
        return call(*args)
    except BaseException:
        refresh_connections(look=True)
        raise
    finally:
        refresh_connections()


class _OpenConnections(threading.local):
    """The database connections that the current thread has opened; they may be closed now."""

    def __init__(self) -> None:
        self.opened: set[BaseDatabaseWrapper] = set()


_open_connections = _OpenConnections()


def _remember(connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
    _open_connections.opened.add(connection)
    at_thread_exit(connections.close_all)


# Asking Django for a thread's connections would take longer than everything else around a call on a thread.
connection_created.connect(_remember, dispatch_uid="trio_channels")


def refresh_connections(*, look: bool = False) -> None:
    """Close this thread's connections that are unusable or too old; never one that is in an atomic block.

    Django's own function closes such a one, too: in an atomic block the autocommit mode is not that of the settings.

    With `look`, also connections whose set-up failed after they had been made, so that Django has sent no signal for
    them: the database may have gone just then. Such a connection would fail each further call on its thread.
    """
    opened = _open_connections.opened
    for connection in {*opened, *connections.all(initialized_only=True)} if look else list(opened):
        if connection.connection is not None:
            if connection not in opened:
                _remember(connection)
            if not connection.in_atomic_block:
                connection.close_if_unusable_or_obsolete()


def has_open_connections() -> bool:
    """Whether this thread has an open database connection."""
    for connection in connections.all(initialized_only=True):  # noqa: SIM110  # each request asks: no generator
        if connection.connection is not None:
            return True
    return False


_refresh_all_connections = partial(refresh_connections, look=True)
