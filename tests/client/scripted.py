"""A server whose every frame is the test's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
import trio_websocket

from trio_channels.client import ClientSocket, connect

from ..clients.trio_client import at_once

A = "room:a"
SAFETY = 30.0


class Peer:
    """The server's side of one connection."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.over = trio.Event()

    async def receive(self) -> list[Any]:
        """The next frame that is no heartbeat."""
        frame: list[Any] = json.loads(await self.websocket.get_message())
        return frame

    async def send(self, *frame: Any) -> None:
        await self.websocket.send_message(json.dumps(frame))

    async def send_raw(self, message: str | bytes) -> None:
        await self.websocket.send_message(message)

    async def reply(self, frame: Sequence[Any], response: Any = None, status: str = "ok") -> None:
        join_ref, ref, topic, *_ = frame
        payload = {"status": status, "response": {} if response is None else response}
        await self.send(join_ref, ref, topic, "phx_reply", payload)

    async def accept_join(self, response: Any = None, topic: str = A) -> list[Any]:
        """Answer a join; returns its frame."""
        frame = await self.receive()
        assert frame[2:4] == [topic, "phx_join"]
        await self.reply(frame, response)
        return frame

    async def accept_leave(self, topic: str = A) -> None:
        frame = await self.receive()
        assert frame[2:4] == [topic, "phx_leave"]
        await self.reply(frame)
        await self.send(frame[0], frame[0], topic, "phx_close", {})

    async def close(self, code: int = 1012, reason: str | None = None) -> None:
        await self.websocket.aclose(code, reason)

    async def cut(self) -> None:
        await trio.aclose_forcefully(self.websocket._stream)


class Scripted:
    """A server; each connection waits for :meth:`peer`."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Peer](100)
        self.port = 0

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}/socket"

    async def peer(self) -> Peer:
        """The next connection."""
        return await self._receive.receive()

    async def handle(self, request: trio_websocket.WebSocketRequest) -> None:
        protocols = request.proposed_subprotocols
        peer = Peer(await request.accept(subprotocol=protocols[0] if protocols else None))
        await self._send.send(peer)
        await peer.over.wait()


@asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    with trio.fail_after(SAFETY):
        async with trio.open_nursery() as nursery:
            serve = partial(trio_websocket.serve_websocket, handler_nursery=nursery)
            websockets: Any = await nursery.start(serve, lambda request: server.handle(request), "127.0.0.1", 0, None)
            server.port = websockets.port
            yield server
            nursery.cancel_scope.cancel()


def connecting(server: Scripted, **options: Any) -> Any:
    """A client of it, which comes back at once."""
    return connect(server.address, **{"back_off": at_once, "timeout": 5.0, **options})


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[Scripted, Peer, ClientSocket]]:
    async with scripted() as server, connecting(server, **options) as socket:
        yield server, await server.peer(), socket


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a socket has no event for it
        await trio.sleep(0.002)
