"""The connections of one server: counted, bounded, and seen off at the end."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections import Counter
from dataclasses import dataclass
from ssl import SSLContext
from typing import TYPE_CHECKING

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, LifespanState

from .connection import ServerConnection
from .limits import LINGER, ROUND, ServerLimits
from .transport import SocketTransport

if TYPE_CHECKING:
    from .streams import HttpStream
    from .websocket import WebSocketStream

#: WebSockets of a shutdown that are told at a time.
_BATCH = 50

#: Connections that are being refused politely at a time; more are just closed.
_POLITE = 100

_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # seconds
)


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What the servers of this Trio run have open, and what they have done.

    Args:
        connections: open now, idle ones included.
        websockets: open now.
        requests: being answered now.
        accepted: connections so far, without those refused.
        refused: connections so far that were one too many.
        ended: how many were cut, by reason: "slow", "silent", "slow request", "handshake timeout", "not accepted",
            "bad input", "errors" (those of protocol code) and "closed <code>" for WebSockets.
        ending: whether a shutdown is under way.
    """

    connections: int
    websockets: int
    requests: int
    accepted: int
    refused: int
    ended: dict[str, int]
    ending: bool


class Server:
    """What the connections of one server share.

    Args:
        app: as wrapped by hypercorn.
        config: hypercorn's.
        limits: see there.
        context: hypercorn's events of the worker.
        state: of the lifespan, copied into each scope.
    """

    def __init__(
        self, app: AppWrapper, config: Config, limits: ServerLimits, context: WorkerContext, state: LifespanState
    ) -> None:
        self.app = app
        self.config = config
        self.limits = limits
        self.context = context
        self.state = state
        self.connections: set[ServerConnection] = set()
        self.websockets: set[WebSocketStream] = set()
        self.requests: set[HttpStream] = set()
        self.ending = False
        self.accepted = 0
        self.refused = 0
        self.ended: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._refusing = 0

    def count(self, reason: str) -> None:
        """Count a connection that was cut."""
        self.ended[reason] += 1

    async def serve_plain(self, stream: trio.SocketStream) -> None:
        """Serve an accepted connection. Cancellation: see :class:`ServerConnection`."""
        await self._serve(stream, None)

    async def serve_encrypted(self, tls: SSLContext, stream: trio.SocketStream) -> None:
        """Serve an accepted connection with TLS. Cancellation: see :class:`ServerConnection`."""
        await self._serve(stream, tls)

    async def _serve(self, stream: trio.SocketStream, tls: SSLContext | None) -> None:
        try:
            address = _address(stream)
        except OSError:
            return  # it has gone already
        if self._one_too_many(address):
            self.refused += 1
            await self._refuse(stream, tls)
            return
        self.accepted += 1
        connection = ServerConnection(self, stream, tls, next(_numbers))
        self.connections.add(connection)
        self._addresses[address] += 1
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def _one_too_many(self, address: str) -> bool:
        limits = self.limits
        if len(self.connections) >= limits.max_connections:
            return True
        return 0 < limits.max_connections_per_address <= self._addresses[address] and bool(address)

    async def _refuse(self, stream: trio.SocketStream, tls: SSLContext | None) -> None:
        """Answer 503; a TLS handshake for that would cost more than it is worth."""
        if tls is not None or self._refusing >= _POLITE:
            return
        transport = SocketTransport(stream)
        self._refusing += 1
        try:
            transport.send_nowait(_REFUSAL)
            transport.shut_down()
            with trio.move_on_after(LINGER):
                while await transport.receive_some():
                    pass
        except trio.BrokenResourceError:
            pass
        finally:
            self._refusing -= 1

    async def see_off(self) -> None:
        """Tell every WebSocket that the server ends, in batches at random times, and close what is idle.

        So that those who come back do not come all at once. Requests are left to end by themselves.

        Cancellation: who was not told yet is not told.
        """
        self.ending = True
        for connection in list(self.connections):
            await connection.close_if_idle()
        websockets = list(self.websockets)
        random.shuffle(websockets)
        batches = [websockets[start : start + _BATCH] for start in range(0, len(websockets), _BATCH)]
        pause = min(ROUND, self.limits.shutdown_grace / 4) / max(1, len(batches))
        async with trio.open_nursery() as nursery:
            for number, batch in enumerate(batches):
                if number:
                    await trio.sleep(pause * random.uniform(0.5, 1.5))
                for websocket in batch:
                    nursery.start_soon(websocket.go_away)

    def statistics(self) -> ServerStatistics:
        """The server's figures at this moment."""
        return ServerStatistics(
            connections=len(self.connections),
            websockets=len(self.websockets),
            requests=len(self.requests),
            accepted=self.accepted,
            refused=self.refused,
            ended=dict(self.ended),
            ending=self.ending,
        )


#: Numbers of connections are never used twice in a process, so that log lines of one are those of one.
_numbers = itertools.count(1)


def _address(stream: trio.SocketStream) -> str:
    """What counts as one address: an IPv4 address, or the network of an IPv6 customer; "" for a Unix socket."""
    name = stream.socket.getpeername()
    if not isinstance(name, tuple):
        return ""
    try:
        address = ipaddress.ip_address(name[0].partition("%")[0])
    except ValueError:
        return str(name[0])
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
    return str(address)
