"""The times of a WebSocket: an answer under way is left alone, and an end leaves nothing to the clock."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

from tests.server.clients import HANDSHAKE, Application, open_h1, read_all, serving_ours
from trio_channels.server import statistics
from trio_channels.server.access_log import ServerLog
from trio_channels.server.run import _servers
from trio_channels.server.websocket import WebSocketStream


async def test_slow_denial_is_not_cut_off_as_a_late_answer(clock: trio.testing.MockClock) -> None:
    class Denies(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"not ", "more_body": True})
            await trio.sleep(120)
            await send({"type": "websocket.http.response.body", "body": b"you"})

    async with serving_ours(Denies()) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        answer = await read_all(stream)
        assert statistics().ended == {}
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"not " in answer
    assert b"you" in answer


async def test_client_that_leaves_during_the_answer_is_never_pinged(monkeypatch: pytest.MonkeyPatch) -> None:
    left = trio.Event()
    original_access, original_hang_up = ServerLog.access, WebSocketStream.hang_up

    async def access(log: ServerLog, scope: Any, response: Any, seconds: float) -> None:
        if scope["type"] == "websocket":
            await left.wait()
        await original_access(log, scope, response, seconds)

    def hang_up(stream: WebSocketStream) -> bool:
        left.set()
        return original_hang_up(stream)

    monkeypatch.setattr(ServerLog, "access", access)
    monkeypatch.setattr(WebSocketStream, "hang_up", hang_up)
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await client.aclose()
        await application.over.wait()
        [running] = _servers.get()
        assert repr(running.clock) == "<Clock for 0 connections>"
        await server.still_serves()


async def test_error_at_a_time_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: trio.testing.MockClock
) -> None:
    application = Application()
    async with serving_ours(application) as server:
        with monkeypatch.context() as patch:
            patch.setattr(WebSocketStream, "_ping", lambda _: {}["a bug"])
            client = await open_h1(server)
            await application.over.wait()
            await client.aclose()
        await server.still_serves()
        assert statistics().ended == {"errors": 1}
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "trio_channels.server"
    assert record.exc_info is not None
