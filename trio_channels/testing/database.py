"""``transaction.on_commit()`` in tests that never commit."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from .._threads.database import run_in_thread
from ..exceptions import ConfigurationError

#: Where Django's test case logs the failure of a robust callback.
logger = logging.getLogger("django.test")

OnCommit = Callable[[], object]


@asynccontextmanager
async def capture_on_commit_callbacks(
    *, using: str = DEFAULT_DB_ALIAS, execute: bool = False
) -> AsyncIterator[list[OnCommit]]:
    """Collect the functions that code in the block gives to ``transaction.on_commit()``; with `execute`, call them.

    A test in a transaction (``trio_db``, ``db``) is rolled back, so that these functions are never called otherwise.
    This is Django's ``captureOnCommitCallbacks`` for async tests::

        async with capture_on_commit_callbacks(execute=True) as callbacks:
            await client.get_response()
        assert len(callbacks) == 1

    Args:
        using: the database's alias.
        execute: call the functions at the end of the block, on a thread of the pool, also those that they add.

    Returns:
        A list, which is filled at the end of the block.

    Raises:
        ConfigurationError: the test is not in a transaction of that database, so that it commits.
        Exception: the exception of a function, unless it was registered with ``robust=True``.

    Cancellation: a cancelled block, or one that raises, calls nothing.
    """
    callbacks: list[OnCommit] = []
    start = await run_in_thread(_registered, using)
    yield callbacks
    await run_in_thread(_collect, using, start, execute, callbacks)


def _registered(using: str) -> int:
    connection = connections[using]
    if not connection.in_atomic_block:
        raise ConfigurationError(
            f"expected a test in a transaction of the database {using!r}, such as one with the fixture 'trio_db'; got "
            f"one that commits: on_commit() calls its functions by itself there"
        )
    return len(connection.run_on_commit)


def _collect(using: str, start: int, execute: bool, callbacks: list[OnCommit]) -> None:
    connection: Any = connections[using]
    while start < len(connection.run_on_commit):  # a function may register others
        _savepoints, callback, robust = connection.run_on_commit[start]
        start += 1
        callbacks.append(callback)
        if execute:
            _call(callback, robust)


def _call(callback: OnCommit, robust: bool) -> None:
    try:
        callback()
    except Exception:
        if not robust:
            raise
        logger.exception("the on_commit() callback %r failed", callback)
