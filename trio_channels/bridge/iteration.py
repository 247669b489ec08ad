"""``QuerySet.aiterator``: all of an iteration on one worker thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Any

import trio
from django.db.models import QuerySet

from .._threads.database import pinned


async def iterate_on_one_worker(queryset: QuerySet[Any], chunk_size: int) -> AsyncGenerator[Any, None]:
    """The rows of a query, fetched in chunks on one worker thread, which is held meanwhile.

    The body of the loop is inside: what it asks of the database runs on the held thread too.
    Cancellation: seen between chunks; a chunk that is being fetched is waited for.
    """
    async with pinned() as lease:
        # Django's own synchronous iterator, which prefetches related objects chunk by chunk.
        rows: Iterator[Any] = await lease.run_sync(queryset.iterator, chunk_size)
        try:
            while chunk := await lease.run_sync(_next_chunk, rows, chunk_size):
                for row in chunk:
                    yield row
        finally:
            # It holds a cursor, which is to be closed where it was opened.
            with trio.CancelScope(shield=True):
                await lease.run_sync(_close, rows)


def _next_chunk(rows: Iterator[Any], size: int) -> list[Any]:
    return list(islice(rows, size))


def _close(rows: Any) -> None:
    rows.close()
