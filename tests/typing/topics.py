"""Topics as a type checker must see them. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

import msgspec
from django.urls import path

from trio_channels.layers.presence import PresenceState
from trio_channels.sync import async_to_sync
from trio_channels.testing import TopicCommunicator, TopicFrame, TopicReply
from trio_channels.topics import JoinRefused, Topic, TopicSocket, broadcast, event


class Message(msgspec.Struct):
    text: str


class Room(Topic):
    pattern = "room:<slug:room>"
    pending_pushes = 5
    shows_presence = True

    async def join(self, params: dict[str, Any]) -> dict[str, str]:
        if not params:
            raise JoinRefused({"reason": "no params"})
        await self.authorize("chat.view_room", self.kwargs["room"])
        assert_type(self.topic, str)
        assert_type(self.socket, TopicSocket)
        assert_type(await self.presence(), PresenceState)
        return {"room": self.kwargs["room"]}

    async def leave(self) -> None: ...

    @event("message.new")
    async def message_new(self, payload: Message) -> str | None:
        assert_type(await self.broadcast("message.new", payload), str | None)
        return await self.broadcast_from("message.new", payload)

    @event("count")
    async def count(self, payload: int) -> AsyncIterator[int]:
        yield payload

    @event("bytes")
    def plain(self, payload: bytes) -> bytes:
        async_to_sync(self.push)("bytes", payload)
        return payload

    async def handle_out(self, event: str, payload: Any) -> None:
        await self.push(event, payload)


class Plain(Topic):
    pattern = "plain"

    def join(self, params: Message) -> None: ...

    def leave(self) -> None: ...


class Socket(TopicSocket):
    topics = [Room, Plain]

    async def connect(self) -> None:
        assert_type(self.params, dict[str, str])
        assert_type(self.auth_token, str | None)
        await self.accept()


routes = [path("socket/websocket", Socket.as_asgi()), path("other/websocket", TopicSocket.as_asgi(topics=[Room]))]


async def use() -> None:
    assert_type(await broadcast("room:lobby", "news", {"a": 1}), str | None)
    await broadcast("room:lobby", b"news")  # type: ignore[arg-type]
    async with TopicCommunicator(Socket.as_asgi()) as client:
        assert_type(await client.join("room:lobby", {"a": 1}), TopicReply)
        assert_type(await client.push("room:lobby", "count", 1), TopicReply)
        assert_type(await client.receive_event("room:lobby"), TopicFrame)
