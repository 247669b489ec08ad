"""A server process that serves ``crowd``, and many clients of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from ..process import Program, allow_descriptors, program
from ..runner.clients import RawClient, connected

MIB = 2**20

#: Handshakes at a time, so that the backlog of the server holds them.
AT_A_TIME = 100

T = TypeVar("T")


class Crowd:
    """A running server.

    Args:
        server: its process.
        port: where it listens.
    """

    def __init__(self, server: Program, port: int) -> None:
        self.server = server
        self.port = port
        self._open: list[trio.SocketStream] = []

    async def client(self, path: str, *, port: int = 0, receive_buffer: int | None = None) -> RawClient:
        """A client that has shaken hands, through another port if one is given."""
        stream = await connected(port or self.port, receive_buffer=receive_buffer)
        self._open.append(stream)
        client = RawClient(stream)
        await client.shake_hands(path)
        return client

    async def clients(self, count: int, path: str, **options: int) -> list[RawClient]:
        """`count` clients that have shaken hands."""
        limiter = trio.CapacityLimiter(AT_A_TIME)

        async def one(_: int) -> RawClient:
            async with limiter:
                return await self.client(path, **options)

        return await gather(one, range(count))

    def leave(self) -> None:
        """Close every client's socket, without a close frame."""
        while self._open:
            self._open.pop().socket.close()

    async def figures(self) -> dict[str, Any]:
        """The server's figures; see ``crowd.figures``."""
        async with await connected(self.port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b"".join([part async for part in stream])
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        figures: dict[str, Any] = json.loads(body)
        return figures

    async def becomes(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the server's figures meet the condition; returns them."""
        while True:
            figures = await self.figures()
            if condition(figures):
                return figures
            await trio.sleep(0.1)

    async def forgets_everybody(self) -> dict[str, Any]:
        """Wait until there is nothing left of any client."""

        def empty(figures: dict[str, Any]) -> bool:
            layer = figures["layer"]
            # The one connection asks for these figures. A consumer gives back its channel last.
            return figures["websockets"] == 0 and figures["connections"] == 1 and layer["channels"] == 0

        return await self.becomes(empty)


@asynccontextmanager
async def crowd(clients: int, *, port: int = 0, **settings: Any) -> AsyncIterator[Crowd]:
    """A server for this number of clients, with these settings in ``TRIO_CHANNELS``."""
    allow_descriptors(2 * clients + 200)
    async with program(
        *("-m", "trio_channels", "serve", "tests.faults.crowd:application", f"--bind=127.0.0.1:{port}"),
        DJANGO_SETTINGS_MODULE="tests.faults.crowd_settings",
        TESTS_TRIO_CHANNELS=json.dumps(settings),
    ) as server:
        served = Crowd(server, await server.port())
        try:
            yield served
        finally:
            served.leave()


async def gather(function: Callable[[Any], Awaitable[T]], arguments: Iterable[Any]) -> list[T]:
    """Call a function with each argument, all at once; the results in no order."""
    results: list[T] = []

    async def one(argument: Any) -> None:
        results.append(await function(argument))

    async with trio.open_nursery() as nursery:
        for argument in arguments:
            nursery.start_soon(one, argument)
    return results
