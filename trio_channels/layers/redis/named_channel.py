"""A reader of a named channel's stream: a connection of its own, in the stream's consumer group."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..._concurrency.backoff import BackOff
from ...exceptions import ChannelLayerUnavailable
from .connection import Argument, ConnectionLost, RedisConnection, ReplyError, open_connection
from .hosts import Host
from .pipeline import Pipeline
from .scripts import ACKNOWLEDGE_NAMED, LEAVE_NAMED, Script

CONSUMER_GROUP = "w"
#: Seconds for which a read waits for a message.
BLOCK = 1.0
#: Seconds for which Redis may take to notice that a connection ends.
PATIENCE = 1.0
#: Seconds for which a message may be pending for a process before another one takes it.
CLAIM_AFTER = 30.0


class StreamReader:
    """The connection with which one process reads one named channel.

    Args:
        stream: its key.
        consumer: the reader's name in the group.
        pipeline: of the shard that it is in.
        locate: says where that is.
        timeout: seconds for an exchange that does not block.
        scripts: that are called over this connection.
    """

    def __init__(
        self,
        *,
        stream: str,
        consumer: str,
        pipeline: Pipeline,
        locate: Callable[[], Awaitable[Host]],
        timeout: float,
        scripts: tuple[Script, ...] = (),
    ) -> None:
        self.stream = stream
        self.consumer = consumer
        self.pipeline = pipeline
        self._locate = locate
        self._timeout = timeout
        self._scripts = scripts
        self._connection: RedisConnection | None = None
        self._moves = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    async def connect(self) -> bool:
        """Have a connection to where the shard is now; returns whether it is a new one.

        A new one finds, or makes, the stream and its group.

        Raises:
            ConnectionLost: that failed.
        """
        if self._moves != self.pipeline.moves:
            await self.disconnect()
        if self._connection is not None:
            return False
        self._moves = self.pipeline.moves
        self._connection = connection = await open_connection(await self._locate(), self._timeout)
        for script in self._scripts:
            await self.ask(script.load)
        await self._make_group(connection)
        return True

    async def disconnect(self) -> None:
        """Close the connection. Needed after a failed or cancelled exchange, whose replies may be on their way."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def close_gracefully(self) -> None:
        """Close the connection, and return when Redis will hand out nothing more to it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.close_gracefully(PATIENCE)

    async def read(self, start: str, count: int, block: float | None = None) -> list[tuple[bytes, list[bytes] | None]]:
        """Entries of the group.

        Args:
            start: ``>`` for fresh ones, ``0`` for those that are pending for this reader.
            count: how many at the most.
            block: seconds to wait for the first.
        """
        options: tuple[Argument, ...] = () if block is None else ("BLOCK", int(block * 1000))
        reply = await self.ask(
            (
                "XREADGROUP",
                "GROUP",
                CONSUMER_GROUP,
                self.consumer,
                "COUNT",
                count,
                *options,
                "STREAMS",
                self.stream,
                start,
            ),
            timeout=(block or 0) + self._timeout,
        )
        if not reply:
            return []
        [[_name, entries]] = reply
        return [(entry_id, fields) for entry_id, fields in entries]

    async def ask(self, command: tuple[Argument, ...], timeout: float | None = None) -> Any:
        """Redis' answer; None where the stream has gone, which is then made anew.

        Raises:
            ConnectionLost: the connection is gone, or silent, or Redis refuses.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"{self.stream} has no connection")
        [reply] = await connection.exchange(command, timeout=timeout or self._timeout)
        if isinstance(reply, ReplyError):
            if str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                # The stream was deleted, or has expired, under the reader.
                await self._make_group(connection)
                return None
            raise ConnectionLost(f"{connection.host} says: {reply}")
        return reply

    async def _make_group(self, connection: RedisConnection) -> None:
        command = ("XGROUP", "CREATE", self.stream, CONSUMER_GROUP, "0", "MKSTREAM")
        [reply] = await connection.exchange(command, timeout=self._timeout)
        if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
            raise ConnectionLost(f"{connection.host} says: {reply}")


def blob_of(fields: list[bytes]) -> bytes:
    """The blob of an entry; an empty one, which cannot be decoded, where it has none."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")


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

    def __init__(self, reader: StreamReader, timeout: float) -> None:
        self._reader = reader
        self._stream = reader.stream
        self._consumer = reader.consumer
        self._pipeline = reader.pipeline
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
                    self._stream, self._note, args=(CONSUMER_GROUP, self._consumer, entry_id, int(NOTE_EXPIRY * 1000))
                )
                with trio.CancelScope(shield=True):
                    mine, (seconds, microseconds) = await self._pipeline.call(*command)
                self._held = None
                if mine:
                    now = int(seconds) + int(microseconds) / 1e6
                    return blob, now - int(entry_id.partition(b"-")[0]) / 1000

    async def quit(self) -> None:
        """Close the connection, and have Redis forget this consumer unless messages are pending for it."""
        await self.disconnect()
        await self._pipeline.call(*LEAVE_NAMED(self._stream, self._note, args=(CONSUMER_GROUP, self._consumer)))

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
            except ConnectionLost as error:
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
            claim = ("XAUTOCLAIM", self._stream, CONSUMER_GROUP, self._consumer, idle, "0", "COUNT", 1)
            claimed = await self._reader.ask(claim)
            if claimed and claimed[1]:
                entry = await self._own()
        return entry

    async def _own(self) -> Entry | None:
        while entries := await self._reader.read("0", 1):
            [(entry_id, fields)] = entries
            if fields:
                return entry_id, blob_of(fields)
            await self._reader.ask(("XACK", self._stream, CONSUMER_GROUP, entry_id))  # it has expired since
        return None
