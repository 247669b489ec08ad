"""Broadcasts: encoded once, written without the topic's task, in the order in which they were sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels.exceptions import StopConsumer
from trio_channels.layers import InMemoryChannelLayer, get_channel_layer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server.websocket import WebSocketStream
from trio_channels.sync import async_to_sync
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, broadcast, event

from ..server.clients import OURS, serving
from ..server.test_broadcast import members

A = "room:a"
PATH = "/socket/websocket?vsn=2.0.0"


class Room(Topic):
    pattern = "room:<slug:name>"

    @event("tell")
    async def tell(self, payload: Any) -> None:
        await self.broadcast_from("told", payload)

    @event("sync")
    def tell_from_a_thread(self, payload: Any) -> None:
        async_to_sync(self.broadcast)("told", payload)


class Seeing(Room):
    """Handles each broadcast itself, and drops those for other users."""

    async def handle_out(self, event: str, payload: Any) -> None:
        if isinstance(payload, bytes):
            await self.push(event, payload[::-1])
        elif payload.get("for", self.user) == self.user:
            await self.push(event, {**payload, "you": self.user})
        elif payload.get("crash"):
            raise ValueError("crash in handle_out")


def socket(topic: type[Topic], **attributes: Any) -> tuple[Any, InMemoryChannelLayer]:
    layer = InMemoryChannelLayer()
    return type("Socket", (TopicSocket,), {"channel_layer": layer, "topics": [topic], **attributes}), layer


@asynccontextmanager
async def joined(cls: Any, user: str = "ada") -> AsyncIterator[TopicCommunicator]:
    async with TopicCommunicator(cls.as_asgi()) as client:
        client.scope["user"] = user
        await client.connect()
        await client.join(A)
        yield client
        await client.disconnect()


async def nothing_more(*clients: TopicCommunicator) -> None:
    for client in clients:
        await client.push("phoenix", "heartbeat")
        assert list(client._frames) == []


async def test_broadcast_from_reaches_all_but_the_sender() -> None:
    cls, _ = socket(Room)
    async with joined(cls) as one, joined(cls) as two, joined(cls) as three:
        await one.push(A, "tell", {"n": 1})
        assert (await two.receive_event(A))[2:5] == (await three.receive_event(A))[2:5] == (A, "told", {"n": 1})
        await nothing_more(one, two, three)


async def test_handler_on_a_thread_broadcasts() -> None:
    cls, _ = socket(Room)
    async with joined(cls) as one, joined(cls) as two:
        await one.push(A, "sync", {"n": 1})
        assert (await one.receive_event(A)).payload == (await two.receive_event(A)).payload == {"n": 1}


@pytest.mark.parametrize("payload", [{"a": "é"}, [1], "text", None, b"", b"\x00\xff"])
async def test_broadcast_from_outside(payload: Any) -> None:
    cls, layer = socket(Room)
    async with joined(cls) as client:
        await broadcast(A, "news", payload, layer=layer)
        assert (await client.receive_event(A)).payload == ({} if payload is None else payload)
        await broadcast("room:b", "news", payload, layer=layer)
        await nothing_more(client)


async def test_broadcast_goes_to_the_default_layer(channel_layer: InMemoryChannelLayer) -> None:
    async with channel_layer.subscribe("topic.room.a") as events:
        await broadcast(A, "news", {"n": 1})
        assert await anext(events) == {
            "type": "group.broadcast",
            "text": '[null,null,"room:a","news",{"n":1}]',
            "topic": A,
            "event": "news",
        }
    assert get_channel_layer() is channel_layer


async def test_broadcasts_end_with_the_topic() -> None:
    cls, layer = socket(Room)
    async with joined(cls) as client:
        await client.leave(A)
        assert (await client.receive_event(A)).event == "phx_close"
        assert layer.statistics().memberships == 0
        await broadcast(A, "late", layer=layer)
        await nothing_more(client)


async def test_broadcast_to_a_topic_that_ends_is_dropped() -> None:
    end = trio.Event()

    class Leaving(Room):
        async def leave(self) -> None:
            await end.wait()

    cls, layer = socket(Leaving)
    async with joined(cls) as client:
        ref = await client.send_push(A, "phx_leave")
        await wait_all_tasks_blocked()
        await broadcast(A, "late", layer=layer)
        await client.push("phoenix", "heartbeat")
        end.set()
        assert (await client.receive_reply(ref)).status == "ok"
        assert (await client.receive_event(A)).event == "phx_close"
        await nothing_more(client)


async def test_broadcast_that_waits_when_its_topic_ends_is_dropped() -> None:
    busy, fail = trio.Event(), trio.Event()

    class Failing(Room):
        async def join(self, params: Any) -> None:
            self.start_soon(self.fail)

        async def fail(self) -> None:
            await fail.wait()
            raise StopConsumer

    async def receive(self: Any, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "busy":
            await busy.wait()
        else:
            await TopicSocket.receive(self, text_data, bytes_data)

    cls, layer = socket(Failing, receive=receive)
    async with joined(cls) as client:
        await client.send_to(text_data="busy")
        await wait_all_tasks_blocked()
        await broadcast(A, "late", layer=layer)
        fail.set()
        assert (await client.receive_event(A)).event == "phx_close"
        busy.set()
        await nothing_more(client)


async def test_broadcasts_during_the_join_follow_its_reply() -> None:
    begun, end = trio.Event(), trio.Event()

    class Slow(Room):
        async def join(self, params: Any) -> None:
            begun.set()
            await end.wait()
            self.start_soon(self.push, "from a task")

    cls, layer = socket(Slow)
    async with TopicCommunicator(cls.as_asgi()) as client:
        await client.connect()
        await client.send_push(A, "phx_join")
        await begun.wait()
        for number in range(20):
            await broadcast(A, "early", number, layer=layer)
        await wait_all_tasks_blocked()
        end.set()
        frames = [await client.receive_frame() for _ in range(22)]
        assert frames[0].event == "phx_reply"
        assert [frame.payload for frame in frames if frame.event == "early"] == list(range(20))
        assert frames[-1].event == "from a task"  # the push does not overtake the broadcasts
        await client.disconnect()


async def test_topic_with_handle_out_sees_each_broadcast() -> None:
    cls, layer = socket(Seeing)
    async with joined(cls, "ada") as ada, joined(cls, "bob") as bob:
        await broadcast(A, "news", {"n": 1}, layer=layer)
        await broadcast(A, "news", {"for": "bob"}, layer=layer)
        await broadcast(A, "news", b"abc", layer=layer)
        assert (await ada.receive_event(A)).payload == {"n": 1, "you": "ada"}
        assert (await bob.receive_event(A)).payload == {"n": 1, "you": "bob"}
        assert (await bob.receive_event(A)).payload == {"for": "bob", "you": "bob"}
        assert (await ada.receive_event(A)).payload == (await bob.receive_event(A)).payload == b"cba"
        await nothing_more(ada, bob)


async def test_crash_of_handle_out_ends_the_topic(caplog: pytest.LogCaptureFixture) -> None:
    cls, layer = socket(Seeing)
    async with joined(cls) as client:
        await broadcast(A, "news", {"for": "nobody", "crash": True}, layer=layer)
        assert (await client.receive_event(A)).event == "phx_error"
    assert caplog.records[0].exc_info[1].__notes__ == ["in handle_out() for 'news'"]  # type: ignore[index,union-attr]


async def test_topic_that_is_slower_than_its_broadcasts_ends(caplog: pytest.LogCaptureFixture) -> None:
    end = trio.Event()

    class Slow(Seeing):
        async def handle_out(self, event: str, payload: Any) -> None:
            await end.wait()

    cls, layer = socket(Slow)
    layer.capacity = 3
    async with joined(cls) as client:
        for _ in range(5):
            await broadcast(A, "news", {}, layer=layer)
            await wait_all_tasks_blocked()
        assert (await client.receive_event(A)).event == "phx_error"
        assert (await client.join(A)).status == "ok"
    (record,) = caplog.records
    assert record.getMessage().endswith("its client is to join again: it is slower than the broadcasts to it")


async def test_join_that_is_slower_than_its_broadcasts_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    end = trio.Event()

    class Slow(Room):
        async def join(self, params: Any) -> None:
            await end.wait()

    cls, layer = socket(Slow)
    layer.capacity = 3
    async with TopicCommunicator(cls.as_asgi()) as client:
        await client.connect()
        ref = await client.send_push(A, "phx_join")
        for _ in range(5):
            await wait_all_tasks_blocked()
            await broadcast(A, "news", {}, layer=layer)
        assert await client.receive_reply(ref) == ("error", {"reason": "unavailable"})
        await client.disconnect()
    assert len(caplog.records) == 1


async def test_messages_that_the_layer_has_lost_end_the_topics(caplog: pytest.LogCaptureFixture) -> None:
    cls, layer = socket(Room)
    async with joined(cls) as client:
        await client.join("room:b")
        await layer.flush()
        assert {(await client.receive_frame()).topic for _ in range(2)} == {A, "room:b"}
        assert (await client.join(A)).status == "ok"
        await broadcast(A, "news", layer=layer)
        assert (await client.receive_event(A)).event == "news"
    assert len(caplog.records) == 2


async def test_socket_has_groups_of_its_own_too() -> None:
    cls, layer = socket(Room, groups=["all"])
    async with TopicCommunicator(cls.as_asgi()) as client:
        await client.connect()
        await layer.group_broadcast("all", json=[None, None, "any", "news", {}])
        assert (await client.receive_frame()).event == "news"
        await client.disconnect()


# -- over real sockets ------------------------------------------------------------------------------------------------


async def test_frame_is_made_once_and_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"made": 0, "in turn": 0}
    encode, in_turn = WebSocketStream._encode, TopicSocket._to_client

    def encoding(self: Any, message: Any) -> bytes:
        counts["made"] += 1
        return encode(self, message)

    def sending(self: Any, message: Any) -> Any:
        counts["in turn"] += 1
        return in_turn(self, message)

    monkeypatch.setattr(WebSocketStream, "_encode", encoding)
    cls, layer = socket(Room)
    cls._to_client = sending
    async with (
        serving(OURS, ProtocolTypeRouter({"websocket": cls.as_asgi()})) as server,
        trio.open_nursery() as nursery,
    ):
        got: list[Any] = []
        done = trio.Event()

        async def client() -> None:
            async with server.websocket(PATH) as ws:
                await ws.send_message(json.dumps(["1", "1", A, "phx_join", {}]))
                await ws.get_message()
                got.append(json.loads(await ws.get_message()))
                await done.wait()

        for _ in range(5):
            nursery.start_soon(client)
        await members(layer, 5)
        made = counts["made"]
        await broadcast(A, "news", {"n": 1}, layer=layer)
        with trio.fail_after(30):
            while len(got) < 5:
                await wait_all_tasks_blocked(0.01)
        done.set()
    assert got == [[None, None, A, "news", {"n": 1}]] * 5
    assert (counts["made"] - made, counts["in turn"]) == (1, 0)
