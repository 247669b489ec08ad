"""A named channel in one process: a stream with a consumer group, and its receivers.

The rules:

- Every process is a consumer of the group, and reads over a connection of its own for each channel.
- One receiver of a process reads at a time; the others of the same channel wait for their turn.
- A message is acknowledged before it is returned. Until then Redis keeps it as pending for this process.
- Pending messages come first, as Redis may deliver to a reader that was just cancelled. A process takes its own, and
  after ``CLAIM_AFTER`` seconds those of processes that are gone.
- The answer to an acknowledgement may be lost. Until it comes the message is held, and the next receiver asks again:
  Redis notes the last message that each consumer acknowledged.
"""

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
#: Seconds in which Redis must notice the end of a connection.
CLOSE_TIMEOUT = 1.0
#: Seconds for which a message may be pending for a process before another one takes it over.
CLAIM_AFTER = 30.0
#: Seconds between two searches for pending messages.
LOOK_INTERVAL = 3.0
#: Seconds for which Redis remembers the last acknowledgement of a consumer.
NOTE_EXPIRY = 300.0

#: The id and the blob of a message.
Entry = tuple[bytes, bytes]


class StreamReader:
    """Reads the stream of a named channel as a consumer of its group, over a connection of its own.

    Args:
        stream: the key of the channel.
        consumer: the name in the consumer group.
        pipeline: of the channel's shard.
        locate: finds the server of the shard.
        timeout: seconds for an exchange that does not block.
        scripts: the scripts that are called over this connection.
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
        """Whether the connection is open."""
        return self._connection is not None

    async def connect(self) -> bool:
        """Open a connection to the shard, unless one is open; returns whether it is new.

        The stream and its group are made if they do not exist.

        Raises:
            ConnectionLost: it failed.

        Cancellation: call :meth:`disconnect` then.
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
        """Close the connection. Needed after a failed or cancelled exchange, whose replies may still come.

        Cancellation: shielded; it does not wait for Redis.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def close_gracefully(self) -> None:
        """Close the connection, and return when Redis delivers nothing more to it.

        Cancellation: shielded, for at most :data:`CLOSE_TIMEOUT` seconds.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            with trio.CancelScope(shield=True):
                await connection.close_gracefully(CLOSE_TIMEOUT)

    async def read(self, start: str, count: int, block: float | None = None) -> list[tuple[bytes, list[bytes] | None]]:
        """Read entries of the group.

        Args:
            start: ``>`` for new entries, ``0`` for those pending for this consumer.
            count: most entries to return.
            block: seconds to wait for the first one; None: do not wait.

        Raises:
            ConnectionLost: as :meth:`ask`.

        Cancellation: call :meth:`disconnect` then.
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
        """Run a command; returns the answer, or None if the stream was gone, which is then made again.

        Raises:
            ConnectionLost: the connection is gone or silent, or Redis answered with an error.

        Cancellation: call :meth:`disconnect` then.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"{self.stream} has no connection")
        [reply] = await connection.exchange(command, timeout=timeout or self._timeout)
        if isinstance(reply, ReplyError):
            if str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                # The stream was deleted, or has expired.
                await self._make_group(connection)
                return None
            raise ConnectionLost(f"{connection.host} answered: {reply}")
        return reply

    async def _make_group(self, connection: RedisConnection) -> None:
        command = ("XGROUP", "CREATE", self.stream, CONSUMER_GROUP, "0", "MKSTREAM")
        [reply] = await connection.exchange(command, timeout=self._timeout)
        if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
            raise ConnectionLost(f"{connection.host} answered: {reply}")


def blob_of(fields: list[bytes]) -> bytes:
    """The blob of an entry; without one an empty blob, which cannot be decoded."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")


class NamedChannel:
    """The receivers of one named channel in one process.

    Args:
        reader: reads the stream of the channel.
        timeout: seconds of an outage after which a receiver gets ChannelLayerUnavailable.
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
        """Whether a receiver waits, or a message is held."""
        return self._turn.locked() or self._held is not None

    async def receive(self) -> tuple[bytes, float]:
        """Wait for a message; returns its blob, and its age in seconds.

        Raises:
            ChannelLayerUnavailable: Redis has been away for longer than the time limit.

        Cancellation: loses nothing. An acknowledgement is shielded, for at most `timeout` seconds.
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
        """Close the connection, and delete this consumer in Redis, unless messages are pending for it.

        Raises:
            ChannelLayerUnavailable: Redis did not answer in time.

        Cancellation: the consumer may stay in Redis.
        """
        await self.disconnect()
        await self._pipeline.call(*LEAVE_NAMED(self._stream, self._note, args=(CONSUMER_GROUP, self._consumer)))

    async def disconnect(self) -> None:
        """Close the connection; the next receiver opens another one. Cancellation: shielded."""
        await self._reader.disconnect()

    # -- reading --------------------------------------------------------------------------------------------------

    async def _read(self) -> Entry:
        """The next entry, through outages shorter than `timeout`."""
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
        """One entry, or None if none came for a while."""
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
            if not finished:  # replies may still come
                await self.disconnect()

    async def _pending(self) -> Entry | None:
        """An entry that is pending for this process, or has been for long for another one."""
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
