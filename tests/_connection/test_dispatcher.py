"""The dispatcher by itself; its use by consumers is in test_consumer.py."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._asgi.protocol import Message
from trio_channels._connection.connection import Connection
from trio_channels._connection.dispatcher import Dispatcher
from trio_channels._connection.supervisor import supervise
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import ScriptedConnection, WebsocketCommunicator


async def test_source_whose_messages_need_no_handling_is_read_on() -> None:
    server, seen = ScriptedConnection.websocket("a", "b"), []
    connection = Connection(server.scope, server.receive, server.send)

    def note(message: Message) -> None:
        seen.append(message["type"])

    dispatcher = Dispatcher(connection, mailbox=None, from_client=note, from_layer=note)
    await supervise(connection, dispatcher.run)
    assert seen == ["websocket.connect", "websocket.receive", "websocket.receive"]


async def test_unknown_layer_message_leaves_concurrent_handlers_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layer = InMemoryChannelLayer()

    class Concurrent(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = ("room",)
        handler_concurrency = 2

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data)

    async with WebsocketCommunicator(Concurrent.as_asgi(), "/") as client:
        await client.connect()
        await layer.group_send("room", {"type": "no.such.thing"})
        await wait_all_tasks_blocked()
        await client.send_to(text_data="still there")
        assert await client.receive_from() == "still there"
        await client.disconnect()
    assert "no.such.thing" in caplog.text


async def test_server_that_fails_to_close_a_slow_client_is_reported(autojump_clock: MockClock) -> None:
    layer = InMemoryChannelLayer(capacity=1)
    ends: list[int] = []

    class Slow(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = ("room",)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for _ in range(2):
                await layer.group_send("room", {"type": "chat.message"})

        async def disconnect(self, code: int) -> None:
            ends.append(code)

    server = ScriptedConnection.websocket("a", code=None)
    send = server.send

    async def fail(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.close":
            raise ZeroDivisionError
        await send(message)

    server.send = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await server.run(Slow.as_asgi())
    assert len(ends) == 1
    assert layer.statistics().memberships == 0


async def test_client_that_leaves_while_it_is_denied_is_not_told_twice() -> None:
    left, codes = trio.Event(), []

    class Denies(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.close(4003)

        async def disconnect(self, code: int) -> None:
            codes.append(code)

    server = ScriptedConnection.websocket(code=None)

    async def receive() -> Message:
        if not denying.is_set():
            denying.set()
            return {"type": "websocket.connect"}
        await left.wait()
        return {"type": "websocket.disconnect", "code": 4001}

    async def send(message: Message) -> None:
        left.set()
        await wait_all_tasks_blocked()

    denying = trio.Event()
    await Denies.as_asgi()(server.scope, receive, send)
    assert codes == [4001]


async def test_finished_connection_ignores_layer_messages() -> None:
    server, layer, seen = ScriptedConnection.websocket(code=None), InMemoryChannelLayer(), []
    connection, let_go = Connection(server.scope, server.receive, server.send), trio.Event()

    async def last(message: Message) -> None:
        await let_go.wait()

    def begin(message: Message) -> None:
        dispatcher.start(last, message)

    with layer.open_mailbox(ring=connection.wakeup.set, offer=connection.wakeup.hand_over) as mailbox:
        dispatcher = Dispatcher(
            connection, mailbox=mailbox, from_client=begin, from_layer=seen.append, finished=lambda: True
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise, connection, dispatcher.run)
            await wait_all_tasks_blocked()
            await layer.send(mailbox.name, {"type": "chat.message"})
            await wait_all_tasks_blocked()
            let_go.set()
    assert seen == []
