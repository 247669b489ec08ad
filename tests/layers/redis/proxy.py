"""A TCP proxy between a layer and its Redis that misbehaves on demand."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Proxy:
    """Passes bytes on, until told otherwise.

    Args:
        target: the port of the real server, on the loopback interface.

    Attributes:
        port: where it listens.
        connections: how many it has taken.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        self.lost_replies = 0
        self._target = target
        self._open: set[trio.CancelScope] = set()
        self._passing = trio.Event()
        self._passing.set()
        self._losing = b""
        self._losses = 0

    @property
    def url(self) -> str:
        """For the layer's ``hosts``."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many it holds now."""
        return len(self._open)

    def stall(self) -> None:
        """Become a black hole: take connections and bytes, and pass nothing on."""
        self._passing = trio.Event()

    def resume(self) -> None:
        """Pass on the bytes that were held back, and all later ones."""
        self._passing.set()

    def cut(self) -> None:
        """End every connection, in both directions."""
        for scope in list(self._open):
            scope.cancel()

    def lose_reply_to(self, word: bytes, times: int = 1) -> None:
        """Pass on the next commands that hold `word`; drop the replies and everything after, and close."""
        self._losing, self._losses = word, times

    async def _serve(self, client: trio.abc.Stream) -> None:
        self.connections += 1
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                async with await trio.open_tcp_stream("127.0.0.1", self._target) as server, client:
                    link = _Link()
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pass, client, server, link, nursery.cancel_scope, True)
                        nursery.start_soon(self._pass, server, client, link, nursery.cancel_scope, False)
            except OSError:
                await client.aclose()  # the server is not there
            finally:
                self._open.discard(scope)

    async def _pass(
        self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, link: _Link, scope: trio.CancelScope, up: bool
    ) -> None:
        try:
            async for data in source:
                await self._passing.wait()
                if up and self._losses and self._losing in data:
                    self._losses -= 1
                    self.lost_replies += 1
                    link.loses = True
                elif not up and link.loses:
                    break  # Redis has carried it out, or it would not have answered
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side has ended it
        scope.cancel()


class _Link:
    """One connection's state: whether its next reply is lost."""

    loses = False


@asynccontextmanager
async def open_proxy(target: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A running proxy, on a free port of the loopback interface; with `tls`, clients must speak that to it."""
    proxy = Proxy(target)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listener.socket.getsockname()[1]
        listeners = [listener if tls is None else trio.SSLListener(listener, tls)]
        nursery.start_soon(trio.serve_listeners, proxy._serve, listeners)
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
