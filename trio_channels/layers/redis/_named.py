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
from typing import Any

import trio

from ...exceptions import ChannelLayerUnavailable
from ._back_off import BackOff
from ._link import CommandLink
from ._scripts import DONE, QUIT
from ._topology import Topology
from ._wire import Argument, LinkLost, ReplyError, Wire, open_wire

GROUP = "w"
#: Seconds for which a read waits for a message.
BLOCK = 1.0
#: Seconds between two looks at what is pending.
LOOK_INTERVAL = 3.0
#: Seconds for which a message may be pending for a process before another one takes it.
CLAIM_AFTER = 30.0
#: Seconds for which Redis remembers what a consumer acknowledged last.
NOTE_EXPIRY = 300.0

Entry = tuple[bytes, bytes]


class NamedChannel:
    """One named channel in one process.

    Args:
        stream: its key.
        consumer: this process' id.
        index: of the shard that it is in.
        link: of that shard.
        timeout: seconds of an outage after which a receiver is told.
    """

    def __init__(
        self, *, stream: str, consumer: str, index: int, link: CommandLink, topology: Topology, timeout: float
    ) -> None:
        self._stream = stream
        self._consumer = consumer
        self._index = index
        self._link = link
        self._topology = topology
        self._timeout = timeout
        self._note = f"{stream}:note:{consumer}"
        self._turn = trio.Lock()
        self._wire: Wire | None = None
        self._moves = 0
        self._look_at = -math.inf
        self._held: Entry | None = None

    def __repr__(self) -> str:
        state = "connected" if self._wire else "not connected"
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
                command = DONE(
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
        await self._link.call(*QUIT(self._stream, self._note, args=(GROUP, self._consumer)))

    async def disconnect(self) -> None:
        """Close the connection; the next receiver opens another."""
        wire, self._wire = self._wire, None
        if wire is not None:
            with trio.CancelScope(shield=True):
                await wire.aclose()

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
            if self._moves != self._link.moves:
                await self.disconnect()
            if self._wire is None:
                self._moves = self._link.moves
                self._look_at = -math.inf
                self._wire = await open_wire(await self._topology.locate(self._index), self._timeout)
                await self._make_group(self._wire)
            wire = self._wire
            entry = None
            if trio.current_time() >= self._look_at:
                entry = await self._pending(wire)
            if entry is None:
                self._look_at = trio.current_time() + LOOK_INTERVAL
                entry = await self._fresh(wire)
            finished = True
            return entry
        finally:
            if not finished:  # replies may be on their way
                await self.disconnect()

    async def _make_group(self, wire: Wire) -> None:
        command = ("XGROUP", "CREATE", self._stream, GROUP, "0", "MKSTREAM")
        [reply] = await wire.exchange(command, patience=self._timeout)
        if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
            raise LinkLost(f"{wire.host} says: {reply}")

    async def _pending(self, wire: Wire) -> Entry | None:
        """What Redis has handed out to this process before, or long ago to another one."""
        entry = await self._own(wire)
        if entry is None:
            idle = int(CLAIM_AFTER * 1000)
            claim = ("XAUTOCLAIM", self._stream, GROUP, self._consumer, idle, "0", "COUNT", 1)
            claimed = await self._ask(wire, claim)
            if claimed and claimed[1]:
                entry = await self._own(wire)
        return entry

    async def _own(self, wire: Wire) -> Entry | None:
        while reply := await self._ask(wire, self._command("0")):
            [[_name, entries]] = reply
            if not entries:
                break
            [[entry_id, fields]] = entries
            if fields:
                return entry_id, _blob(fields)
            await self._ask(wire, ("XACK", self._stream, GROUP, entry_id))  # it has expired since
        return None

    async def _fresh(self, wire: Wire) -> Entry | None:
        reply = await self._ask(wire, self._command(">", "BLOCK", int(BLOCK * 1000)), patience=BLOCK + self._timeout)
        if not reply:
            return None
        [[_name, [[entry_id, fields]]]] = reply
        return entry_id, _blob(fields)

    def _command(self, start: str, *options: Argument) -> tuple[Argument, ...]:
        return ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", 1, *options, "STREAMS", self._stream, start)

    async def _ask(self, wire: Wire, command: tuple[Argument, ...], patience: float | None = None) -> Any:
        [reply] = await wire.exchange(command, patience=patience or self._timeout)
        if isinstance(reply, ReplyError):
            if str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                # The stream was deleted, or has expired, under the reader.
                await self._make_group(wire)
                return None
            raise LinkLost(f"{wire.host} says: {reply}")
        return reply


def _blob(fields: list[bytes]) -> bytes:
    """The blob of an entry; an empty one, which cannot be decoded, where it has none."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")
