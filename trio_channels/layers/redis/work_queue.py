"""A named channel as a work queue: it is served by workers, and has dead letters."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ...exceptions import InvalidNameError
from ..work import CLAIM_AFTER, MAX_DELIVERIES, DeadLetter, QueueSize, WorkQueue, WorkSource
from .codec import EntryCodec, UndecodableEntry
from .scripts import WORK_REQUEUE
from .work_source import DEAD_LETTERS, RedisWorkSource, WorkContext


class RedisWorkQueue(WorkQueue):
    """One named channel as a queue; makes its context for each call, as the layer may have been closed since."""

    def __init__(self, context: Callable[[], WorkContext]) -> None:
        self._context = context

    @asynccontextmanager
    async def serve(
        self, *, max_deliveries: int = MAX_DELIVERIES, claim_after: float = CLAIM_AFTER
    ) -> AsyncIterator[WorkSource]:
        """See :meth:`WorkQueue.serve`."""
        source = RedisWorkSource(self._context(), max_deliveries, claim_after)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.renew)
            try:
                yield source
            finally:
                nursery.cancel_scope.cancel()
                await source.leave()

    async def size(self) -> QueueSize:
        """See :meth:`WorkQueue.size`. Cancellation: changes nothing."""
        context = self._context()
        backlog = await context.pipeline.call("XLEN", context.stream)
        return QueueSize(int(backlog), int(await context.pipeline.call("XLEN", context.dead)))

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """See :meth:`WorkQueue.dead_letters`."""
        context = self._context()
        rows = await context.pipeline.call("XRANGE", context.dead, "-", "+", "COUNT", limit)
        return [_dead_letter(context.codec, entry_id, fields) for entry_id, fields in rows]

    async def requeue(self, *ids: str) -> int:
        """See :meth:`WorkQueue.requeue`. Raises InvalidNameError for a malformed id."""
        context = self._context()
        expiry = int(context.group_expiry * 1000)
        chosen = _ids(ids) or await self._all_dead(context)
        return int(await context.pipeline.call(*WORK_REQUEUE(context.stream, context.dead, args=(expiry, *chosen))))

    async def discard(self, *ids: str) -> int:
        """See :meth:`WorkQueue.discard`. Cancellation: all of them are discarded, or none."""
        context = self._context()
        chosen = _ids(ids) or await self._all_dead(context)
        return int(await context.pipeline.call("XDEL", context.dead, *chosen)) if chosen else 0

    async def _all_dead(self, context: WorkContext) -> tuple[str, ...]:
        rows = await context.pipeline.call("XRANGE", context.dead, "-", "+", "COUNT", DEAD_LETTERS)
        return tuple(row[0].decode() for row in rows)


def _ids(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        if not re.fullmatch(r"\d+-\d+", one):
            raise InvalidNameError(f"the id of a dead letter must look like '1700000000000-0'; got {one!r}")
    return given


def _dead_letter(codec: EntryCodec, entry_id: bytes, fields: list[bytes]) -> DeadLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    return DeadLetter(
        id=entry_id.decode(),
        message=_message(codec, values.get(b"b")),
        deliveries=int(values.get(b"n", 0)),
        why=str((_message(codec, values.get(b"w")) or {}).get("why", "unknown")),
    )


def _message(codec: EntryCodec, blob: bytes | None) -> dict[str, Any] | None:
    try:
        return codec.unpack(blob).message
    except UndecodableEntry:
        return None
