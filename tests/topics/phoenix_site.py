"""The topics that the client ``phoenix`` joins, over both transports; in Node in the test's process, or on a site."""

from __future__ import annotations

from typing import Any

import trio
from django.urls import path

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import URLRouter
from trio_channels.security.websocket import OriginValidator
from trio_channels.topics import LongPolling, Topic, TopicSocket, event

from .rooms import Room


class Lobby(Room):
    gate = trio.Event()

    @event("wait")
    async def wait(self, payload: Any) -> None:
        await self.gate.wait()

    @event("open")
    async def open_the_gate(self, payload: Any) -> None:
        self.gate.set()

    @event("tell.binary")
    async def tell_binary(self, payload: bytes) -> None:
        await self.broadcast_from("binary", payload)

    @event("close.socket")
    async def close_socket(self, payload: Any) -> None:
        await self.socket.close(4000)

    @event("who")
    async def who(self, payload: Any) -> dict[str, Any]:
        return {"token": self.socket.auth_token, "user": self.socket.params["user"]}


class Slow(Topic):
    pattern = "slow:<slug:name>"

    async def join(self, params: Any) -> None:
        await Lobby.gate.wait()


class Here(Topic):
    pattern = "here:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> None:
        await self.track(params["key"], params.get("meta"))


class Kept(Topic):
    pattern = "kept:<slug:name>"

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast("told", payload)


def applications(origins: list[str]) -> dict[str, Any]:
    """The applications for WebSockets and for HTTP: at ``/socket`` both, and at ``/blocked`` long-polling only."""
    layer = InMemoryChannelLayer(history={"topic.kept.*": {"messages": 100, "seconds": 60}})
    cls: Any = type("Socket", (TopicSocket,), {"channel_layer": layer})
    topics = cls.as_asgi(topics=[Lobby, Slow, Here, Kept])
    routes = [path("socket/websocket", topics)]
    long_polling = LongPolling(OriginValidator(URLRouter([*routes, path("blocked/websocket", topics)]), origins))
    return {
        "websocket": OriginValidator(URLRouter(routes), origins),
        "http": URLRouter([path("socket/longpoll", long_polling), path("blocked/longpoll", long_polling)]),
    }
