"""A stream that tries the system call before it waits.

Trio's own streams run a checkpoint before each system call. Here the call comes first, and the caller has to yield
from time to time. An echo over hypercorn takes a third less time this way.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable
from typing import cast

import trio

from .._concurrency.system import has_hung_up, read_socket, write_parts, write_socket

#: The most milliseconds that fit into a socket option: three weeks. A longer timeout is not set.
_LONGEST = 2**31 - 1

#: Linux only; on other systems the deadline of a write is the only limit.
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


class SocketTransport(trio.abc.HalfCloseableStream):
    """Trio's stream interface, with non-blocking variants of receiving and sending."""

    __slots__ = ("_number", "family", "socket")

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket  # taken over: do not use the stream any more
        self.family = self.socket.family
        self._number = self.socket.fileno()  # -1 when it is closed, which is only done here

    def unacknowledged_for_at_most(self, seconds: float) -> None:
        """Have the kernel drop a peer that acknowledges nothing for this long (``TCP_USER_TIMEOUT``)."""
        milliseconds = max(1, seconds * 1000)  # 0 would be the system's own
        known = _USER_TIMEOUT is not None and self.family in (socket.AF_INET, socket.AF_INET6)
        if known and milliseconds <= _LONGEST:
            self.socket.setsockopt(socket.IPPROTO_TCP, cast(int, _USER_TIMEOUT), int(milliseconds))

    def receive_nowait(self, max_bytes: int) -> bytes:
        """The bytes that have arrived; b"" at the end. Raises WouldBlock and BrokenResourceError."""
        try:
            return read_socket(self._number, max_bytes)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Write as many bytes as the kernel takes; returns their number. Raises BrokenResourceError."""
        try:
            return write_socket(self._number, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    def send_parts_nowait(self, parts: list[bytes]) -> int:
        """As :meth:`send_nowait`, of several parts one behind the other."""
        try:
            return write_parts(self.socket.fileno(), parts)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    @property
    def is_open(self) -> bool:
        """Whether the socket has not been closed on this side."""
        return self._number >= 0

    def has_hung_up(self) -> bool:
        """Whether the peer has closed or reset the connection, also if there is unread data."""
        return not self.is_open or has_hung_up(self._number)

    def until_readable(self) -> Awaitable[None]:
        """Wait for bytes, or the end. Raises ClosedResourceError. Cancellation: at any time."""
        if self._number < 0:  # Trio would wait for the number -1
            raise trio.ClosedResourceError("this side has closed the connection")
        return trio.lowlevel.wait_readable(self._number)  # noqa: ASYNC105  # by the caller

    async def receive_when_readable(self, max_bytes: int) -> bytes:
        """Wait for bytes, and receive them. Raises BrokenResourceError and ClosedResourceError.

        Cancellation: nothing is lost.
        """
        while True:
            await self.until_readable()
            try:
                return self.receive_nowait(max_bytes)
            except trio.WouldBlock:
                pass  # woken for nothing

    async def drain(self, silence: float, at_most: float) -> None:
        """Discard input until the peer's end, until none has come for some seconds, or for a time at most."""
        latest = trio.current_time() + at_most
        with trio.CancelScope() as scope:
            while True:
                scope.deadline = min(trio.current_time() + silence, latest)
                if not await self.receive_when_readable(65_536):
                    return

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As any Trio stream; yields to other tasks only if it has to wait. Cancellation: nothing is lost."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            return self.receive_nowait(max_bytes or 65_536)
        except trio.WouldBlock:
            return await self.receive_when_readable(max_bytes or 65_536)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As any Trio stream; yields to other tasks only if it has to wait. Cancellation: a part may have been sent."""
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(data)
        while rest := rest[self.send_nowait(rest) :]:
            await trio.lowlevel.wait_writable(self.socket)

    async def wait_send_all_might_not_block(self) -> None:
        """As any Trio stream. Cancellation: nothing is lost."""
        await trio.lowlevel.wait_writable(self.socket)

    def shut_down(self) -> None:
        """Close the sending half. Data that the kernel has taken still arrives."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer has gone already

    async def send_eof(self) -> None:
        """As any Trio stream. Cancellation: seen before."""
        await trio.lowlevel.checkpoint()
        self.shut_down()

    def abort(self) -> None:
        """Reset the connection, without the data that the kernel has not sent. Wakes tasks that wait for the socket."""
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # closed already
        self.close()

    def close(self) -> None:
        """Close the socket. Wakes tasks that wait for it."""
        self._number = -1
        self.socket.close()

    async def aclose(self) -> None:
        """As any Trio stream. Cancellation: closes nevertheless."""
        self.close()
        await trio.lowlevel.checkpoint()
