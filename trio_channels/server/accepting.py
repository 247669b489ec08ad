"""Accept connections, also when the process has no descriptor left for them."""

from __future__ import annotations

import errno
import logging
import math
import os
import socket
from typing import TYPE_CHECKING, NoReturn

import trio

from .._concurrency.system import most_open_files
from .refusals import turn_away

if TYPE_CHECKING:
    from ssl import SSLContext

    from .connections import Server

logger = logging.getLogger("trio_channels.server")

#: Descriptors of a process that are not its clients': of threads, databases, Redis, files.
RESERVE = 100

#: Seconds between warnings that there is none left.
_WARN_EVERY = 60.0

#: Seconds until the next try, if a client cannot even be turned away.
_PAUSE = 0.1

#: The name of every connection's task.
_NAME = "trio_channels connection"

#: Errors of ``accept`` that are no fault of one client's.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


def descriptor_problem(most: int) -> str | None:
    """The reason why a process cannot have so many connections, and how to change that; None if it can."""
    soft = most_open_files()
    needed = most + RESERVE
    if soft >= needed:
        return None
    return (
        f"MAX_CONNECTIONS is {most}, and this process may open only {soft:.0f} files, its connections among them: set "
        f"the limit of open files to {needed} (ulimit -n {needed}; with systemd LimitNOFILE={needed}), or "
        f"MAX_CONNECTIONS to {max(1, soft - RESERVE):.0f}"
    )


class Acceptor:
    """Accepts the connections of one socket.

    It holds a spare descriptor. When the process has no other, each new client is accepted with it, and told 503;
    otherwise all of them would wait, and know nothing.
    """

    def __init__(self, server: Server, sock: socket.socket, tls: SSLContext | None) -> None:
        self._server = server
        self._sock = sock
        self._tls = tls
        self._spare: int | None = None
        self._warned_at = -math.inf

    async def run(self, connections: trio.Nursery) -> NoReturn:
        """Serve each connection in the nursery, until cancelled; then close the socket."""
        async with trio.SocketListener(trio.socket.from_stdlib_socket(self._sock)) as listener:
            self._take_spare()
            try:
                while True:
                    # With no descriptor left, accept() fails also where there is no client.
                    await trio.lowlevel.wait_readable(self._sock)
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if error.errno not in _NO_ROOM:
                            raise
                        self._warn(error)
                        await self._turn_one_away()
                    else:
                        connections.start_soon(self._server.serve, stream, self._tls, name=_NAME)
            finally:
                self._free_spare()

    def _warn(self, error: OSError) -> None:
        now = trio.current_time()
        if now < self._warned_at + _WARN_EVERY:
            return
        self._warned_at = now
        logger.warning(
            "no descriptor is left for new clients, which get 503: %s, with %d connections. Raise the limit of open "
            "files (ulimit -n; with systemd LimitNOFILE=), or lower MAX_CONNECTIONS",
            error.strerror,
            len(self._server.connections),
        )

    async def _turn_one_away(self) -> None:
        """Accept a client with the spare descriptor, and refuse it."""
        self._free_spare()
        try:
            sock, _ = self._sock.accept()
        except OSError:  # the client has gone, or another thread has taken the descriptor
            await trio.sleep(_PAUSE)
        else:
            with sock:
                sock.setblocking(False)
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
                self._server.refused += 1
                await turn_away(self._server, stream, self._tls)
        finally:
            self._take_spare()

    def _take_spare(self) -> None:
        try:
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            pass  # the next client is accepted if there is a descriptor then

    def _free_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
