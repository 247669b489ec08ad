"""A server that follows a script."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.testing import ScriptedConnection


class Upper(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=(text_data or "").upper())


async def test_scripted_client_sends_its_texts_and_leaves() -> None:
    received: list[str | None] = []

    class Notes(Upper):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            received.append(text_data)

    sent = await ScriptedConnection.websocket("a", "b", path="/x/").run(Notes.as_asgi())
    assert [message["type"] for message in sent] == ["websocket.accept"]
    assert received == ["a", "b"]


async def test_close_code_is_the_scripts() -> None:
    codes: list[int] = []

    class Notes(Upper):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    await ScriptedConnection.websocket(code=1001).run(Notes.as_asgi())
    assert codes == [1001]


async def test_scripted_client_can_stay(autojump_clock: trio.testing.MockClock) -> None:
    server = ScriptedConnection.websocket("a", code=None)
    with trio.move_on_after(100) as scope:
        await server.run(Upper.as_asgi())
    assert scope.cancelled_caught
    assert server.sent[:2] == [
        {"type": "websocket.accept", "subprotocol": None},
        {"type": "websocket.send", "text": "A"},
    ]


async def test_script_callable_is_called_and_skipped() -> None:
    happened: list[Any] = []
    events: list[Any] = [{"type": "one"}, lambda: happened.append("between"), {"type": "two"}]
    server = ScriptedConnection({"type": "test"}, events)
    assert await server.receive() == {"type": "one"}
    assert happened == []
    assert await server.receive() == {"type": "two"}
    assert happened == ["between"]


async def test_exception_of_the_application_comes_out() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError):
        await ScriptedConnection({"type": "test"}).run(fails)


def test_script_shows_how_far_it_is() -> None:
    assert repr(ScriptedConnection({"type": "http"})) == "<ScriptedConnection of a 'http' scope, 0 messages sent>"
