"""The direct path: our server puts events straight into our connection's queue, and ASGI shows no difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.server.clients import open_h1, serving_ours
from trio_channels._concurrency.queues import EventQueue, Inbox
from trio_channels._concurrency.wakeup import Wakeup
from trio_channels._connection.connection import Connection
from trio_channels.generic.websocket import AsyncWebsocketConsumer
from trio_channels.routing import ProtocolTypeRouter

ENDED: list[tuple[bool, int]] = []


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "leave":
            await self.close(4_001)
        elif text_data == "fail":
            raise ValueError("as asked")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    async def disconnect(self, code: int) -> None:
        ENDED.append((self._connection.direct, code))


def through_asgi(application: Any) -> Callable[..., Any]:
    """Middleware that reads the events of the application inside."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def receive_through() -> Any:
            return await receive()

        await application(scope, receive_through, send)

    return wrapped


@pytest.fixture(params=["direct", "ASGI"])
def way(request: pytest.FixtureRequest) -> Any:
    """Both ways of events from our server to a consumer: the application, and whether its connections are direct."""
    ENDED.clear()
    echo = Echo.as_asgi()
    direct = request.param == "direct"
    return ProtocolTypeRouter({"websocket": echo if direct else through_asgi(echo)}), direct


async def test_messages_come_in_order(way: Any) -> None:
    application, direct = way
    async with serving_ours(application) as server, server.websocket("/") as client:
        sent: list[str | bytes] = [f"{number}" * (number % 200) for number in range(500)]
        sent += [b"\x00\xff", "é", "x" * 70_000]

        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for message in sent:
                    await client.send_message(message)

            nursery.start_soon(send)
            assert [await client.get_message() for _ in sent] == sent
        await client.aclose(4_002)
        with trio.fail_after(30):
            while not ENDED:
                await trio.lowlevel.checkpoint()
    assert [(direct, 4_002)] == ENDED


@pytest.mark.parametrize(("text", "code"), [("leave", 4_001), ("fail", 1_011)])
async def test_close_codes_are_the_same(way: Any, text: str, code: int) -> None:
    application, direct = way
    async with serving_ours(application) as server:
        async with server.websocket("/") as client:
            await client.send_message(text)
            with trio.fail_after(30):
                while client.closed is None:
                    await trio.lowlevel.checkpoint()
            assert client.closed.code == code
        with trio.fail_after(30):
            while not ENDED:
                await trio.lowlevel.checkpoint()
    assert [(direct, code)] == ENDED


def event(number: int) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": str(number)}


async def test_events_before_the_attachment_come_first() -> None:
    inbox, wakeup = Inbox(3), Wakeup()
    queue = EventQueue(2, wakeup)
    ends: list[Any] = []
    for number in range(3):
        await inbox(event(number))
    inbox.attach(queue, ends.append)
    assert inbox.full
    assert inbox.offer(event(3)) is False
    assert [queue.take() for _ in range(3)] == [event(number) for number in range(3)]
    assert inbox.offer(event(3)) is True
    inbox.end({"type": "websocket.disconnect"})
    assert inbox.offer(event(4)) is True, "dropped"
    assert queue.take() == event(3)
    assert queue.take() is None
    assert ends == [{"type": "websocket.disconnect"}]


async def test_end_before_the_attachment_is_told() -> None:
    inbox, ends = Inbox(1), []
    inbox.end({"type": "websocket.disconnect"})
    inbox.attach(EventQueue(1, Wakeup()), ends.append)
    assert ends == [{"type": "websocket.disconnect"}]


async def test_detached_inbox_tells_nobody() -> None:
    inbox, ends = Inbox(1), []
    inbox.attach(EventQueue(1, Wakeup()), ends.append)
    inbox.detach()
    inbox.end({"type": "websocket.disconnect"})
    assert ends == []


@pytest.mark.parametrize("wake", ["taken", "ended", "closed"])
async def test_server_waits_for_room_in_the_connections_queue(wake: str) -> None:
    inbox, queue = Inbox(1), EventQueue(1, Wakeup())
    inbox.attach(queue, lambda event: None)
    await inbox(event(0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox, event(1))
        await trio.testing.wait_all_tasks_blocked()
        if wake == "taken":
            queue.take()
        elif wake == "ended":
            inbox.end({"type": "websocket.disconnect"})
        else:
            queue.close()
    assert len(queue) == (0 if wake == "closed" else 1)


async def test_middleware_that_reads_has_the_events() -> None:
    inbox = Inbox(1)
    scope = {"type": "websocket", "extensions": {"trio_channels.direct": inbox}}

    async def receive() -> Any:
        return await inbox.receive()

    async def send(message: Any) -> None:
        raise AssertionError(message)

    assert Connection(scope, inbox.receive, send).direct
    assert not Connection(scope, receive, send).direct
    assert not Connection({"type": "http", "extensions": scope["extensions"]}, inbox.receive, send).direct


async def test_event_of_the_disconnect_is_one_object() -> None:
    async def never(*_message: Any) -> Any:
        raise AssertionError

    connection = Connection({"type": "websocket"}, never, never)
    assert connection.disconnected is connection.disconnected
    assert not connection.disconnected.is_set()


async def test_flood_of_messages_in_parts_is_refused(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MESSAGES_PER_SECOND": 2}
    ENDED.clear()
    application = ProtocolTypeRouter({"websocket": Echo.as_asgi()})
    in_parts = bytes((0x01, 0x81, 0, 0, 0, 0)) + b"a" + bytes((0x80, 0x81, 0, 0, 0, 0)) + b"b"
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await client.send(in_parts * 5)
        heard = b""
        while b"\x88" not in heard:
            heard += await client.receive()
        assert b"more than 2 messages a second" in heard
        await client.aclose()


async def test_pause_after_an_answer_is_the_rest_of_the_interval(clock: trio.testing.MockClock, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"PING_INTERVAL": 60, "PONG_TIMEOUT": 10}
    ENDED.clear()
    async with serving_ours(ProtocolTypeRouter({"websocket": Echo.as_asgi()})) as server:
        client = await open_h1(server)
        assert await client.receive() == b"\x89\x00"
        first = trio.current_time()
        await client.send(bytes((0x8A, 0x80, 0, 0, 0, 0)))
        assert await client.receive() == b"\x89\x00"
        assert 55 < trio.current_time() - first < 65
        await client.aclose()
