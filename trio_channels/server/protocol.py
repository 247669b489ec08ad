"""The protocol of a connection: HTTP/1.1 or HTTP/2; a client may switch to HTTP/2 by prior knowledge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercorn.events import Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H2ProtocolAssumedError

from .http1 import Http1
from .http2 import Http2
from .limits import Waiting

if TYPE_CHECKING:
    from .connection import ServerConnection


class Protocol(ProtocolWrapper):
    """hypercorn's wrapper, around our protocols.

    Args:
        server_connection: its connection.
        alpn: the protocol that TLS negotiated, ``"h2"`` or ``"http/1.1"``.
    """

    def __init__(self, server_connection: ServerConnection, alpn: str) -> None:
        self._server_connection = server_connection
        self.protocol: Http1 | Http2 = Http2(server_connection) if alpn == "h2" else Http1(server_connection)

    @property
    def waiting(self) -> Waiting:
        """The part of a request that the client has to send now."""
        return self.protocol.waiting

    @property
    def unanswered(self) -> bool:
        """Whether a request has begun and no response to it has."""
        return self.protocol.unanswered

    async def farewell(self) -> None:
        """Tell the client that no more requests are accepted. Cancellation: may be sent in part."""
        await self.protocol.farewell()

    async def flush(self) -> None:
        """Send the head of a response that is held until its body comes. Cancellation: may be sent in part."""
        if isinstance(self.protocol, Http1):
            await self.protocol.flush()

    async def refuse(self, status: int) -> None:
        """Respond to the current request with an error, if it is unanswered. Cancellation: may be sent in part."""
        await self.protocol.refuse(status)

    async def handle(self, event: Event) -> None:
        """Handle bytes from the client. Cancellation: events may be lost."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self.protocol = Http2(self._server_connection)
            await self.protocol.initiate()
            await self.protocol.handle(RawData(assumed.data))
