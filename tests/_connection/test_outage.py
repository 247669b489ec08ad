"""The answer to a client when the channel layer is away: 503 or 1012, and one line in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator
from trio_channels.websocket import WebSocket, websocket

AWAY = "Redis is away"


@websocket
async def refusing(ws: WebSocket) -> None:
    raise ChannelLayerUnavailable(AWAY)


@websocket
async def failing_later(ws: WebSocket) -> None:
    await ws.accept()
    await ws.receive()
    raise ChannelLayerUnavailable(AWAY)


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        raise ChannelLayerUnavailable(AWAY)


async def test_handshake_is_refused_with_503_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client = WebsocketCommunicator(refusing, "/")
    assert await client.connect() == (False, 503)
    await client.wait()
    [record] = caplog.records
    assert (record.levelno, record.exc_info) == (logging.ERROR, None)
    assert record.getMessage() == "websocket / ends: Redis is away"


async def test_server_that_cannot_send_a_response_denies_the_handshake() -> None:
    client = WebsocketCommunicator(refusing, "/")
    client.scope["extensions"] = {}
    assert (await client.connect())[0] is False
    await client.wait()


async def test_open_socket_is_closed_with_1012() -> None:
    client = WebsocketCommunicator(failing_later, "/")
    assert (await client.connect())[0]
    await client.send_to("x")
    assert await client.receive_output() == {
        "type": "websocket.close",
        "code": 1012,
        "reason": "service unavailable",
    }
    await client.wait()


async def test_request_is_answered_with_503() -> None:
    response = await HttpCommunicator(Page.as_asgi(), "GET", "/").get_response()
    assert response["status"] == 503
    assert (b"retry-after", b"5") in response["headers"]


async def test_response_that_has_begun_is_an_error_for_the_server() -> None:
    class Late(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            raise ChannelLayerUnavailable(AWAY)

    client = HttpCommunicator(Late.as_asgi(), "GET", "/")
    with pytest.raises(ChannelLayerUnavailable, match="Redis is away"):
        await client.get_response()


async def test_client_that_leaves_meanwhile_is_no_error() -> None:
    async def server(message: Any) -> None:
        if message["type"] == "websocket.http.response.start":
            raise OSError("the client has gone")

    events = [{"type": "websocket.connect"}]

    async def receive() -> Any:
        if not events:
            await trio.sleep_forever()
        return events.pop()

    with trio.fail_after(20):
        await refusing(WebsocketCommunicator(refusing, "/").scope, receive, server)
    assert events == []
