"""Reads the inbox of a process: waits for entries, trims those that were read, and renews the lease.

The rules:

- Messages may be missing after a lapsed lease, a lost inbox, a server that lost recent data, and a fail-over. Then
  every local member that may have missed one gets a gap, once, and all memberships are sent again.
- From Redis 7.0 on the number of entries shows whether somebody else trims the inbox. The reader checks it before it
  delivers more if the last message was late, as messages are when others wait; else soon after.
- Reads start at the last id that was read, never at "now".
- Entries that were read but not acknowledged must still be in the inbox. If not, the server has lost recent data.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..._concurrency.backoff import BackOff
from .connection import (
    Argument,
    ConnectionLost,
    Misconfigured,
    RedisConnection,
    ReplyError,
    check_version,
    connect_timeout_for,
    encode,
    open_connection,
    refused,
)
from .contact import FirstContact
from .delivery import Delivery
from .hosts import Host
from .keys import ShardKeys
from .pipeline import Pipeline
from .scripts import ACKNOWLEDGE_INBOX, ATTACH_INBOX

logger = logging.getLogger("trio_channels.layers.redis")

#: Seconds for which a read waits for messages. A lost inbox is noticed after as long: Redis does not wake a read whose
#: stream was deleted.
BLOCK = 0.75
#: Most entries that one read returns.
BATCH = 500
#: Most entries of a busy inbox that were read but not acknowledged, as acknowledging takes as long as reading; and the
#: most as a part of the capacity.
UNACKNOWLEDGED, UNACKNOWLEDGED_PART = 64, 0.01
#: Seconds after which they are acknowledged.
ACKNOWLEDGE_AFTER = 0.05
#: Age in seconds from which an entry counts as late: more may wait behind it.
LATE = 0.01

NOTHING_READ = b"0-0"


class InboxReader:
    """The one reader of an inbox."""

    def __init__(
        self,
        *,
        name: str,
        keys: ShardKeys,
        locate: Callable[[], Awaitable[Host]],
        pipeline: Pipeline,
        delivery: Delivery,
        capacity: int,
        timeout: float,
        on_attached: Callable[[], None],
    ) -> None:
        self.attached = trio.Event()
        self.contact = FirstContact()
        self.attachments = 0
        self.connected = False
        self.problem = "not attached yet"
        self._name = name
        self._keys = keys
        self._locate = locate
        self._pipeline = pipeline
        self._moves = 0
        self._delivery = delivery
        self._timeout = timeout
        self._on_attached = on_attached
        self._last_id: bytes | None = None
        self._ack = self._ack_answered = 0
        self._unread_deletions: int | None = None  # entries that have left the inbox without being read
        self._read_so_far = 0
        self._inspect_at = -math.inf  # when to inspect the inbox again
        self._unacknowledged = 0  # entries read that are still in the inbox
        # The last message among them; a mark does not count, as the next mark replaces it.
        self._last_unacknowledged: bytes | None = None
        self._max_unacknowledged = min(UNACKNOWLEDGED, int(capacity * UNACKNOWLEDGED_PART))
        self._idle = False  # whether the last read found nothing
        self._address: object = None
        self._doubt: str | None = None
        self._session = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<InboxReader of {self._name}, {'attached' if self.connected else self.problem}>"

    def attach_again(self, doubt: str) -> None:
        """Attach over a new connection; `doubt` says why messages may be missing."""
        self._doubt = doubt
        self._session.cancel()

    async def run(self) -> None:
        """Read until cancelled."""
        back_off = BackOff()
        while True:
            with trio.CancelScope() as self._session:
                try:
                    await self._run_session(back_off)
                except ConnectionLost as error:
                    self.contact.failed(error)
                    self._tell(error)
                    self.problem = str(error)
                    logger.debug("the reader of %s: %s", self._name, error)
            await back_off.wait()

    def _tell(self, error: ConnectionLost) -> None:
        """Log once that Redis refuses the reader what it allows the pipeline, which logs everything else."""
        if isinstance(error, Misconfigured) and str(error) != self.problem and self._pipeline.statistics().connected:
            logger.error("%s: no messages arrive: %s. Waiting does not help: correct it.", self._name, error)

    async def _run_session(self, back_off: BackOff) -> None:
        self._moves = self._pipeline.moves
        connection = await open_connection(await self._locate(), connect_timeout_for(self._timeout))
        try:
            await self._attach(connection)
            self.contact.made()
            back_off.reset()
            self.connected = True
            await self._read(connection)
        finally:
            self.connected = False
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def _attach(self, connection: RedisConnection) -> None:
        self.attachments += 1
        await check_version(connection, self._timeout)
        await self._ask(connection, ATTACH_INBOX.load)
        await self._ask(connection, ACKNOWLEDGE_INBOX.load)
        command = ATTACH_INBOX(
            self._keys.inbox, self._keys.state, args=(self._keys.lease_ms, self._last_unacknowledged or NOTHING_READ)
        )
        existed, last, time, lost, ack, remained = await self._ask(connection, command)
        self._delivery.see_time(time)
        if self._ack_answered < self._ack <= ack:
            self._note_acknowledged()  # Redis carried the last one out; only its answer was lost
        doubt, self._doubt = self._doubt, None
        if self._last_id is None:
            self._last_id = last
        elif not existed:
            self._last_id = last
            doubt = "the inbox was gone"
        elif _order(last) < _order(self._last_id):
            self._last_id = NOTHING_READ
            doubt = "Redis went back in time"
        elif ack < self._ack_answered or (self._last_unacknowledged is not None and not remained):
            doubt = "Redis went back in time"
        elif connection.host.address != self._address:
            doubt = "another Redis has taken over"
        if doubt is not None:
            self._unread_deletions = None
            self._note_acknowledged()
            self._delivery.forget_marks(lost)
            self._delivery.report_loss(doubt)
        self._address = connection.host.address
        self._ack_answered = ack
        self._inspect_at = -math.inf
        self._on_attached()
        self.attached.set()

    async def _ask(self, connection: RedisConnection, command: tuple[Argument, ...]) -> Any:
        [reply] = await connection.exchange(command, timeout=self._timeout)
        if isinstance(reply, ReplyError):
            raise refused(connection.host, reply, "the inbox of this process")
        return reply

    async def _read(self, connection: RedisConnection) -> None:
        with trio.CancelScope() as silence:
            while self._moves == self._pipeline.moves:
                entries = await self._read_once(connection, silence)
                read_at = trio.current_time()
                for entry_id, fields in entries:
                    already = self._unacknowledged
                    self._last_id = entry_id
                    self._read_so_far += 1
                    self._unacknowledged += 1
                    if fields and fields[0] != b"l":
                        self._last_unacknowledged = entry_id
                    try:
                        if (rest := self._delivery.deliver(entry_id, fields, already)) is not None:
                            await rest
                    except Exception:
                        # The entry is not read again, as it would crash the next session too: report it as missing.
                        self._doubt = "a message could not be delivered"
                        raise
                    # Let members handle it before the next message: a batch may be longer than a mailbox.
                    await trio.lowlevel.checkpoint()
                # Let them run before the next read is sent, which would delay them. Trio runs ready tasks in random
                # order, but each once before any runs twice: so a second checkpoint.
                await trio.lowlevel.checkpoint()
                if entries and self._delivery.written_at(entries[-1][0]) < read_at - LATE:
                    self._inspect_at = -math.inf  # messages waited, and may have been trimmed: inspect first
            raise ConnectionLost(f"{connection.host} is no longer the server of the shard")
        raise ConnectionLost(f"{connection.host} has been silent for {BLOCK + self._timeout:g} seconds")

    async def _read_once(
        self, connection: RedisConnection, silence: trio.CancelScope
    ) -> list[tuple[bytes, list[bytes] | None]]:
        """Acknowledge the entries read, if it is time, and wait for more; `silence` limits the wait for the answer."""
        keys, now, last_id = self._keys, trio.current_time(), self._last_id or NOTHING_READ
        silence.deadline = now + BLOCK + self._timeout
        inspect = now >= self._inspect_at
        acknowledges = inspect or self._idle or self._unacknowledged > self._max_unacknowledged
        cycle = min(BLOCK, keys.lease_ms / 4000)  # the lease must survive a missed renewal
        block = int((cycle if acknowledges else ACKNOWLEDGE_AFTER) * 1000)
        data = encode("XREAD", "COUNT", BATCH, "BLOCK", block, "STREAMS", keys.inbox, last_id)
        if acknowledges:
            self._ack += 1
            if inspect:
                self._inspect_at = now + cycle
            ack = ACKNOWLEDGE_INBOX(
                keys.inbox, keys.state, args=(_successor(last_id), self._ack, keys.lease_ms, int(inspect))
            )
            data = encode(*ack) + data
        rest = connection.send_nowait(data)
        if rest:
            await connection.send(rest)
        replies = await connection.receive()
        if acknowledges:
            # Check now, not after the read: a read of a lost inbox waits for nothing.
            self._check_inbox(connection, replies[0])
            while len(replies) < 2:
                replies += await connection.receive()
            self._ack_answered = self._ack
            self._note_acknowledged()
        silence.deadline = math.inf  # members take as long as they need
        streams = replies[-1]
        if isinstance(streams, ReplyError):
            raise refused(connection.host, streams, "to read the inbox of this process")
        self._idle = not streams
        return streams[0][1] if streams else []

    def _note_acknowledged(self) -> None:
        self._unacknowledged = 0
        self._last_unacknowledged = None

    def _check_inbox(self, connection: RedisConnection, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            raise refused(connection.host, reply, "to acknowledge messages")
        if not reply:
            return  # not inspected
        alive, time, deletions = reply
        if not alive:
            raise ConnectionLost("the lease of the inbox has lapsed")
        self._delivery.see_time(time)
        if deletions >= 0:
            deletions -= self._read_so_far
            if self._unread_deletions is not None and deletions > self._unread_deletions:
                self._delivery.report_loss("somebody has trimmed the inbox")
            self._unread_deletions = deletions


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number or 0)


def _successor(entry_id: bytes) -> bytes:
    """The id after this one: everything before it was read, and can be trimmed."""
    milliseconds, number = _order(entry_id)
    return b"%d-%d" % (milliseconds, number + 1)
