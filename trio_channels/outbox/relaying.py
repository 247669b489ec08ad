"""The relay: sends the messages of the outbox.

The rules:

- One row of a group is sent at a time, and deleted before the next one. So at most the last message of each group is
  sent again after a crash, and a member that has joined meanwhile sees no message behind a later one.
- The rows of different groups are sent side by side, and deleted by one query.
- A layer that cannot be reached is no fault of the row: its group waits, and no attempt is counted.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import django.db
import msgspec
import trio
from django.db import router

from .. import _conf
from .._concurrency.backoff import BackOff, delay_after
from .._concurrency.wakeup import Wakeup
from .._threads.database import run_in_thread
from ..exceptions import ChannelLayerUnavailable, WorkerPoolBusy
from ..layers import channel_layers
from .listening import can_listen, first_line, listen
from .models import OutboxMessage
from .store import Store
from .writing import require_app

logger = logging.getLogger("trio_channels.outbox")

#: Seconds until a row that failed is tried again: the first pause, doubled up to the longest one.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Seconds between two log lines about a channel layer that is away.
LOG_INTERVAL = 60.0
#: Seconds between two looks for rows that were set aside long ago.
FORGETTING = 60.0
#: The part of a lease in which rows are sent. The rest is for those under way, and for the clocks.
WORKING_PART = 0.5


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """An immutable snapshot of a relay.

    Args:
        sent: messages that were sent and deleted.
        postponed: attempts that the channel layer did not take, because it could not be reached.
        failed: attempts that failed for another reason.
        set_aside: messages that were given up.
    """

    sent: int = 0
    postponed: int = 0
    failed: int = 0
    set_aside: int = 0


class Relay:
    """Sends the messages of the outbox in one database.

    Args:
        using: the alias of the database; if None, that of your database routers, or Django's default.
        not_layers: the aliases of channel layers whose messages are left to other relays.

    Raises:
        ConfigurationError: ``trio_channels.outbox`` is not in ``INSTALLED_APPS``, or a setting is wrong.
    """

    def __init__(self, using: str | None = None, *, not_layers: Iterable[str] = ()) -> None:
        require_app()
        self._lease: float = _conf.get("RELAY_LEASE")
        self._poll: float = _conf.get("RELAY_POLL")
        self._attempts: int = _conf.get("RELAY_ATTEMPTS")
        self._retention: float = _conf.get("RELAY_RETENTION")
        self._store = Store(
            using or router.db_for_write(OutboxMessage),
            lease=self._lease,
            batch=_conf.get("RELAY_BATCH"),
            not_layers=tuple(not_layers),
        )
        self._wakeup = Wakeup()
        self._statistics = RelayStatistics()
        self._layer_pauses = BackOff()
        self._next_warning = -math.inf
        self._next_attempt = math.inf  # the Trio time of the next attempt of a row that failed
        self._next_forgetting = -math.inf

    def __repr__(self) -> str:
        return f"<Relay of {self._store!r}, {self._statistics!r}>"

    def statistics(self) -> RelayStatistics:
        """An immutable snapshot."""
        return self._statistics

    async def run(self) -> None:
        """Relay until cancelled. The channel layers must be open; a database that is away is waited for.

        Cancellation: at any time. A query that has begun is waited for, and rows that were sent are deleted.
        """
        logger.info("the relay of the outbox in %r begins", self._store.using)
        try:
            async with trio.open_nursery() as nursery:
                if can_listen(self._store.using):
                    nursery.start_soon(listen, self._store.using, self._wakeup.set)
                await self._relay()
        finally:
            logger.info("the relay of the outbox in %r ends: %r", self._store.using, self._statistics)

    async def _relay(self) -> None:
        pauses, is_away = BackOff(), False
        while True:
            try:
                is_busy = await self._relay_batch()
            except (django.db.Error, WorkerPoolBusy) as error:
                if not is_away:
                    logger.warning("the outbox in %r cannot be used: %s", self._store.using, first_line(error))
                is_away = True
                await pauses.wait()
                continue
            if is_away:
                logger.info("the outbox in %r can be used again", self._store.using)
            is_away = False
            pauses.reset()
            if not is_busy:
                await self._rest()

    async def _rest(self) -> None:
        """Wait for a notification, the next attempt, or the time to look."""
        with trio.move_on_at(min(trio.current_time() + self._poll, self._next_attempt)):
            await self._wakeup.wait()
        if trio.current_time() >= self._next_attempt:
            self._next_attempt = math.inf

    async def _relay_batch(self) -> bool:
        """Send the rows that are due; whether there were any."""
        begun = trio.current_time()
        if begun >= self._next_forgetting:
            self._next_forgetting = begun + FORGETTING
            await self._forget()
        rows = await run_in_thread(self._store.claim)
        if not rows:
            return False
        try:
            await self._send_by_group(rows, begun)
        finally:
            with trio.CancelScope(shield=True):
                await run_in_thread(self._store.release)
        return True

    async def _send_by_group(self, rows: list[OutboxMessage], begun: float) -> None:
        groups = _by_group(rows)
        while groups and trio.current_time() < begun + WORKING_PART * self._lease:
            heads = [group.popleft() for group in groups]
            settled = _Settled()
            try:
                # No row is sent without a lease.
                with trio.move_on_at(begun + self._lease):
                    async with trio.open_nursery() as nursery:
                        for head in heads:
                            nursery.start_soon(self._send, head, settled)
            finally:
                with trio.CancelScope(shield=True):
                    await self._settle(settled)
            sent = {row.pk for row in settled.sent}
            groups = [group for group, head in zip(groups, heads, strict=True) if group and head.pk in sent]

    async def _send(self, row: OutboxMessage, settled: _Settled) -> None:
        try:
            layer = channel_layers[row.layer]
            message = msgspec.msgpack.decode(row.message)
            await layer.group_send_once(row.group, message, row.identity.bytes, exclude=row.exclude)
        except ChannelLayerUnavailable as error:
            settled.postponed.append((row, error))
        except Exception as error:  # whatever it is, the rows of other groups go on
            settled.failed.append((row, error))
        else:
            settled.sent.append(row)

    async def _settle(self, settled: _Settled) -> None:
        """Write down how the attempts have ended."""
        if settled.sent:
            await run_in_thread(self._store.delete, settled.sent)
            self._count(sent=len(settled.sent))
        for row, error in settled.failed:
            await self._settle_failed(row, f"{type(error).__name__}: {error}")
        if settled.postponed:
            await self._postpone([row for row, _ in settled.postponed], settled.postponed[0][1])
        elif settled.sent:
            self._layer_pauses.reset()

    async def _postpone(self, rows: list[OutboxMessage], error: Exception) -> None:
        now = trio.current_time()
        if now >= self._next_warning:
            self._next_warning = now + LOG_INTERVAL
            logger.warning("the channel layer does not take messages of the outbox, which wait: %s", error)
        pause = self._layer_pauses.next_delay()
        await run_in_thread(self._store.postpone, rows, pause)
        self._try_again_in(pause)
        self._count(postponed=len(rows))

    async def _settle_failed(self, row: OutboxMessage, error: str) -> None:
        self._count(failed=1)
        if row.attempts + 1 >= self._attempts:
            await run_in_thread(self._store.set_aside, row, error)
            self._count(set_aside=1)
            logger.error("outbox: %s (id %d) is set aside after %d attempts: %s", row, row.pk, self._attempts, error)
        else:
            pause = delay_after(row.attempts + 1, FIRST_PAUSE, LONGEST_PAUSE)
            await run_in_thread(self._store.fail, row, error, pause)
            self._try_again_in(pause)

    def _try_again_in(self, seconds: float) -> None:
        self._next_attempt = min(self._next_attempt, trio.current_time() + seconds)

    async def _forget(self) -> None:
        if self._retention:
            count = await run_in_thread(self._store.forget, self._retention)
            if count:
                logger.warning("outbox: %d messages are deleted that were set aside long ago", count)

    def _count(self, **more: int) -> None:
        seen: Any = self._statistics
        self._statistics = replace(seen, **{name: getattr(seen, name) + count for name, count in more.items()})


class _Settled:
    """How the attempts of a round have ended."""

    def __init__(self) -> None:
        self.sent: list[OutboxMessage] = []
        self.postponed: list[tuple[OutboxMessage, Exception]] = []
        self.failed: list[tuple[OutboxMessage, Exception]] = []


def _by_group(rows: Iterable[OutboxMessage]) -> list[deque[OutboxMessage]]:
    groups: dict[tuple[str, str], deque[OutboxMessage]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.group), deque()).append(row)
    return list(groups.values())


async def run_relay(using: str | None = None) -> None:
    """Relay the outbox of a database until cancelled; the channel layers must be open. Args: see :class:`Relay`.

    Cancellation: as :meth:`Relay.run`.
    """
    await Relay(using).run()


@asynccontextmanager
async def relay(using: str | None = None) -> AsyncIterator[Relay]:
    """In the block, relay the outbox of a database: ``async with outbox.relay(): ...``, as in a lifespan.

    The channel layers must be open, before the block and to its end. Args: see :class:`Relay`.

    Cancellation: of the block ends the relay, too.
    """
    relay, failure = Relay(using), None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        try:
            yield relay
        except Exception as error:
            failure = error  # raised below, outside the nursery, which would wrap it in a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
