"""The clients of P7, in a process of their own: WebSockets that each have one message on its way at a time.

The clients do little work, so that the server is measured: an epoll loop over sockets, and frames made beforehand. Each
answer must equal the expected frame, byte by byte. ``python -m benchmarks._echo_client <port> <clients>`` reads lines
with a number from stdin. For each it makes this number of echoes, and writes a line to stdout.
"""

from __future__ import annotations

import selectors
import socket
import sys

TEXT = b"x" * 32
#: Masked with zeros: the server unmasks them like any other mask.
FRAME = bytes((0x81, 0x80 | len(TEXT))) + bytes(4) + TEXT
ANSWER = bytes((0x81, len(TEXT))) + TEXT

_REQUEST = (
    b"GET /echo/ HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connect(port: int) -> socket.socket:
    """Open a WebSocket."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(_REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += client.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"expected a response with status 101; got {answer!r}")
    client.setblocking(False)
    return client


def echo(clients: list[socket.socket], selector: selectors.BaseSelector, count: int) -> None:
    """Make this number of echoes, shared by the clients."""
    to_send = to_receive = count
    for client in clients[:count]:
        client.send(FRAME)
        to_send -= 1
    parts = dict.fromkeys(clients, b"")
    while to_receive:
        for key, _ in selector.select():
            client = key.data
            answer = parts[client] + client.recv(65_536)
            if answer == ANSWER:
                parts[client] = b""
                to_receive -= 1
                if to_send:
                    client.send(FRAME)
                    to_send -= 1
            elif ANSWER.startswith(answer) and answer:
                parts[client] = answer
            else:  # with a ping in it, for example
                frames = answer.replace(b"\x89\x00", b"")
                if frames and not ANSWER.startswith(frames):
                    raise RuntimeError(f"expected {ANSWER!r}; got {answer!r}")
                parts[client] = frames


def main(port: int, number: int) -> None:
    clients = [connect(port) for _ in range(number)]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ, client)
        for line in sys.stdin:
            echo(clients, selector, int(line))
            print("done", flush=True)
    for client in clients:
        client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
