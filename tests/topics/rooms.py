"""The topics that the protocol's cases use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import trio

from trio_channels.exceptions import ChannelLayerUnavailable, StopConsumer
from trio_channels.topics import JoinRefused, Refused, Topic, event


class NewMessage(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(min_length=1)]
    tags: list[str] = []


class Posted(msgspec.Struct):
    text: str
    length: int


class Room(Topic):
    pattern = "room:<slug:room>"

    async def join(self, params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        if "refuse" in params:
            raise JoinRefused({"reason": params["refuse"]})
        if "crash" in params:
            raise ValueError("crash in join")
        if "away" in params:
            raise ChannelLayerUnavailable("Redis is away")
        if "early" in params:
            await self.push("early", {"n": 1})
            await self.broadcast("early", {"n": 2})
        return {"room": self.kwargs["room"]} if params else None

    @event("message.new")
    async def message_new(self, payload: NewMessage) -> Posted:
        await self.broadcast("message.new", {"text": payload.text})
        return Posted(payload.text, len(payload.text))

    @event("others")
    async def others(self, payload: dict[str, Any]) -> None:
        await self.broadcast_from("others", payload)

    @event("push")
    async def push_back(self, payload: Any) -> None:
        await self.push("pushed", payload)

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload

    @event("number")
    def number(self, payload: int) -> int:  # on a thread
        return payload + 1

    @event("bytes")
    async def reverse(self, payload: bytes) -> bytes:
        return payload[::-1]

    @event("count")
    async def count(self, payload: int) -> AsyncIterator[dict[str, int]]:
        for number in range(payload):
            yield {"n": number}

    @event("refuse")
    async def refuse(self, payload: Any) -> None:
        raise Refused({"reason": "not now"})

    @event("refuse.plainly")
    async def refuse_plainly(self, payload: Any) -> None:
        raise Refused

    @event("crash")
    async def crash(self, payload: Any) -> None:
        raise ValueError("crash in a handler")

    @event("not.json")
    async def not_json(self, payload: Any) -> Any:
        return object()

    @event("crash.later")
    async def crash_later(self, payload: Any) -> None:
        self.start_soon(self._crash)

    async def _crash(self) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("crash in the background")

    @event("away")
    async def away(self, payload: Any) -> None:
        raise ChannelLayerUnavailable("Redis is away")

    @event("stop")
    async def stop(self, payload: Any) -> None:
        raise StopConsumer


class Typed(Topic):
    pattern = "typed"

    async def join(self, params: NewMessage) -> str:
        return params.text


class Plain(Topic):
    pattern = "plain:<int:number>"

    def join(self, params: dict[str, Any]) -> dict[str, int]:
        return dict(self.kwargs)


class Open(Topic):
    pattern = "any:<path:rest>"


ALL = (Room, Typed, Plain, Open)
