"""One WebSocket of trio-websocket: the only place that knows the library, and the errors of the network."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio
import trio_websocket

from .._asgi.close_codes import ABNORMAL, NORMAL
from .._concurrency.exception_groups import leaves
from ..exceptions import CannotConnect

#: The codes for a message that is none of the protocol, and for one that is too large (RFC 6455, section 7.4.1).
PROTOCOL_ERROR, TOO_LARGE = 1002, 1009

#: Bytes of the server's answer to the handshake. The library keeps the body of a denial, however long it is.
LONGEST_HANDSHAKE = 2**20

#: Seconds for the closing handshake; a server that does not answer is left alone.
CLOSING = 2.0


class Address(NamedTuple):
    """Where a server is."""

    host: str
    port: int
    netloc: str  # for the header Host
    resource: str  # path and query
    tls: ssl.SSLContext | None

    def __str__(self) -> str:
        """The address without its query, which may hold a secret."""
        return f"ws{'s' if self.tls else ''}://{self.netloc}{self.resource.partition('?')[0]}"


class Lost(Exception):
    """A connection has ended.

    Args:
        code: the close code.
        reason: the text that came with it, or a description.
        broken: whether the server has sent what it must not send, so that a new connection would not help.
    """

    def __init__(self, code: int, reason: str, broken: bool = False) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.broken = broken

    def __str__(self) -> str:
        return f"the connection has ended: code {self.code}{f', {self.reason}' if self.reason else ''}"


class Connection:
    """An open WebSocket."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, max_message_size: int) -> None:
        self._websocket = websocket
        self._too_large = f"Exceeded maximum message size: {max_message_size} bytes"

    async def send(self, message: str | bytes) -> None:
        """Send a message. Raises Lost. Cancellation: the connection must not be used any more."""
        try:
            await self._websocket.send_message(message)
        except trio_websocket.ConnectionClosed as error:
            raise self._lost(error.reason) from None

    async def receive(self) -> str | bytes:
        """The next message. Raises Lost. Cancellation: loses no message."""
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise self._lost(error.reason) from None

    async def close(self) -> None:
        """Close in order, within :data:`CLOSING` seconds. Cancellation: closes at once."""
        with trio.move_on_after(CLOSING):
            await self._websocket.aclose(NORMAL)

    def _lost(self, reason: trio_websocket.CloseReason | None) -> Lost:
        code, text = (reason.code, reason.reason or "") if reason else (ABNORMAL, "")
        if (code, text) == (TOO_LARGE, self._too_large):
            return Lost(code, f"the server has sent a message that is too large ({text})", broken=True)
        return Lost(code, text)


class _Watched:
    """A stream that tells when the server has gone, or has sent more than a handshake: the library does not look.

    It has the methods that the library calls.
    """

    def __init__(self, stream: trio.abc.Stream, on_end: Callable[[], object]) -> None:
        self._stream = stream
        self._on_end = on_end  # does nothing after the handshake
        self._received = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray = b""
        try:
            data = await self._stream.receive_some(max_bytes)
            self._received += len(data)
        finally:
            if not data or self._received > LONGEST_HANDSHAKE:
                self._on_end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except BaseException:
            self._on_end()
            raise

    async def aclose(self) -> None:
        self._on_end()
        await self._stream.aclose()


class _Tasks:
    """The nursery for the library's own tasks. An exception in one ends the connection, not the program."""

    def __init__(self, nursery: trio.Nursery, on_failure: Callable[[], object]) -> None:
        self._nursery = nursery
        self._on_failure = on_failure
        self.failure: Exception | None = None

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self._nursery.start_soon(self._run, function, args)

    async def _run(self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        try:
            await function(*args)
        except Exception as error:
            self.failure = error
            self._on_failure()


async def talk(
    address: Address,
    headers: Sequence[tuple[bytes, bytes]],
    subprotocols: Sequence[str],
    conversation: Callable[[Connection], Awaitable[object]],
    *,
    timeout: float,
    max_message_size: int,
) -> None:
    """Connect, call the conversation with the connection, and close.

    Raises:
        CannotConnect: there is no connection within `timeout` seconds. It may be in an exception group.
        Exception: of the conversation, in an exception group.

    Cancellation: the connection is cut.
    """
    with _limit(timeout) as opening:
        stream = await _open(address)
    if opening.cancelled_caught:
        raise CannotConnect(f"{address} could not be reached within {timeout:g} seconds")
    try:
        async with trio.open_nursery() as nursery:
            with _limit(timeout) as handshake:
                tasks = _Tasks(nursery, handshake.cancel)
                websocket = await trio_websocket.wrap_client_stream(
                    tasks,  # type: ignore[arg-type]
                    _Watched(stream, handshake.cancel),  # type: ignore[arg-type]
                    address.netloc,
                    address.resource,
                    subprotocols=subprotocols,
                    extra_headers=list(headers),
                    max_message_size=max_message_size,
                )
            if handshake.cancelled_caught:
                raise _no_handshake(address, tasks.failure, timeout if trio.current_time() >= handshake.deadline else 0)
            connection = Connection(websocket, max_message_size)
            await conversation(connection)
            await connection.close()
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


def _limit(seconds: float) -> trio.CancelScope:
    return trio.CancelScope(deadline=trio.current_time() + seconds)


async def _open(address: Address) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Open the stream. Raises CannotConnect."""
    try:
        stream = await trio.open_tcp_stream(address.host, address.port)
        return stream if address.tls is None else await _secure(stream, address.host, address.tls)
    except (OSError, trio.BrokenResourceError) as error:
        cause = next(leaves(error.__cause__ or error))
        raise CannotConnect(f"{address} cannot be reached: {cause}") from error


async def _secure(stream: trio.SocketStream, host: str, context: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    """TLS over a stream. Raises trio.BrokenResourceError. Cancellation: closes it."""
    secured = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
    try:
        await secured.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured


def _no_handshake(address: Address, failure: Exception | None, waited: float) -> CannotConnect:
    if isinstance(failure, trio_websocket.ConnectionRejected):
        status = failure.status_code
        return CannotConnect(f"{address} has denied the WebSocket with the HTTP status {status}", status)
    if waited:
        return CannotConnect(f"{address} has not answered the handshake within {waited:g} seconds")
    return CannotConnect(f"{address} has ended the connection during the handshake{f': {failure}' if failure else ''}")
