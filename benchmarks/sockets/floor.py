"""The least that Python on Trio can do, as a mark: ``python -m benchmarks.sockets.floor <port>``.

One task for each connection, whole frames only, non-blocking writes, and one prebuilt frame for all members of the
room. There is no routing and no protection, and nothing of the protocol beyond the handshake and the masks.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
from functools import partial

import trio

from .consumers import TEXT

_KEY = b"sec-websocket-key:"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FRAME = bytes((0x81, len(TEXT))) + TEXT.encode()

members: set[socket.socket] = set()


def unmask(data: bytes, mask: bytes) -> bytes:
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(len(data), "little")


async def connection(stream: trio.SocketStream) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (more := await stream.receive_some()):
            return
        head += more
    (key,) = (line[len(_KEY) :].strip() for line in head.split(b"\r\n") if line.lower().startswith(_KEY))
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    raw: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    echoes = head.startswith(b"GET /echo/ ")
    if not echoes:
        members.add(raw)  # before the client may know that it is one
    try:
        await stream.send_all(
            b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept
        )
        while True:
            try:
                data = raw.recv(65_536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(raw)
                continue
            if not data or data[0] == 0x88:
                return
            at = 0
            while at < len(data):
                size = data[at + 1] & 127
                text = unmask(data[at + 6 : at + 6 + size], data[at + 2 : at + 6]).decode()
                at += 6 + size
                if echoes:
                    raw.send(bytes((0x81, size)) + text.encode())
                    continue
                for _ in range(int(text)):
                    for each in members:
                        each.send(FRAME)
                    await trio.lowlevel.checkpoint()
    finally:
        members.discard(raw)


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, connection, int(sys.argv[1]), host="127.0.0.1", backlog=1_000))
