"""HTTP/1.1, or HTTP/2, or first the one and then the other."""

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
    """hypercorn's wrapper around our protocols, which its own constructor cannot be told of.

    Args:
        server_connection: the connection it is spoken on.
        alpn: what was agreed with TLS.
    """

    def __init__(self, server_connection: ServerConnection, alpn: str) -> None:
        self._server_connection = server_connection
        self.protocol: Http1 | Http2 = Http2(server_connection) if alpn == "h2" else Http1(server_connection)

    @property
    def waiting(self) -> Waiting:
        """What the client is expected to send now."""
        return self.protocol.waiting

    @property
    def unanswered(self) -> bool:
        """Whether a request has begun that is not answered yet."""
        return self.protocol.unanswered

    async def farewell(self) -> None:
        """Say that no more requests are taken. Cancellation: may be sent in part."""
        await self.protocol.farewell()

    async def flush(self) -> None:
        """Send the head of a response that is held until its body comes. Cancellation: may be sent in part."""
        if isinstance(self.protocol, Http1):
            await self.protocol.flush()

    async def refuse(self, status: int) -> None:
        """Answer the request at hand with an error, if it still can be. Cancellation: may be sent in part."""
        await self.protocol.refuse(status)

    async def handle(self, event: Event) -> None:
        """Take what came from the client. Cancellation: events may be lost."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self.protocol = Http2(self._server_connection)
            await self.protocol.initiate()
            await self.protocol.handle(RawData(assumed.data))
