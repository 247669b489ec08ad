"""The times of a WebSocket: the deadline of its handshake, and its pings. The server's clock calls it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hypercorn.protocol.events import Event
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.events import Ping

if TYPE_CHECKING:
    from .connection import ServerConnection

#: Seconds beyond ``ACCEPT_TIMEOUT``: an application of trio-channels denies by itself first, with a better reason.
_AFTER_THE_APPLICATION = 1.0

_PING = bytes((0x89, 0))


class TimedStream(WSStream):
    """A WebSocket with its times; the subclass answers the handshake and writes."""

    __slots__ = ("_alone", "_heard", "_limits", "_next", "_server_connection", "_silent", "tick")

    def __init__(
        self,
        server_connection: ServerConnection,
        send: Callable[[Event], Awaitable[None]],
        stream_id: int,
        *,
        alone: bool,
    ) -> None:
        c = server_connection
        super().__init__(c.app, c.config, c.context, c.tasks, c.secure, c.client, c.server, send, stream_id)
        self._server_connection = server_connection
        self._limits = server_connection.limits
        self._alone = alone  # on its connection: with HTTP/1.1
        self.tick: int | None = None
        # A function, not a bound method: that would make a cycle of references.
        self._next: Callable[[TimedStream], None] = type(self)._late
        self._heard = 0
        self._silent = 0.0

    @property
    def is_read(self) -> bool:
        """Whether the client's bytes are read; not while the application keeps the connection waiting."""
        return self._server_connection.listening

    async def _deny(self, status: int) -> None:
        raise NotImplementedError

    async def _send_wsproto_event(self, event: Any) -> None:
        raise NotImplementedError

    def limit_handshake(self) -> None:
        """Deny the handshake if the application is late."""
        self._server_connection.served.clock.set(self, self._limits.accept_timeout + _AFTER_THE_APPLICATION)

    def start_pings(self) -> None:
        """Ping the client from now on."""
        self._next = type(self)._ping
        # Not all at once after a restart.
        self._server_connection.served.clock.set(self, self._limits.ping_interval * random.uniform(0.5, 1))

    def on_time(self) -> None:
        """Do the next thing; an error in it ends this connection only. Called by the server's clock."""
        try:
            self._next(self)
        except Exception as error:  # D1
            self._server_connection.fail(error)

    def _late(self) -> None:
        if self.state is ASGIWebsocketState.HANDSHAKE:  # otherwise an answer is under way
            self._server_connection.served.count("not accepted")
            self.task_group.spawn(self._deny, 503)

    def _ping(self) -> None:
        """Ping the client; later :meth:`_listen` looks whether anything came."""
        # Any bytes are a sign of life.
        self._heard = self._server_connection.reads
        self._next = type(self)._listen
        self._server_connection.served.clock.set(self, self._pause)
        if self._alone:
            self._server_connection.write_soon(_PING)
        else:
            self.task_group.spawn(self._send_wsproto_event, Ping())

    @property
    def _pause(self) -> float:
        """Seconds between a ping and the look for an answer."""
        return min(self._limits.ping_interval, self._limits.pong_timeout)

    def _listen(self) -> None:
        """Reset the connection if no bytes have come for ``PONG_TIMEOUT`` seconds."""
        connection = self._server_connection
        # Time in which a slow application keeps the connection unread does not count, nor in which a ping waits.
        pinged = connection.can_write_now or connection.tls is not None
        quiet = connection.reads == self._heard and self.is_read and pinged
        self._silent = self._silent + self._pause if quiet else 0.0
        if self._silent >= self._limits.pong_timeout:
            connection.served.count("silent")
            connection.abort()
        elif (rest := self._limits.ping_interval - self._pause) > 0:
            self._next = type(self)._ping
            connection.served.clock.set(self, rest)
        else:
            self._ping()
