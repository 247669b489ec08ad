"""``QuerySet.aiterator``: a whole iteration on one thread of the pool."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Any

import trio
from django.db.models import QuerySet

from .._threads.database import pinned


async def iterate_on_one_thread(queryset: QuerySet[Any], chunk_size: int) -> AsyncGenerator[Any, None]:
    """Iterate over the rows of a query in chunks, on one thread. Queries in the body of the loop run on it too."""
    async with pinned() as lease:
        # Django's own synchronous iterator, which prefetches related objects chunk by chunk.
        rows: Any = await lease.run_sync(queryset.iterator, chunk_size)
        try:
            while chunk := await lease.run_sync(_next_chunk, rows, chunk_size):
                for row in chunk:
                    yield row
        finally:
            # The iterator has a database cursor, which only the thread that opened it may close.
            with trio.CancelScope(shield=True):
                await lease.run_sync(rows.close)


def _next_chunk(rows: Iterator[Any], size: int) -> list[Any]:
    return list(islice(rows, size))
