"""The connections of one server: their number, their limits, and the shutdown."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ssl import SSLContext
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, LifespanState

from .._concurrency.drain import Drain
from .._connection.lasting import end_all
from .clock import Clock
from .connection import ServerConnection
from .limits import ROUND, ServerLimits
from .refusals import turn_away

if TYPE_CHECKING:
    from .request_head import Headers
    from .streams import HttpStream
    from .websocket import WebSocketStream

#: WebSockets that a shutdown closes at a time.
_BATCH = 50

#: Connections that get a 503 at a time; further ones are closed without it.
_POLITE = 100


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The figures of the servers of this Trio run.

    Args:
        connections: open now, idle ones included.
        websockets: open now.
        requests: being answered now.
        accepted: connections so far, without those refused.
        refused: connections so far beyond the limits.
        refusals: numbers of requests that the server refused by itself, by status.
        ended: numbers of connections that the server cut, by reason: "slow", "silent", "slow request", "handshake
            timeout", "not accepted", "flood", "bad input", "errors" (bugs in protocol code) and "closed <code>" for
            WebSockets.
        ending: whether a shutdown is under way.
    """

    connections: int
    websockets: int
    requests: int
    accepted: int
    refused: int
    refusals: dict[int, int]
    ended: dict[str, int]
    ending: bool


class Server:
    """The state that the connections of one server share."""

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
        self.clock = Clock()
        self.ending = False
        self.drain = Drain()
        self.accepted = 0
        self.refused = 0
        self.refusals: Counter[int] = Counter()
        self.ended: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._refusing = 0
        self.names: dict[Any, Any] = {}  # this side's addresses, of which each connection would have a copy
        # hypercorn's headers of a response, by protocol and second, for their date; not to be changed.
        self.headers: Callable[[str, int], Headers] = lru_cache(2)(
            lambda protocol, _: config.response_headers(protocol)
        )

    def count(self, reason: str) -> None:
        """Count a connection that the server cut."""
        self.ended[reason] += 1

    async def serve(self, stream: trio.SocketStream, tls: SSLContext | None = None) -> None:
        """Serve an accepted connection, and close it. Cancellation: see :class:`ServerConnection`."""
        with stream.socket:
            try:
                peer = stream.socket.getpeername()
            except OSError:
                return  # the client has gone already
            address = _address(peer)
            if self._one_too_many(address):
                await self._refuse(stream, tls)
                return
            self.accepted += 1
            connection = ServerConnection(self, stream, peer, tls, next(_numbers))
            del stream, peer  # an open connection needs only its socket
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
        most = self.limits.max_connections_per_address
        full = len(self.connections) >= self.limits.max_connections
        return full or (0 < most <= self._addresses[address] and bool(address))

    async def _refuse(self, stream: trio.SocketStream, tls: SSLContext | None) -> None:
        self.refused += 1
        self._refusing += 1
        try:
            await turn_away(self, stream, tls, politely=self._refusing <= _POLITE)
        finally:
            self._refusing -= 1

    async def see_off(self) -> None:
        """Close idle connections and event streams, then every WebSocket and session with 1012.

        Requests end by themselves.
        """
        self.ending = True
        self.drain.begin()
        end_all()
        for connection in list(self.connections):
            await connection.close_if_idle()
        websockets = list(self.websockets)
        random.shuffle(websockets)
        # Batches, at random times, keep clients from reconnecting all at once.
        batches = [websockets[start : start + _BATCH] for start in range(0, len(websockets), _BATCH)]
        pause = min(ROUND, self.limits.shutdown_grace / 4) / max(1, len(batches))
        async with trio.open_nursery() as nursery:
            for number, batch in enumerate(batches):
                if number:
                    await trio.sleep(pause * random.uniform(0.5, 1.5))
                for websocket in batch:
                    nursery.start_soon(websocket.go_away)


#: Numbers of connections. None is used twice in a process, so that a number in the log means one connection.
_numbers = itertools.count(1)


def _address(name: Any) -> str:
    """The key for limits per address: an IPv4 address, an IPv6 /64 network, or "" for a Unix socket."""
    if not isinstance(name, tuple):
        return ""
    if len(name) == 2:  # IPv4: the kernel has one way to write an address
        return str(name[0])
    address = ipaddress.IPv6Address(name[0].partition("%")[0])
    return str(address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False))
