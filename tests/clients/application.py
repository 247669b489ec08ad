"""The server of the table's cases."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import trio

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.topics import LongPolling, Topic, TopicSocket, event

from ..topics.rooms import Room, Typed


class Socket(TopicSocket):
    """A socket that can stop answering."""

    gate: ClassVar[trio.Event]
    deaf = False

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if not self.deaf:
            await super().receive(text_data, bytes_data)


class Controlled(Topic):
    """Closes its socket when the client says so."""

    @property
    def served(self) -> Socket:
        return cast(Socket, self.socket)

    @event("close.socket")
    async def close_socket(self, payload: dict[str, int]) -> None:
        await self.socket.close(payload["code"])


class Lobby(Controlled, Room):
    @event("wait")
    async def wait(self, payload: Any) -> None:
        await self.served.gate.wait()

    @event("open")
    async def open_the_gate(self, payload: Any) -> None:
        self.served.gate.set()

    @event("who")
    async def who(self, payload: Any) -> dict[str, Any]:
        return {"token": self.socket.auth_token, "user": self.socket.params["user"]}

    @event("deaf")
    async def stop_listening(self, payload: Any) -> None:
        self.served.deaf = True

    @event("others")
    async def others(self, payload: Any) -> None:
        await self.broadcast_from("others", payload)


class Slow(Controlled):
    pattern = "slow:<slug:name>"

    async def join(self, params: Any) -> None:
        await self.served.gate.wait()


class Here(Controlled):
    pattern = "here:<slug:name>"
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> None:
        await self.track(params["key"], params.get("meta"))


class Kept(Controlled):
    pattern = "kept:<slug:name>"

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast("told", payload)

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @event("miss")
    async def miss(self, payload: list[int]) -> None:
        """Messages that this client gets only if it comes back with its position."""
        for number in payload:
            await self.broadcast_from("told", {"n": number})
        await self.socket.close(1012)


class Short(Kept):
    pattern = "short:<slug:name>"


TOPICS = [Lobby, Typed, Slow, Here, Kept, Short]
HISTORY = {"topic.kept.*": {"messages": 100, "seconds": 60}, "topic.short.*": {"messages": 3, "seconds": 60}}


def make_application(layer: ChannelLayer | None = None) -> ProtocolTypeRouter:
    """A server's application, with a gate of its own, and a channel layer of its own unless one is given."""
    attributes = {"channel_layer": layer or InMemoryChannelLayer(history=HISTORY), "gate": trio.Event()}
    cls: Any = type("CaseSocket", (Socket,), attributes)
    websocket = cls.as_asgi(topics=TOPICS)
    return ProtocolTypeRouter({"http": LongPolling(websocket), "websocket": websocket})
