"""Each refusal is counted, and has a line in the access log with the known parts of the request."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from trio_channels.server import statistics

from .clients import HANDSHAKE, Application, frame, read_all, serving_ours
from .tables import access_log


class Waits(Application):
    """Reads bodies, and leaves handshakes unanswered."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "http.disconnect" and event["more_body"]:
            pass
        if event["type"] != "http.disconnect":
            await super().http(scope, receive, send)

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", None),
        (b"GET / HTTP/1.1\r\n", "- - - 408"),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx", "POST /a 1.1 408"),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", "POST /a 1.1 408"),
        (HANDSHAKE % (b"/a", b""), "GET /a 1.1 503"),
        (HANDSHAKE % (b"/a", b"") + frame(1, b"early"), "GET /a 1.1 400"),
    ],
    ids=["nothing", "half a head", "half a body", "no body", "no answer", "an early frame"],
)
async def test_late_or_early_client(data: bytes, line: str | None, clock: trio.testing.MockClock) -> None:
    with access_log() as log:
        async with serving_ours(Waits()) as server, await server.connect() as stream:
            if data:
                await stream.send_all(data)
            await read_all(stream)
            refusals = statistics().refusals
    assert log.lines == ([line] if line else [])  # no refusal for a client that asks nothing
    assert refusals == ({int(line[-3:]): 1} if line else {})


@pytest.mark.parametrize("key", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"])
async def test_client_beyond_the_limit(key: str, settings: Any) -> None:
    settings.TRIO_CHANNELS = {key: 1}
    with access_log() as log:
        async with serving_ours(Application()) as server, server.websocket("/") as there:
            async with await server.connect() as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await read_all(stream)).startswith(b"HTTP/1.1 503")
            assert statistics().refusals == {503: 1}
            assert statistics().refused == 1
            await there.send_message("still there?")
            assert await there.get_message() == "still there?"
    assert log.lines[:2] == ["GET / 1.1 101", "- - - 503"]
