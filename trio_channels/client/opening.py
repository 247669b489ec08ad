"""The way into the client: :func:`connect`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from .._concurrency.exception_groups import bare
from .coming_back import back_off as default_back_off
from .coming_back import is_final as default_is_final
from .options import Options
from .socket import ClientSocket


@asynccontextmanager
async def connect(
    url: str,
    *,
    params: Mapping[str, str] | Callable[[], Mapping[str, str]] = {},  # noqa: B006 - it is not changed
    token: str | Callable[[], str | None] | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = 10.0,
    heartbeat: float = 30.0,
    back_off: Callable[[int, int | None], float] = default_back_off,
    is_final: Callable[[int], bool] = default_is_final,
    max_waiting: int = 1_000,
    capacity: int = 1_000,
    max_message_size: int = 2**20,
) -> AsyncIterator[ClientSocket]:
    """Connect to a server of topics as long as a block runs: ``async with connect("ws://host/socket") as socket``.

    The block begins with the first connection. Later ones come by themselves.

    Args:
        url: the address, as other clients of the protocol take it: ``/websocket`` is added.
        params: the parameters of the socket; or a function that returns them, called before each connection.
        token: a token of the client, ``auth_token`` of the server's socket; or a function that returns it.
        headers: (name, value) pairs of the handshake, such as ``(b"cookie", ...)``.
        ssl_context: for ``wss``; by default the system's authorities are trusted.
        timeout: seconds for the handshake, and by default for joins and replies.
        heartbeat: seconds between two heartbeats. A connection whose heartbeat has no answer until the next is lost.
        back_off: the seconds before an attempt, from its number and the close code; :func:`back_off` by default.
        is_final: whether a close code means "do not come back"; :func:`is_final` by default.
        max_waiting: the pushes of all topics that may wait until their topics are joined again.
        capacity: the messages of one topic, and the replies of one stream, that may wait to be read.
        max_message_size: the longest message that the server may send.

    Raises:
        CannotConnect: the first connection fails.
        ConfigurationError: the address or a number is invalid.

    At the end of the block the WebSocket is closed in order; a server that does not answer is left after two seconds.
    After an exception it is cut.

    Cancellation: cuts the WebSocket.
    """
    options = Options(
        *(url, params, token, headers, ssl_context, timeout, heartbeat, back_off, is_final),
        *(max_waiting, capacity, max_message_size),
    )
    try:
        async with trio.open_nursery() as nursery:
            socket = ClientSocket(options, nursery)
            await nursery.start(socket.run, name=f"socket to {options.place}")
            yield socket
            socket.close()
    except BaseExceptionGroup as group:
        error = bare(group)
        if isinstance(error, BaseExceptionGroup):
            raise
        context, cause = error.__context__, error.__cause__
        try:
            raise error  # as it was raised in the block, not in the group of the nursery
        finally:
            error.__context__, error.__cause__ = context, cause
