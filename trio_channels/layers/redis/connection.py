"""One connection to Redis: RESP over a Trio stream, parsed by hiredis.

The border to everything that can go wrong on the way: what the operating system, TLS, Trio and hiredis raise comes out
as :class:`ConnectionLost`. Replies of the server that are errors come out as values, for whoever asked.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
import trio

from ...exceptions import ChannelLayerUnavailable
from .hosts import Host

Argument = bytes | str | int
ReplyError = hiredis.ReplyError

RECEIVE_SIZE = 64 * 1024
#: Seconds for opening a connection: TCP, TLS, and the first exchange.
CONNECT_TIMEOUT = 5.0
#: Seconds for an exchange that does not block on the server. A black-holed connection opens, and then says nothing.
EXCHANGE_TIMEOUT = 5.0
#: ``XADD NOMKSTREAM``, ``XTRIM MINID`` and ``XAUTOCLAIM`` came with it.
OLDEST_VERSION = (6, 2)


class ConnectionLost(ChannelLayerUnavailable):
    """The connection to Redis is gone, or was never there."""


class CommandRefused(ChannelLayerUnavailable):
    """Redis is there, and answered a command with an error: out of memory, no permission, a key of another type."""


class TranslatedErrors:
    """A ``with`` block: everything that a connection can end with, as :class:`ConnectionLost`.

    A class, as it is on every message's way: made of a generator it would take four times as long.
    """

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _CONNECTION_ERRORS):
            # Trio's errors are without words; what TLS said is their cause.
            text = str(error) or str(error.__cause__ or "") or type(error).__name__
            raise ConnectionLost(f"the connection to Redis at {self._host} failed: {text}") from error


_CONNECTION_ERRORS = (
    OSError,
    UnicodeError,  # what IDNA raises about a host name that is none
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    hiredis.ProtocolError,
)


#: As its annotation has it, hiredis would pack tuples of one.
_pack: Callable[[tuple[Argument, ...]], bytes] = cast(Any, hiredis.pack_command)


def encode(*arguments: Argument) -> bytes:
    """A command in RESP."""
    return _pack(arguments)


class RedisConnection:
    """An open connection. Closed by :func:`open_connection`'s caller, with :meth:`aclose`."""

    def __init__(self, host: Host, stream: trio.abc.Stream) -> None:
        self.host = host
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._parser = hiredis.Reader()

    def __repr__(self) -> str:
        return f"<RedisConnection to {self.host}>"

    async def send(self, data: bytes) -> None:
        """Write encoded commands.

        Raises:
            ConnectionLost: the connection is gone.

        Cancellation: a part may have been written; the connection must then be closed.
        """
        with TranslatedErrors(self.host):
            await self._stream.send_all(data)

    def send_nowait(self, data: bytes) -> bytes:
        """Write as much as the system takes at once, without waiting; returns the rest, which :meth:`send` can write.

        Never raises: a connection that is gone takes nothing.
        """
        if self._socket is None:
            return data  # TLS has more to do than to write
        try:
            return data[os.write(self._socket.fileno(), data) :]
        except OSError:
            return data

    async def receive(self) -> list[Any]:
        """Wait for replies; returns at least one. An error that the server replied is in the list, not raised.

        Raises:
            ConnectionLost: the connection is gone.

        Cancellation: loses nothing.
        """
        replies: list[Any] = []
        with TranslatedErrors(self.host):
            while not replies:
                data = await self._receive_some()
                if not data:
                    raise ConnectionLost(f"Redis at {self.host} closed the connection")
                self._parser.feed(bytes(data))
                while (reply := self._parser.gets()) is not False:
                    replies.append(reply)
        return replies

    def _receive_some(self) -> Awaitable[bytes | bytearray]:
        # TLS has more to do than to read.
        return self._stream.receive_some(RECEIVE_SIZE) if self._socket is None else self._read(self._socket)

    async def _read(self, socket: trio.socket.SocketType) -> bytes:
        # A SocketStream would try to read before it waits. Of what has only been asked for, nothing is there.
        while True:
            if socket.fileno() < 0:  # which nobody can wait for
                raise trio.ClosedResourceError("the connection has been closed on this side")
            await trio.lowlevel.wait_readable(socket)
            try:
                return os.read(socket.fileno(), RECEIVE_SIZE)
            except BlockingIOError:
                pass  # it was not ready after all, which systems allow themselves

    async def exchange(self, *commands: tuple[Argument, ...], patience: float = EXCHANGE_TIMEOUT) -> list[Any]:
        """Send commands, and wait `patience` seconds for their replies, with nothing else under way.

        Raises:
            ConnectionLost: the connection is gone, or silent.

        Cancellation: the replies may yet come; the connection must then be closed.
        """
        replies: list[Any] = []
        with trio.move_on_after(patience):
            await self.send(b"".join(encode(*command) for command in commands))
            while len(replies) < len(commands):
                replies += await self.receive()
            return replies
        raise ConnectionLost(f"Redis at {self.host} has been silent for {patience:g} seconds")

    async def close_gracefully(self, patience: float) -> None:
        """Close the connection when Redis has done what it was sent, and knows that nothing more will come.

        A command that blocks is given up by Redis. Over TLS, or after `patience` seconds, this is :meth:`aclose`.

        Cancellation: the connection is closed.
        """
        with trio.move_on_after(patience):
            try:
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                    while await self._stream.receive_some(RECEIVE_SIZE):
                        pass  # replies that nobody waits for
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it is gone already
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection, without a close_gracefully."""
        await trio.aclose_forcefully(self._stream)


def patience_for(timeout: float) -> float:
    """Seconds for opening a connection, for callers that wait `timeout`: they shall be told why it is not open."""
    return 0.8 * timeout


async def open_connection(host: Host, patience: float = CONNECT_TIMEOUT) -> RedisConnection:
    """Connect, authenticate, and select the database.

    Raises:
        ConnectionLost: that failed, or took longer than `patience` seconds.

    Cancellation: leaves nothing open.
    """
    with trio.move_on_after(patience):
        with TranslatedErrors(host):
            stream = await _open_stream(host)
        connection = RedisConnection(host, stream)
        try:
            await _greet(connection)
        except BaseException:
            await connection.aclose()
            raise
        return connection
    raise ConnectionLost(f"Redis at {host} did not answer within {patience:g} seconds")


async def _open_stream(host: Host) -> trio.abc.Stream:
    if host.address is None:
        raise ConnectionLost(f"nobody has said yet where the {host} is")
    stream: trio.abc.Stream
    if isinstance(host.address, str):
        stream = await trio.open_unix_socket(host.address)
    else:
        stream = await trio.open_tcp_stream(*host.address)  # sets TCP_NODELAY by itself
        if host.tls is not None:
            tls = trio.SSLStream(stream, host.tls.context(), server_hostname=host.address[0])
            try:
                await tls.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            stream = tls
    return stream


async def _greet(connection: RedisConnection) -> None:
    host = connection.host
    commands: list[tuple[Argument, ...]] = []
    if host.password is not None:
        commands.append(("AUTH", host.username, host.password) if host.username else ("AUTH", host.password))
    if host.database:
        commands.append(("SELECT", host.database))
    for reply in await connection.exchange(*commands) if commands else ():
        if isinstance(reply, ReplyError):
            raise ConnectionLost(f"Redis at {host} refuses the connection: {reply}")


async def check_version(connection: RedisConnection, patience: float = EXCHANGE_TIMEOUT) -> None:
    """Make sure that the server is not too old.

    ``HELLO``, unlike ``INFO``, is no command that ACL users tend to be denied; it came with Redis 6.0.

    Raises:
        ConnectionLost: it is.
    """
    [reply] = await connection.exchange(("HELLO",), patience=patience)
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("ERR unknown command"):
            raise ConnectionLost(f"Redis at {connection.host} refuses the connection: {reply}")
        version = b"older than 6.0"
    else:
        version = dict(zip(reply[::2], reply[1::2], strict=False)).get(b"version", b"")
        if tuple(int(part) for part in version.split(b".")[:2] if part.isdigit()) >= OLDEST_VERSION:
            return
    wanted = ".".join(map(str, OLDEST_VERSION))
    raise ConnectionLost(f"the channel layer needs Redis {wanted} or newer; {connection.host} is {version.decode()}")
