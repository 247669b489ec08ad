"""A response whose sending was cancelled is missing: its connection ends, so that no other one takes its place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from .clients import HANDSHAKE, Application, read_all, serving_ours

GET = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = (b"content-length", b"5")


class Cancels(Application):
    """Is cancelled while it sends some of its messages, and goes on."""

    def __init__(self, *messages: dict[str, Any], more: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__()
        self.messages, self.more = messages, more
        self.went_on = trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/second":
            await super().http(scope, receive, send)
            return
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            for message in self.messages:
                await send(message)
        self.went_on.set()
        for message in self.more:
            await send(message)

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await self.http(scope, receive, send)


def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": list(headers)}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize(
    "application",
    [
        Cancels(start(LENGTH), body(b"hello")),
        Cancels(start(), more=(body(b"hello"),)),
        Cancels(start(LENGTH), body(b"he", more=True), more=(body(b"llo"),)),
        Cancels(start(LENGTH), body(b"hello"), more=(body(b"hello"),)),
    ],
    ids=["whole", "head", "part", "whole, sent again"],
)
async def test_nothing_follows_a_lost_part_of_a_response(way: str, application: Cancels) -> None:
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(GET % b"first" + GET % b"second")
        assert await read_all(stream) == b""


async def test_nothing_follows_a_lost_response_to_a_lone_request(way: str) -> None:
    application = Cancels(start(LENGTH), body(b"hello"))
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(GET % b"first")
        await application.went_on.wait()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(GET % b"second")
        assert await read_all(stream) == b""


async def test_no_frame_follows_a_lost_handshake() -> None:
    application = Cancels({"type": "websocket.accept"}, more=({"type": "websocket.send", "text": "hello"},))
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/first", b""))
        assert await read_all(stream) == b""
