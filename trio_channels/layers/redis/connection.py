"""One connection to Redis: RESP over a Trio stream, parsed by hiredis.

Errors of the operating system, TLS, Trio and hiredis are raised as :class:`ConnectionLost`. An error reply of the
server is returned as a value, for the caller to judge.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

import hiredis
import trio

from ..._concurrency.exception_groups import leaves
from ..._concurrency.system import read_socket, write_socket
from ...exceptions import ChannelLayerUnavailable
from .hosts import Host

Argument = bytes | str | int
ReplyError = hiredis.ReplyError

RECEIVE_SIZE = 64 * 1024
#: Seconds to open a connection: TCP, TLS, and the first exchange.
CONNECT_TIMEOUT = 5.0
#: Seconds for an exchange that does not block on the server. A black-holed connection opens and then stays silent.
EXCHANGE_TIMEOUT = 5.0
#: The first version with ``XADD NOMKSTREAM``, ``XTRIM MINID`` and ``XAUTOCLAIM``.
OLDEST_VERSION = (6, 2)


class ConnectionLost(ChannelLayerUnavailable):
    """The connection to Redis broke, or could not be opened."""


class Misconfigured(ConnectionLost):
    """Redis can be reached, but not with this configuration: another attempt fails in the same way."""


class CommandRefused(ChannelLayerUnavailable):
    """Redis answered a command with an error: out of memory, no permission, a key of another type."""


class TranslatedErrors:
    """A ``with`` block that raises the errors of a connection as :class:`ConnectionLost`.

    A class, because every message passes it: a generator-based context manager takes four times as long.
    """

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _CONNECTION_ERRORS):
            kind = Misconfigured if _is_permanent(error) else ConnectionLost
            raise kind(f"the connection to Redis at {self._host} failed: {_reason(error)}") from error


_CONNECTION_ERRORS = (
    OSError,
    UnicodeError,  # IDNA raises it for an invalid host name
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    hiredis.ProtocolError,
)


#: Errors of TLS that an end of the connection causes, too. Others are about certificates and versions.
_TLS_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def _is_permanent(error: BaseException) -> bool:
    """Whether the configuration is the reason: TLS, a name that is none, another kind of server at this address."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    wrong_tls = isinstance(cause, ssl.SSLError) and not isinstance(cause, _TLS_ENDS)
    return wrong_tls or isinstance(error, UnicodeError | hiredis.ProtocolError)


def _reason(error: BaseException) -> str:
    """The reason in words. Trio's errors say less than their causes: one for each address that was tried."""
    causes = [error] if error.__cause__ is None else list(leaves(error.__cause__))
    return ", ".join(dict.fromkeys(map(_words, causes)))


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        number = error.errno or 0
        if number in errno.errorcode:
            return os.strerror(number)  # Trio adds the address to the text
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


#: The beginnings of error replies that a change of the configuration ends, of Redis or of the channel layer.
_PERMANENT = (
    *("NOAUTH", "WRONGPASS", "NOPERM", "NOPROTO", "DENIED", "ERR AUTH", "ERR Client sent AUTH", "ERR invalid password"),
    *("ERR DB index", "ERR invalid DB index", "ERR SELECT is not allowed", "ERR This instance has cluster support"),
)


def refused(host: Host, reply: ReplyError, request: str = "the connection") -> ConnectionLost:
    """The error for an error reply to one of the first commands of a connection."""
    kind = Misconfigured if str(reply).startswith(_PERMANENT) else ConnectionLost
    return kind(f"Redis at {host} refuses {request}: {reply}")


#: hiredis' own annotation admits tuples of one element only.
_pack: Callable[[tuple[Argument, ...]], bytes] = cast(Any, hiredis.pack_command)


def encode(*arguments: Argument) -> bytes:
    """Encode a command in RESP."""
    return _pack(arguments)


class RedisConnection:
    """An open connection. The caller of :func:`open_connection` closes it with :meth:`aclose`."""

    def __init__(self, host: Host, stream: trio.abc.Stream) -> None:
        self.host = host
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._parser = hiredis.Reader()

    def __repr__(self) -> str:
        return f"<RedisConnection to {self.host}>"

    async def send(self, data: bytes) -> None:
        """Write encoded commands. A cancelled call may have written a part: close the connection then."""
        with TranslatedErrors(self.host):
            await self._stream.send_all(data)

    def send_nowait(self, data: bytes) -> bytes:
        """Write as much as the system takes at once; returns the rest, for :meth:`send`. Never raises."""
        if self._socket is None:
            return data  # TLS must encrypt first
        try:
            return data[write_socket(self._socket.fileno(), data) :]
        except OSError:
            return data

    async def receive(self) -> list[Any]:
        """Wait for replies; returns at least one. An error reply is an element of the list, and not raised."""
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
        # TLS must decrypt.
        return self._stream.receive_some(RECEIVE_SIZE) if self._socket is None else self._read(self._socket)

    async def _read(self, socket: trio.socket.SocketType) -> bytes:
        # A SocketStream tries to read before it waits. Replies to a command just sent cannot have come yet.
        while True:
            if socket.fileno() < 0:
                raise trio.ClosedResourceError("the connection has been closed on this side")
            await trio.lowlevel.wait_readable(socket)
            try:
                return read_socket(socket.fileno(), RECEIVE_SIZE)
            except BlockingIOError:
                pass  # a spurious wake-up

    async def exchange(self, *commands: tuple[Argument, ...], timeout: float = EXCHANGE_TIMEOUT) -> list[Any]:
        """Send commands, and wait at most `timeout` seconds for their replies. Close the connection after a failure."""
        replies: list[Any] = []
        with trio.move_on_after(timeout):
            await self.send(b"".join(encode(*command) for command in commands))
            while len(replies) < len(commands):
                replies += await self.receive()
            return replies
        raise ConnectionLost(f"Redis at {self.host} has been silent for {timeout:g} seconds")

    async def close_gracefully(self, timeout: float) -> None:
        """Close the connection after Redis has finished its commands; over TLS, or after `timeout` seconds, at once."""
        with trio.move_on_after(timeout):
            try:  # at the end of the stream Redis gives up a command that blocks
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                    while await self._stream.receive_some(RECEIVE_SIZE):
                        pass  # unread replies
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the connection is already gone
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection at once."""
        await trio.aclose_forcefully(self._stream)


def connect_timeout_for(timeout: float) -> float:
    """Seconds to open a connection for callers that wait `timeout` seconds: shorter, so that they learn the error."""
    return 0.8 * timeout


async def open_connection(host: Host, timeout: float = CONNECT_TIMEOUT) -> RedisConnection:
    """Connect, authenticate, and select the database, in at most `timeout` seconds."""
    with trio.move_on_after(timeout):
        with TranslatedErrors(host):
            stream = await _open_stream(host)
        connection = RedisConnection(host, stream)
        try:
            await _greet(connection)
        except BaseException:
            await connection.aclose()
            raise
        return connection
    # A Redis without TLS does not answer a TLS handshake at all.
    hint = "" if host.tls is None else "; if it has no TLS, use redis:// and not rediss://"
    raise ConnectionLost(f"Redis at {host} did not answer within {timeout:g} seconds{hint}")


async def _open_stream(host: Host) -> trio.abc.Stream:
    if host.address is None:
        raise ConnectionLost(f"the address of the {host} is not known yet")
    stream: trio.abc.Stream
    if isinstance(host.address, str):
        stream = await trio.open_unix_socket(host.address)
    else:
        stream = await trio.open_tcp_stream(*host.address)  # sets TCP_NODELAY
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
    if host.username:
        commands.append(("AUTH", host.username, host.password or ""))  # a user with `nopass` has any password
    elif host.password:
        commands.append(("AUTH", host.password))
    if host.database:
        commands.append(("SELECT", host.database))
    for reply in await connection.exchange(*commands) if commands else ():
        if isinstance(reply, ReplyError):
            raise refused(host, reply)


async def check_version(connection: RedisConnection, timeout: float = EXCHANGE_TIMEOUT) -> None:
    """Raise Misconfigured unless the server has at least :data:`OLDEST_VERSION`."""
    # HELLO, new in Redis 6.0, as ACL users are often denied INFO.
    [reply] = await connection.exchange(("HELLO",), timeout=timeout)
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("ERR unknown command"):
            raise refused(connection.host, reply)
        version = b"older than 6.0"
    else:
        version = dict(zip(reply[::2], reply[1::2], strict=False)).get(b"version", b"")
        if tuple(int(part) for part in version.split(b".")[:2] if part.isdigit()) >= OLDEST_VERSION:
            return
    wanted = ".".join(map(str, OLDEST_VERSION))
    raise Misconfigured(
        f"the channel layer needs Redis {wanted} or newer; {connection.host} is {version.decode()}: upgrade it"
    )
