"""A reader of a named channel's stream: a connection of its own, in the stream's consumer group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .connection import Argument, LinkLost, ReplyError, Wire, open_wire
from .hosts import Host
from .pipeline import CommandLink
from .scripts import Script

GROUP = "w"
#: Seconds for which a read waits for a message.
BLOCK = 1.0
#: Seconds for which Redis may take to notice that a connection ends.
PATIENCE = 1.0
#: Seconds for which a message may be pending for a process before another one takes it.
CLAIM_AFTER = 30.0


class GroupReader:
    """The connection with which one process reads one named channel.

    Args:
        stream: its key.
        consumer: the reader's name in the group.
        link: of the shard that it is in.
        locate: says where that is.
        timeout: seconds for an exchange that does not block.
        scripts: that are called over this connection.
    """

    def __init__(
        self,
        *,
        stream: str,
        consumer: str,
        link: CommandLink,
        locate: Callable[[], Awaitable[Host]],
        timeout: float,
        scripts: tuple[Script, ...] = (),
    ) -> None:
        self.stream = stream
        self.consumer = consumer
        self.link = link
        self._locate = locate
        self._timeout = timeout
        self._scripts = scripts
        self._wire: Wire | None = None
        self._moves = 0

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._wire is not None

    async def connect(self) -> bool:
        """Have a connection to where the shard is now; returns whether it is a new one.

        A new one finds, or makes, the stream and its group.

        Raises:
            LinkLost: that failed.
        """
        if self._moves != self.link.moves:
            await self.disconnect()
        if self._wire is not None:
            return False
        self._moves = self.link.moves
        self._wire = wire = await open_wire(await self._locate(), self._timeout)
        for script in self._scripts:
            await self.ask(script.load)
        await self._make_group(wire)
        return True

    async def disconnect(self) -> None:
        """Close the connection. Needed after a failed or cancelled exchange, whose replies may be on their way."""
        wire, self._wire = self._wire, None
        if wire is not None:
            with trio.CancelScope(shield=True):
                await wire.aclose()

    async def take_leave(self) -> None:
        """Close the connection, and return when Redis will hand out nothing more to it."""
        wire, self._wire = self._wire, None
        if wire is not None:
            with trio.CancelScope(shield=True):
                await wire.farewell(PATIENCE)

    async def read(self, start: str, count: int, block: float | None = None) -> list[tuple[bytes, list[bytes] | None]]:
        """Entries of the group.

        Args:
            start: ``>`` for fresh ones, ``0`` for those that are pending for this reader.
            count: how many at the most.
            block: seconds to wait for the first.
        """
        options: tuple[Argument, ...] = () if block is None else ("BLOCK", int(block * 1000))
        reply = await self.ask(
            ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", count, *options, "STREAMS", self.stream, start),
            patience=(block or 0) + self._timeout,
        )
        if not reply:
            return []
        [[_name, entries]] = reply
        return [(entry_id, fields) for entry_id, fields in entries]

    async def ask(self, command: tuple[Argument, ...], patience: float | None = None) -> Any:
        """Redis' answer; None where the stream has gone, which is then made anew.

        Raises:
            LinkLost: the connection is gone, or silent, or Redis refuses.
        """
        wire = self._wire
        if wire is None:
            raise LinkLost(f"{self.stream} has no connection")
        [reply] = await wire.exchange(command, patience=patience or self._timeout)
        if isinstance(reply, ReplyError):
            if str(reply).startswith(("NOGROUP", "UNBLOCKED")):
                # The stream was deleted, or has expired, under the reader.
                await self._make_group(wire)
                return None
            raise LinkLost(f"{wire.host} says: {reply}")
        return reply

    async def _make_group(self, wire: Wire) -> None:
        command = ("XGROUP", "CREATE", self.stream, GROUP, "0", "MKSTREAM")
        [reply] = await wire.exchange(command, patience=self._timeout)
        if isinstance(reply, ReplyError) and not str(reply).startswith("BUSYGROUP"):
            raise LinkLost(f"{wire.host} says: {reply}")


def blob_of(fields: list[bytes]) -> bytes:
    """The blob of an entry; an empty one, which cannot be decoded, where it has none."""
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")
