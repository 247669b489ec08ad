"""One connection of hypercorn's Trio worker: reading, writing, deadlines, and the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.h11 import H2ProtocolAssumedError
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from .._concurrency.drain import DRAIN
from .http1 import Http1
from .http2 import Http2
from .limits import LINGER, LINGER_FOR_BODY, Patience, Waiting
from .streams import Streams
from .tasks import ConnectionTasks, clients_doing
from .transport import SocketTransport
from .writer import BROKEN, Writer

if TYPE_CHECKING:
    from ssl import SSLContext

    from .connections import Server
    from .websocket import WebSocketStream

logger = logging.getLogger("trio_channels.server")

#: Bytes of one read, and of those that follow a read which was full: the client uploads, and each read costs much.
MAX_RECV, MAX_RECV_ON = 2**16, 2**18

#: Seconds that a client is left alone which sends a body as fast as it is read, so that the next read has much of it.
#: Otherwise each read gets as little as the client wrote meanwhile, and an upload takes up to twice the time.
_GATHER = 0.001

#: Bytes that such a client sends at a time, at least.
_MUCH = 2**14

#: Seconds between checks of a client that is not read because its application does not receive.
_LOOK_EVERY = 1.0


class ServerConnection(Writer):
    """One connection of a server."""

    __slots__ = (
        *("_cut_at", "_expected_at", "_more", "_patience", "_patient_for", "_reading", "app", "client", "config"),
        *("connection_state", "context", "extensions", "frames_to", "listening", "protocol", "reads", "secure"),
        *("_hasty", "_most", "server", "streams"),
    )

    def __init__(
        self, served: Server, stream: trio.SocketStream, peer: Any, tls: SSLContext | None, number: int
    ) -> None:
        super().__init__(served, SocketTransport(stream), tls)
        self.protocol: Http1 | Http2
        self.app = served.app
        self.config = served.config
        self.context = served.context
        self.secure = tls is not None
        self.extensions: dict[str, Any] = {"trio_channels.connection": {"id": number}, DRAIN: served.drain}
        self.connection_state = ConnectionState(served.state)
        self.reads = 0  # the number of times that bytes came from the client
        self.listening = False  # True while it waits for the client, False while it waits for an application
        self.frames_to: WebSocketStream | None = None  # the WebSocket that uses the connection alone (HTTP/1.1)
        self.streams = Streams()
        self.client = parse_socket_addr(self._transport.family, peer)
        self.server: tuple[str, int] | None = None
        self._patience = Patience(served.limits, served.config.keep_alive_timeout)
        self._reading = trio.CancelScope()
        self._expected_at = 0.0
        self._patient_for = LINGER
        self._cut_at = math.inf
        self._more = True  # the client may have sent more than was read
        self._most = MAX_RECV  # bytes of the next read
        self._hasty = False  # the client sends a body as fast as it is read

    def __repr__(self) -> str:
        return f"<ServerConnection {self.extensions['trio_channels.connection']['id']} from {self.client}>"

    async def run(self) -> None:
        """Serve the connection. D1: an error in protocol code ends this connection and nothing else."""
        try:
            alpn = await self._prepare()
            if alpn is not None:
                async with trio.open_nursery() as nursery:
                    self.tasks = ConnectionTasks(nursery)
                    self.protocol = Http2(self) if alpn == "h2" else Http1(self)
                    try:
                        await self.protocol.initiate()
                        await self._read_data()
                    finally:
                        await self._close()
        except* OSError:
            pass  # the client has gone
        except* Exception as group:
            self.report(group)
        finally:
            self._let_go()
            await self._close()

    def _let_go(self) -> None:
        """Drop the objects that refer to the connection, so that all their memory is free before a collection."""
        self._closing = True
        self.frames_to = None
        if hasattr(self, "protocol"):
            del self.protocol

    async def _prepare(self) -> str | None:
        """Note the own address, and agree on TLS and a protocol; returns its name, or None if the client does not."""
        name = parse_socket_addr(self._transport.family, self._transport.socket.getsockname())
        self.server = self.served.names.setdefault(name, name)
        self._transport.unacknowledged_for_at_most(self.limits.write_timeout)
        if self.tls is not None:
            if not await self._shake_hands(self.tls):
                return None
            return self.tls.selected_alpn_protocol() or "http/1.1"
        return "http/1.1"

    async def _shake_hands(self, tls: trio.SSLStream[SocketTransport]) -> bool:
        with trio.move_on_after(self.limits.handshake_timeout):
            try:
                await tls.do_handshake()
            except BROKEN:
                return False
            return True
        self.served.count("handshake timeout")
        return False

    def report(self, error: BaseException) -> None:
        """Log invalid input in one line, and a bug in protocol code with its traceback."""
        theirs = clients_doing(error)
        if theirs is not None:
            self.served.count("bad input")
            logger.info("closing the connection of %s, which sent invalid HTTP: %r", self.client, theirs)
        else:
            self.served.count("errors")
            logger.error(
                "closing the connection of %s because of a bug in protocol code: please report it",
                self.client,
                exc_info=error,
            )

    def fail(self, error: Exception) -> None:
        """Log an error in protocol code, and reset the connection (D1)."""
        self.report(error)
        self.abort()

    async def _read_data(self) -> None:
        """Read until the end or a deadline, then send applications their disconnect."""
        try:
            with self._reading:
                while data := await self._receive():
                    if self._closing:  # it is input after the last message
                        self._linger()
                    else:
                        self.reads += 1
                        await self._handle(data)
                    data = b""  # no longer in memory while it waits
                if isinstance(self.protocol, Http2):
                    await self.protocol.settle()
            if self._reading.cancelled_caught and not self._closing:
                await self._lost_patience()
        finally:
            await self.streams.hang_up()
        await self.protocol.handle(Closed())

    async def _handle(self, data: bytes) -> None:
        try:
            try:
                await (self.frames_to or self.protocol).receive_bytes(data)
            except H2ProtocolAssumedError as assumed:  # HTTP/2 by prior knowledge
                self.protocol = Http2(self)
                await self.protocol.initiate()
                await self.protocol.receive_bytes(assumed.data)
        except Exception as error:
            self.report(error)
            await self.protocol.refuse(400)
            await self._begin_to_close()

    async def _receive(self) -> bytes:
        """The next bytes; b"" at the end of the connection, also where it breaks."""
        try:
            if self._hasty and not self._more:
                await self._gather()
            if self.tls is None and self._more:
                await self._fair()
                try:
                    data = self._transport.receive_nowait(self._most)
                except trio.WouldBlock:
                    self._immediate = 0
                else:
                    self._more = len(data) == self._most
                    self._most = MAX_RECV_ON if self._more and self.frames_to is None else MAX_RECV
                    return data
            timed = self.frames_to is None and not self._closing
            if timed:
                self._expected_at = trio.current_time()
                self._expect(self._expected_at)
            self.listening = True
            try:
                if self.tls is None:
                    await self._transport.until_readable()
                    data = self._transport.receive_nowait(self._most)
                    # After a read that was not full the next one waits at once: a try would be in vain.
                    self._more = len(data) == self._most
                    self._most = MAX_RECV_ON if self._more and self.frames_to is None else MAX_RECV
                else:
                    data = bytes(await self.tls.receive_some(MAX_RECV))
            finally:
                self.listening = False
            if timed:
                if not self._closing and self._patience.deadline != math.inf:  # as it was set: Trio takes long to
                    self._reading.deadline = math.inf
                if self._patience.waiting is Waiting.BODY:
                    waited = trio.current_time() - self._expected_at
                    self._patience.received(len(data), waited)
                    self._hasty = waited < _GATHER and len(data) >= _MUCH and self.tls is None
        except trio.WouldBlock:  # woken for nothing
            return await self._receive()
        except BROKEN as error:
            self._note(error)
            return b""
        return data

    async def _gather(self) -> None:
        """Leave the client alone for a moment, if it still sends a body. Cancellation: nothing is lost."""
        self._hasty = isinstance(self.protocol, Http1) and self.protocol.uploading
        if self._hasty:
            await trio.sleep(_GATHER)
            self._more, self._most = True, MAX_RECV_ON

    def _expect(self, now: float) -> None:
        self._patience.expect(self.protocol.waiting, now)
        if not self._closing and self._reading.deadline != self._patience.deadline:  # Trio takes long to set one
            self._reading.deadline = self._patience.deadline

    def expect_anew(self) -> None:
        """The client has to send another part of a request, or none: forget the deadline, and set the next one."""
        self._patience.forget()
        if self.listening and self.frames_to is None:
            self._expect(trio.current_time())

    def expect_again(self) -> None:
        """Set the deadline for a body anew: the application has taken all of it that has come."""
        if self.listening and self._patience.waiting is not Waiting.BODY and self.frames_to is None:
            self._expected_at = trio.current_time()  # until now the application kept the client waiting
            self._expect(self._expected_at)

    async def unread(self, wait: Callable[[], Awaitable[object]]) -> None:
        """Wait while the client is not read; abort if the client goes. ``wait`` is called again each second."""
        while True:
            with trio.move_on_after(_LOOK_EVERY):
                await wait()
                return
            # Otherwise an application that waits for the client's end would never see it.
            if self._transport.has_hung_up():
                self.abort()

    async def _lost_patience(self) -> None:
        if self._patience.waiting is not Waiting.REQUEST:
            self.served.count("slow request")
        await self.protocol.refuse(408)
        await self._begin_to_close()
        with trio.move_on_after(LINGER):
            while await self._receive():
                pass

    async def protocol_send(self, event: Event) -> None:
        """Handle an event of hypercorn's protocols. Cancellation: closes the connection if it interrupts a write."""
        if isinstance(event, Closed):
            await self._begin_to_close()
            await self.protocol.handle(Closed())
        else:  # bytes do not come here: our protocols write them
            self.expect_anew()
            if cast(Updated, event).idle:
                await self.close_if_idle()

    async def close_if_idle(self) -> None:
        """Close a connection without a request if the server shuts down; one of HTTP/2 when its requests have ended."""
        if not self.served.ending or self._closing:
            return
        if isinstance(self.protocol, Http2):
            self.protocol.drain()
        elif self.protocol.waiting in (Waiting.REQUEST, Waiting.HEAD) and not self.protocol.unanswered:
            await self._begin_to_close()

    async def _begin_to_close(self) -> None:
        """Close the sending half; the reader waits for the client to close its half."""
        if not self._closing and isinstance(self.protocol, Http1):
            await self.protocol.flush()
        if self._closing:
            return
        self._closing = True
        uploading = isinstance(self.protocol, Http1) and self.protocol.uploading
        self._patient_for = LINGER_FOR_BODY if uploading else LINGER
        self._cut_at = trio.current_time() + self._patient_for
        if self.tls is None:
            self._transport.shut_down()
            self._linger()
        else:
            self._reading.cancel()  # TLS has no half-closed connections: _close() waits

    def _linger(self) -> None:
        self._reading.deadline = min(trio.current_time() + LINGER, self._cut_at)

    def abort(self) -> None:
        """Reset the connection, wake the tasks that wait for the socket, and send applications their disconnect."""
        self._closing = True
        self._transport.abort()
        self._reading.cancel()  # it may wait for an application that does not receive

    async def _close(self) -> None:
        """Close the socket; with TLS after the alerts that say so, and after the client's last bytes."""
        if self.tls is not None and self._transport.is_open:
            self._closing = True  # applications write no more
            try:
                with trio.move_on_after(LINGER):
                    await self.tls.unwrap()
            except (*BROKEN, trio.BusyResourceError):
                pass  # the client sends, or has gone
            self._transport.shut_down()
            try:
                await self._transport.drain(LINGER, self._patient_for)
            except BROKEN:
                pass
        self._transport.close()
