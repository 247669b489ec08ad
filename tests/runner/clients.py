"""A thousand WebSocket clients at the cost of a few: sockets, and just enough of RFC 6455."""

from __future__ import annotations

import os
import socket
import struct

import trio

OPCODE_TEXT, OPCODE_CLOSE = 1, 8


class RawClient:
    """One client, which sends short texts, and receives texts of any length.

    Args:
        stream: a connected stream.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def shake_hands(self, path: str) -> None:
        """Make the WebSocket handshake."""
        await self.stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head

    async def say(self, text: str) -> None:
        """Send a text."""
        mask, data = os.urandom(4), text.encode()
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        await self.stream.send_all(bytes([0x80 | OPCODE_TEXT, 0x80 | len(data)]) + mask + masked)

    async def hear(self) -> str:
        """The next text."""
        while True:
            opcode, data = await self._frame()
            if opcode == OPCODE_TEXT:
                return data.decode()

    async def close_code(self) -> int | None:
        """The close code; None if the connection ends without a close frame."""
        try:
            while True:
                opcode, data = await self._frame()
                if opcode == OPCODE_CLOSE:
                    return int(struct.unpack("!H", data[:2])[0])
        except (trio.BrokenResourceError, EOFError):
            return None

    async def _frame(self) -> tuple[int, bytes]:
        while len(self._buffer) < 2:
            await self._more()
        length, start = self._buffer[1] & 0x7F, 2
        if length >= 126:
            size = 2 if length == 126 else 8
            while len(self._buffer) < 2 + size:
                await self._more()
            length, start = int.from_bytes(self._buffer[2 : 2 + size], "big"), 2 + size
        while len(self._buffer) < start + length:
            await self._more()
        opcode, data = self._buffer[0] & 0x0F, self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        return opcode, data

    async def _more(self) -> None:
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError
        self._buffer += data


async def connected(port: int, *, receive_buffer: int | None = None) -> trio.SocketStream:
    """A TCP connection to this machine; its receive buffer may be small, and so soon full."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)
