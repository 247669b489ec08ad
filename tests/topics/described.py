"""Topics with every kind of payload and reply, for the descriptions of topics."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
from django.urls import include, path

from trio_channels.auth import AuthMiddlewareStack
from trio_channels.routing import ProtocolTypeRouter, URLRouter
from trio_channels.topics import Topic, TopicSocket, event


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct, array_like=True):
    x: float
    y: float
    label: str | None = None


class Circle(msgspec.Struct, tag="circle"):
    centre: Point
    radius: float


class Square(msgspec.Struct, tag="square"):
    """A square.

    Its sides are equal: */ is no end.
    """

    corner: Point
    side: float


class Drawing(msgspec.Struct):
    """The content of a board."""

    shapes: list[Circle | Square]
    colour: Colour
    tags: dict[str, int] = {}
    at: datetime | None = None
    with_dash: Annotated[int, msgspec.Meta(ge=0)] = msgspec.field(name="with-dash", default=0)


class Draw(msgspec.Struct):
    shape: Circle | Square
    then: Draw | None = None


class Board(Topic):
    """A board on which a team draws."""

    pattern = "board:<slug:team>:<int:number>"
    shows_presence = True
    sends = {
        "drawn": Drawing,
        "cleared": None,
        "raw": bytes,
        "pair": tuple[int, str],
        "odd": Annotated[int, {"unit": "m"}],
    }

    async def join(self, params: dict[str, Any]) -> Drawing:
        raise NotImplementedError

    @event("draw")
    async def draw(self, payload: Draw) -> Drawing | None:
        raise NotImplementedError

    @event("count")
    async def count(self, payload: Literal["up", "down"]) -> AsyncIterator[int]:
        yield 1

    @event("stream")
    async def stream(self, payload: Any) -> AsyncGenerator:  # type: ignore[type-arg]
        yield 1

    @event("bytes/and~more")
    async def turn(self, payload: bytes) -> bytes:
        return payload[::-1]

    @event("set")
    def choose(self, payload: Annotated[dict[str, Colour], msgspec.Meta(extra={"a": 1})]) -> None:
        raise NotImplementedError

    @event("bare")
    async def bare(self, payload, *more):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Plain(Topic):
    pattern = "plain"


application = ProtocolTypeRouter(
    {
        "websocket": AuthMiddlewareStack(
            URLRouter(
                [
                    path("a/", include([path("<slug:x>/socket", TopicSocket.as_asgi(topics=[Board, Plain]))])),
                    path("b/", URLRouter([path("socket", TopicSocket.as_asgi(topics=[Plain]))])),
                    path("other/", lambda scope, receive, send: None),  # type: ignore[arg-type, misc]
                ]
            )
        )
    }
)

#: A function instead of a router: there are no routes to follow.
hidden = ProtocolTypeRouter({"websocket": lambda scope, receive, send: None})  # type: ignore[dict-item, return-value]

without = ProtocolTypeRouter({})
