"""A client that comes back with its last position gets the missed messages, once and in order, before live ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server.websocket import WebSocketStream
from trio_channels.testing import TopicCommunicator
from trio_channels.testing.topics import TopicFrame
from trio_channels.topics import Topic, TopicSocket, broadcast, event

from ..server.clients import OURS, serving
from ..server.test_broadcast import members

A = "room:a"
POSITION = "phx_position"


class Reply(msgspec.Struct):
    title: str


class Room(Topic):
    pattern = "room:<slug:name>"

    async def join(self, params: Any) -> Any:
        return params.get("reply") if isinstance(params, dict) else None

    @event("tell")
    async def tell(self, payload: Any) -> str | None:
        return await self.broadcast_from("told", payload)


class Seeing(Room):
    async def handle_out(self, event: str, payload: Any) -> None:
        if payload != "not for you":
            await self.push(event, payload)


def socket(topic: type[Topic] = Room, messages: int = 300) -> tuple[Any, InMemoryChannelLayer]:
    layer = InMemoryChannelLayer(history={"topic.room.*": {"messages": messages, "seconds": 3600}})
    return type("Socket", (TopicSocket,), {"channel_layer": layer, "topics": [topic, Other]}), layer


class Other(Topic):
    pattern = "other"


@asynccontextmanager
async def connected(cls: Any) -> AsyncIterator[TopicCommunicator]:
    async with TopicCommunicator(cls.as_asgi()) as client:
        await client.connect()
        yield client
        await client.disconnect()


async def received(client: TopicCommunicator, number: int) -> list[TopicFrame]:
    return [await client.receive_event(A) for _ in range(number)]


async def test_broadcast_carries_its_position() -> None:
    cls, layer = socket()
    async with connected(cls) as client:
        await client.join(A)
        positions = [await broadcast(A, "news", {"n": number}, layer=layer) for number in range(3)]
        assert await received(client, 3) == [
            TopicFrame(None, None, A, "news", {"n": number}, positions[number]) for number in range(3)
        ]
        assert len(set(positions)) == 3
        assert None not in positions


async def test_topic_without_history_has_no_positions() -> None:
    cls, layer = socket()
    async with connected(cls) as client:
        assert (await client.join("other", {"since": "x"})).response == {}
        assert await broadcast("other", "news", layer=layer) is None
        assert (await client.receive_event("other")).position is None


@pytest.mark.parametrize("missed", [0, 1, 250])
async def test_missed_broadcasts_come_between_the_reply_and_live_ones(missed: int) -> None:
    cls, layer = socket()
    async with connected(cls) as client:
        first = (await client.join(A)).response
        assert first["recovered"] is False
        await broadcast(A, "news", -1, layer=layer)
        position = (await client.receive_event(A)).position
    positions = [await broadcast(A, "news", number, layer=layer) for number in range(missed)]
    async with connected(cls) as client:
        ref = await client.send_push(A, "phx_join", {"since": position})
        reply = await client.receive_frame()
        assert (reply.ref, reply.payload["response"]) == (ref, {"recovered": True, "position": position})
        positions.append(await broadcast(A, "news", missed, layer=layer))
        got = await received(client, missed + 1)
        assert [frame.payload for frame in got] == list(range(missed + 1))
        assert [frame.position for frame in got] == positions


async def test_missed_broadcasts_wait_for_a_slow_join() -> None:
    begun, end = trio.Event(), trio.Event()

    class Slow(Room):
        async def join(self, params: Any) -> Any:
            begun.set()
            await end.wait()

    cls, layer = socket(Slow)
    positions = [await broadcast(A, "news", number, layer=layer) for number in range(200)]
    async with connected(cls) as client:
        await client.send_push(A, "phx_join", {"since": positions[0]})
        await begun.wait()
        await wait_all_tasks_blocked()
        for number in range(200, 250):
            await broadcast(A, "news", number, layer=layer)
            await wait_all_tasks_blocked()
        end.set()
        assert (await client.receive_frame()).payload["response"]["recovered"] is True
        assert [frame.payload for frame in await received(client, 249)] == list(range(1, 250))


@pytest.mark.slow
async def test_topic_with_history_may_be_too_slow_too() -> None:
    class Slow(Room):
        async def handle_out(self, event: str, payload: Any) -> None:
            await trio.sleep_forever()

    cls, layer = socket(Slow)
    layer.capacity = 3
    async with connected(cls) as client:
        position = (await client.join(A)).response["position"]
        for number in range(5):
            await broadcast(A, "news", number, layer=layer)
            await wait_all_tasks_blocked()
        assert (await client.receive_event(A)).event == "phx_error"
        assert (await client.join(A, {"since": position})).response["recovered"] is True


async def test_second_join_on_the_same_socket_resumes() -> None:
    cls, layer = socket()
    async with connected(cls) as client:
        position = (await client.join(A)).response["position"]
        await client.leave(A)
        await broadcast(A, "news", 1, layer=layer)
        assert (await client.join(A, {"since": position})).response["recovered"] is True
        assert (await client.receive_event(A, "news")).payload == 1
        assert (await client.join(A, {"since": position})).response["recovered"] is True
        assert (await client.receive_event(A, "news")).payload == 1


@pytest.mark.parametrize("since", [None, "garbage", "", 7, [], {"a": 1}, "x" * 300, "é"])
async def test_position_that_cannot_be_continued_is_not_recovered(since: Any) -> None:
    cls, layer = socket()
    last = await broadcast(A, "news", 1, layer=layer)
    async with connected(cls) as client:
        assert await client.join(A, {"since": since}) == ("ok", {"recovered": False, "position": last})
        await broadcast(A, "news", 2, layer=layer)
        assert (await client.receive_event(A)).payload == 2


async def test_position_that_is_too_old_is_not_recovered(caplog: pytest.LogCaptureFixture) -> None:
    cls, layer = socket(messages=2)
    positions = [await broadcast(A, "news", number, layer=layer) for number in range(5)]
    async with connected(cls) as client:
        assert await client.join(A, {"since": positions[0]}) == ("ok", {"recovered": False, "position": positions[-1]})
    assert [record for record in caplog.records if record.name == "trio_channels.topics"] == []


@pytest.mark.parametrize(("reply", "own"), [(None, {}), ({"a": 1}, {"a": 1}), (Reply("lobby"), {"title": "lobby"})])
async def test_reply_of_the_topic_is_part_of_it(reply: Any, own: dict[str, Any]) -> None:
    class Replying(Room):
        async def join(self, params: list[int]) -> Any:
            return reply

    cls, _ = socket(Replying)
    async with connected(cls) as client:
        response = (await client.join(A, [])).response
        assert response == {**own, "recovered": False, "position": response["position"]}


async def test_reply_that_is_no_object_fails(caplog: pytest.LogCaptureFixture) -> None:
    cls, _ = socket()
    async with connected(cls) as client:
        assert (await client.join(A, {"reply": [1]})).response == {"reason": "join crashed"}
    assert "must return a dict, a msgspec.Struct or None, as the reply also says 'recovered'" in caplog.text


@pytest.mark.parametrize("joining", [False, True])
async def test_position_of_a_binary_broadcast_follows_it(joining: bool) -> None:
    cls, layer = socket()
    first = await broadcast(A, "first", 0, layer=layer)
    async with connected(cls) as client:
        if not joining:
            await client.join(A)
        position = await broadcast(A, "news", b"\x00\xff", layer=layer)
        if joining:
            await client.join(A, {"since": first})
        assert await received(client, 2) == [
            TopicFrame(None, None, A, "news", b"\x00\xff"),
            TopicFrame(None, None, A, POSITION, {}, position),
        ]


async def test_position_follows_what_handle_out_sends() -> None:
    cls, layer = socket(Seeing)
    async with connected(cls) as client:
        await client.join(A)
        positions = [await broadcast(A, "news", text, layer=layer) for text in ("for you", "not for you")]
        assert [(frame.event, frame.payload, frame.position) for frame in await received(client, 3)] == [
            ("news", "for you", None),
            (POSITION, {}, positions[0]),
            (POSITION, {}, positions[1]),
        ]


async def test_sender_learns_the_position() -> None:
    cls, _ = socket()
    async with connected(cls) as one, connected(cls) as two:
        await one.join(A)
        await two.join(A)
        position = (await one.push(A, "tell", 1)).response
        assert (await two.receive_event(A)).position == position


async def test_frame_with_a_position_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cls, layer = socket()
    made: list[str] = []
    encode = WebSocketStream._encode

    def encoding(self: Any, message: Any) -> bytes:
        made.append(message["text"])
        return encode(self, message)

    monkeypatch.setattr(WebSocketStream, "_encode", encoding)
    async with (
        serving(OURS, ProtocolTypeRouter({"websocket": cls.as_asgi()})) as server,
        trio.open_nursery() as nursery,
    ):
        got: list[Any] = []
        done = trio.Event()

        async def client() -> None:
            async with server.websocket("/socket/websocket?vsn=2.0.0") as ws:
                await ws.send_message(json.dumps(["1", "1", A, "phx_join", {}]))
                got.extend([json.loads(await ws.get_message()) for _ in range(3)])
                await done.wait()

        for _ in range(5):
            nursery.start_soon(client)
        await members(layer, 5)
        await broadcast(A, "first", layer=layer)  # this one ends the joining, and takes the longer way
        await members(layer, 5)
        made.clear()
        position = await broadcast(A, "news", {"n": 1}, layer=layer)
        with trio.fail_after(30):
            while len(got) < 15:
                await wait_all_tasks_blocked(0.01)
        done.set()
    assert [frame for frame in got if frame[3] == "news"] == [[None, None, A, "news", {"n": 1}, position]] * 5
    assert made == [f'[null,null,"room:a","news",{{"n":1}},"{position}"]']
