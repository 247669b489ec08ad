"""PostgreSQL's NOTIFY as a wake-up for a relay."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from django.db import connections

from .._concurrency.backoff import BackOff
from .._threads.database import run_in_thread
from .writing import NOTIFICATION

logger = logging.getLogger("trio_channels.outbox")

#: Longest pause between two attempts to connect, in seconds. Meanwhile the relay looks at the table by itself.
LONGEST_PAUSE = 30.0


def can_listen(using: str) -> bool:
    """Whether the database notifies, and its driver lets a task wait for that: PostgreSQL with psycopg 3."""
    connection: Any = connections[using]
    return bool(connection.vendor == "postgresql" and connection.Database.__name__ == "psycopg")


async def listen(using: str, wake: Callable[[], object]) -> None:
    """Call `wake` after each commit that wrote messages, until cancelled; a lost connection is opened again.

    Cancellation: at any time, but an attempt to connect that has begun is waited for.
    """
    backoff, is_away = BackOff(longest=LONGEST_PAUSE), False
    wrapper: Any = connections[using]
    database_error = wrapper.Database.Error
    while True:
        try:
            async with _listening(using) as connection:
                if is_away:
                    logger.info("%s notifies again", using)
                is_away = False
                backoff.reset()
                wake()  # it did not listen before
                while True:
                    # libpq reads what is there, and never waits, so that it needs no thread.
                    await trio.lowlevel.wait_readable(connection.fileno())
                    connection.pgconn.consume_input()
                    if _take_notifications(connection.pgconn):
                        wake()
        except database_error as error:
            if not is_away:
                logger.warning(
                    "%s does not notify: %s; the relay looks every RELAY_POLL seconds", using, first_line(error)
                )
            is_away = True
        await backoff.wait()


def first_line(error: Exception) -> str:
    """The reason in an error of a database driver, whose further lines are advice."""
    return str(error).strip().partition("\n")[0]


def _take_notifications(pgconn: Any) -> int:
    count = 0
    while pgconn.notifies() is not None:
        count += 1
    return count


@asynccontextmanager
async def _listening(using: str) -> AsyncIterator[Any]:
    """A connection that listens. Cancellation: it is closed."""
    connection = await run_in_thread(_connect, using)
    try:
        yield connection
    finally:
        trio.lowlevel.notify_closing(connection.fileno())
        connection.close()


def _connect(using: str) -> Any:
    # A connection of its own, not one of a pool or a thread: it lasts as long as the relay.
    wrapper: Any = connections[using]
    connection = wrapper.Database.connect(**wrapper.get_connection_params(), autocommit=True)
    try:
        connection.execute(f"LISTEN {NOTIFICATION}")
    except BaseException:
        connection.close()
        raise
    return connection
