"""A named channel as its receivers see it: a stream with a consumer group, in which every process is a consumer.

The rules:

- One receiver of a process reads at a time; the others of the same channel wait for their turn.
- A message is acknowledged before it is returned. Until then Redis keeps it as pending for this process.
- What is pending comes first: Redis hands messages out to readers that have just been cancelled. A process takes back
  its own, and after ``CLAIM_AFTER`` seconds those of processes that are gone.
- An answer to an acknowledgement may be lost. A message that waits for one is kept here, and the next receiver asks
  again: Redis notes what each consumer acknowledged last.
"""

from __future__ import annotations

import math

import trio

from ..._concurrency.backoff import BackOff
from ...exceptions import ChannelLayerUnavailable
from .connection import LinkLost
from .group_reader import BLOCK, CLAIM_AFTER, GROUP, GroupReader, blob_of
from .scripts import ACKNOWLEDGE_NAMED, LEAVE_NAMED

#: Seconds between two looks at what is pending.
LOOK_INTERVAL = 3.0
#: Seconds for which Redis remembers what a consumer acknowledged last.
NOTE_EXPIRY = 300.0

Entry = tuple[bytes, bytes]


class NamedChannel:
    """One named channel in one process.

    Args:
        reader: of its stream.
        timeout: seconds of an outage after which a receiver is told.
    """

    def __init__(self, reader: GroupReader, timeout: float) -> None:
        self._reader = reader
        self._stream = reader.stream
        self._consumer = reader.consumer
        self._link = reader.link
        self._timeout = timeout
        self._note = f"{reader.stream}:note:{reader.consumer}"
        self._turn = trio.Lock()
        self._look_at = -math.inf
        self._held: Entry | None = None

    def __repr__(self) -> str:
        state = "connected" if self._reader.connected else "not connected"
        return f"<NamedChannel {self._stream}, {state}, {'a message is held' if self._held else 'none held'}>"

    @property
    def in_use(self) -> bool:
        """Whether somebody receives, or a message waits here for its receiver."""
        return self._turn.locked() or self._held is not None

    async def receive(self) -> tuple[bytes, float]:
        """Wait for a message; returns its blob, and for how many seconds it has waited.

        Raises:
            ChannelLayerUnavailable: Redis has been away for longer than the time limit.

        Cancellation: loses nothing. Not seen while an acknowledgement is under way, for `timeout` seconds at the most.
        """
        async with self._turn:
            while True:
                if self._held is None:
                    self._held = await self._read()
                entry_id, blob = self._held
                command = ACKNOWLEDGE_NAMED(
                    self._stream, self._note, args=(GROUP, self._consumer, entry_id, int(NOTE_EXPIRY * 1000))
                )
                with trio.CancelScope(shield=True):
                    mine, (seconds, microseconds) = await self._link.call(*command)
                self._held = None
                if mine:
                    now = int(seconds) + int(microseconds) / 1e6
                    return blob, now - int(entry_id.partition(b"-")[0]) / 1000

    async def quit(self) -> None:
        """Close the connection, and have Redis forget this consumer unless messages are pending for it."""
        await self.disconnect()
        await self._link.call(*LEAVE_NAMED(self._stream, self._note, args=(GROUP, self._consumer)))

    async def disconnect(self) -> None:
        """Close the connection; the next receiver opens another."""
        await self._reader.disconnect()

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> Entry:
        """The next entry, through outages shorter than the time limit."""
        back_off = BackOff()
        lost_at = math.inf
        while True:
            try:
                entry = await self._next_entry()
            except LinkLost as error:
                lost_at = min(lost_at, trio.current_time())
                if trio.current_time() - lost_at >= self._timeout:
                    raise ChannelLayerUnavailable(f"cannot receive from {self._stream}: {error}") from error
                await back_off.wait()
            else:
                if entry is not None:
                    return entry
                lost_at = math.inf

    async def _next_entry(self) -> Entry | None:
        """One entry, or None: there was none for a while."""
        finished = False
        try:
            if await self._reader.connect():
                self._look_at = -math.inf
            entry = None
            if trio.current_time() >= self._look_at:
                entry = await self._pending()
            if entry is None:
                self._look_at = trio.current_time() + LOOK_INTERVAL
                for entry_id, fields in await self._reader.read(">", 1, BLOCK):
                    entry = entry_id, blob_of(fields or [])
            finished = True
            return entry
        finally:
            if not finished:  # replies may be on their way
                await self.disconnect()

    async def _pending(self) -> Entry | None:
        """What Redis has handed out to this process before, or long ago to another one."""
        entry = await self._own()
        if entry is None:
            idle = int(CLAIM_AFTER * 1000)
            claim = ("XAUTOCLAIM", self._stream, GROUP, self._consumer, idle, "0", "COUNT", 1)
            claimed = await self._reader.ask(claim)
            if claimed and claimed[1]:
                entry = await self._own()
        return entry

    async def _own(self) -> Entry | None:
        while entries := await self._reader.read("0", 1):
            [(entry_id, fields)] = entries
            if fields:
                return entry_id, blob_of(fields)
            await self._reader.ask(("XACK", self._stream, GROUP, entry_id))  # it has expired since
        return None
