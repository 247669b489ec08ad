"""``group_broadcast`` over real sockets: written at once where it can be, in its turn everywhere else."""

from __future__ import annotations

import ssl
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import open_websocket_url
from wsproto.events import CloseConnection

from trio_channels.consumer.base import Consumer
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.hub import PART
from trio_channels.server.websocket import WebSocketStream
from trio_channels.sessions import CookieMiddleware, SessionMiddleware

from ..certificate import make_certificate
from .clients import frame, open_h1, open_h2, serving_bare, serving_ours
from .test_defects import OFFER
from .test_direct import through_asgi

ROOM = "room"
#: One for each message of a megabyte: more than a system holds for a client that does not read.
LETTERS = "abcdefghijklmnopqrstuvwx"


@pytest.fixture(autouse=True)
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a broadcast was written at once, built, and sent in its turn."""
    counts: Counter[str] = Counter()
    write_now, encode = WebSocketStream.write_now, WebSocketStream._encode

    def counting(self: Any, message: Any, frames: Any) -> bool:
        written = write_now(self, message, frames)
        counts["at once"] += written
        return written

    def encoding(self: Any, message: Any) -> bytes:
        counts["built"] += 1
        return encode(self, message)

    monkeypatch.setattr(WebSocketStream, "write_now", counting)
    monkeypatch.setattr(WebSocketStream, "_encode", encoding)
    for cls in {AsyncWebsocketConsumer, WebsocketConsumer}:
        in_turn: Any = cls._to_client

        def sending(self: Any, message: Any, in_turn: Any = in_turn) -> Any:
            counts["in turn"] += 1
            return in_turn(self, message)

        monkeypatch.setattr(cls, "_to_client", sending)
    return counts


def rooms(base: type[Consumer], **attributes: Any) -> tuple[type[Any], InMemoryChannelLayer]:
    """A consumer class whose connections join the room of a layer of its own."""
    layer = InMemoryChannelLayer()
    return type("Room", (base,), {"channel_layer": layer, "groups": [ROOM], **attributes}), layer


async def members(layer: InMemoryChannelLayer, count: int) -> None:
    """Wait until so many connections are members, and none of them has anything to do."""
    with trio.fail_after(30):
        while layer.statistics().memberships != count:  # noqa: ASYNC110 - a layer's tables raise no event
            await trio.sleep(0.001)
    await trio.testing.wait_all_tasks_blocked(0.01)


class Async(AsyncWebsocketConsumer):
    async def said(self, event: Any) -> None:
        await self.send(text_data=event["text"])


class Sync(WebsocketConsumer):
    def said(self, event: Any) -> None:
        self.send(text_data=event["text"])


def logging_sends(application: Any) -> Any:
    """Middleware that sees each message to the client."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def send_through(message: Any) -> None:
            await send(message)

        await application(scope, receive, send_through)

    return wrapped


def with_sessions(application: Any) -> Any:
    return CookieMiddleware(SessionMiddleware(application))


def as_it_is(application: Any) -> Any:
    return application


WAYS = {
    "async": (Async, {}, as_it_is, "at once"),
    "sync": (Sync, {}, as_it_is, "at once"),
    "several handlers at a time": (Async, {"handler_concurrency": 2}, as_it_is, "in turn"),
    "sessions": (Async, {}, with_sessions, "at once"),
    "middleware that reads": (Async, {}, through_asgi, "in turn"),
    "middleware that sees messages": (Async, {}, logging_sends, "in turn"),
}


@pytest.mark.parametrize("name", WAYS)
async def test_clients_get_it_without_a_handler(name: str, ways: Counter[str], settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    base, attributes, around, how = WAYS[name]
    consumer, layer = rooms(base, **attributes)
    async with (
        serving_ours(around(consumer.as_asgi())) as server,
        server.websocket("/") as first,
        server.websocket("/") as second,
    ):
        await members(layer, 2)
        await layer.group_broadcast(ROOM, text="é")
        assert [await first.get_message(), await second.get_message()] == ["é", "é"]
        await members(layer, 2)
        await layer.group_broadcast(ROOM, bytes=b"\xff")
        assert [await first.get_message(), await second.get_message()] == [b"\xff", b"\xff"]
    assert {key: count for key, count in ways.items() if key != "built" and count} == {how: 4}
    assert ways["built"] == (2 if how == "at once" else 0), "once per message, not per client"
    assert layer.statistics().delivered == 4


@pytest.mark.parametrize("name", [name for name in WAYS if name != "several handlers at a time"])
async def test_order_with_handled_messages_is_kept(name: str, ways: Counter[str], settings: Any) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    base, attributes, around, _ = WAYS[name]
    consumer, layer = rooms(base, **attributes)
    async with serving_ours(around(consumer.as_asgi())) as server, server.websocket("/") as client:
        await members(layer, 1)
        expected = []
        for number in range(90):
            expected.append(str(number))
            if number % 3:
                await layer.group_broadcast(ROOM, text=str(number))
            else:
                await layer.group_send(ROOM, {"type": "said", "text": str(number)})
            if number % 10 == 9:
                await members(layer, 1)
        assert [await client.get_message() for _ in expected] == expected
    assert ways["in turn"]


async def test_broadcast_waits_for_a_running_handler(ways: Counter[str]) -> None:
    class Slow(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await go_on.wait()
            await self.send("of the handler")

    go_on = trio.Event()
    consumer, layer = rooms(Slow)
    async with serving_ours(consumer.as_asgi()) as server, server.websocket("/") as client:
        await members(layer, 1)
        await client.send_message("wait")
        await members(layer, 1)
        await layer.group_broadcast(ROOM, text="first")
        await layer.group_broadcast(ROOM, text="second")
        assert layer.statistics().waiting == 2
        go_on.set()
        assert [await client.get_message() for _ in range(3)] == ["of the handler", "first", "second"]
    assert (ways["at once"], ways["in turn"]) == (0, 2)


async def test_websocket_that_is_not_accepted_gets_nothing(ways: Counter[str]) -> None:
    class Late(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.start_soon(self.accept_later)

        async def accept_later(self) -> None:
            await go_on.wait()
            await self.accept()
            await self.send("accepted")

    go_on = trio.Event()
    consumer, layer = rooms(Late)
    async with serving_ours(consumer.as_asgi()) as server, trio.open_nursery() as nursery:

        async def connect() -> None:
            async with server.websocket("/") as client:
                got.append(await client.get_message())

        got: list[Any] = []
        nursery.start_soon(connect)
        await members(layer, 1)
        await layer.group_broadcast(ROOM, text="too early")
        await members(layer, 1)
        go_on.set()
    assert (got, ways["at once"], ways["in turn"]) == (["accepted"], 0, 0)


async def test_nothing_is_written_before_the_handshake_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            self.start_soon(self.accept)

    monkeypatch.setattr("trio_channels.server.writer.YIELD_EVERY", 1)  # other tasks run before each write
    consumer, layer = rooms(Late)
    async with serving_ours(consumer.as_asgi()) as server, trio.open_nursery() as nursery:

        async def broadcast() -> None:
            while True:
                await layer.group_broadcast(ROOM, text="x")

        nursery.start_soon(broadcast)
        for _ in range(20):
            client = await open_h1(server)  # the answer must be the first that comes
            assert (await client.receive()).startswith(b"\x81\x01x")
            await client.aclose()
        nursery.cancel_scope.cancel()


async def test_consumer_with_a_handler_decides_itself(ways: Counter[str]) -> None:
    class Own(AsyncWebsocketConsumer):
        async def group_broadcast(self, event: dict[str, Any]) -> None:
            await self.send(f"handled: {event['text']}")

    consumer, layer = rooms(Own)
    async with serving_ours(consumer.as_asgi()) as server, server.websocket("/") as client:
        await members(layer, 1)
        await layer.group_broadcast(ROOM, text="hello")
        assert await client.get_message() == "handled: hello"
    assert not ways["at once"]
    assert not ways["in turn"]


async def test_sender_can_be_left_out() -> None:
    class Chat(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.channel_layer.group_broadcast(ROOM, text=text_data, exclude=self.channel_name)
            await self.send("sent")

    consumer, layer = rooms(Chat)
    async with (
        serving_ours(consumer.as_asgi()) as server,
        server.websocket("/") as first,
        server.websocket("/") as second,
    ):
        await members(layer, 2)
        await first.send_message("hello")
        assert await second.get_message() == "hello"
        assert await first.get_message() == "sent"


def inflated(data: bytes) -> bytes:
    assert data[0] == 0xC1, "compressed text"
    return zlib.decompressobj(wbits=-15).decompress(data[2:] + b"\x00\x00\xff\xff")


async def test_message_is_compressed_once(settings: Any, ways: Counter[str]) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    consumer, layer = rooms(Async)
    async with serving_ours(consumer.as_asgi()) as server:
        compressed = [await open_h1(server, headers=OFFER) for _ in range(3)]
        plain = await open_h1(server)
        for text in ("a" * 100, "b" * 90):
            await members(layer, 4)
            await layer.group_broadcast(ROOM, text=text)
            assert [inflated(await client.receive()) for client in compressed] == [text.encode()] * 3
            assert (await plain.receive())[2:] == text.encode()
        await members(layer, 4)
        await layer.group_send(ROOM, {"type": "said", "text": "c" * 80})
        assert inflated(await compressed[0].receive()) == b"c" * 80, "no window is kept"
        for client in [*compressed, plain]:
            await client.aclose()
    assert (ways["at once"], ways["built"], ways["in turn"]) == (8, 4, 0)


async def test_http2_and_tls_get_it_in_turn(tmp_path: Path, ways: Counter[str]) -> None:
    consumer, layer = rooms(Async)
    async with serving_ours(consumer.as_asgi()) as server:
        client = await open_h2(server)
        await members(layer, 1)
        await layer.group_broadcast(ROOM, text="hello")
        assert await client.receive() == b"\x81\x05hello"
        await client.aclose()
    certificate, key = make_certificate(tmp_path)
    async with serving_ours(consumer.as_asgi(), certfile=str(certificate), keyfile=str(key)) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        async with open_websocket_url(f"wss://127.0.0.1:{server.port}/", context) as encrypted:
            await members(layer, 1)
            await layer.group_broadcast(ROOM, text="secret")
            assert await encrypted.get_message() == "secret"
    assert (ways["at once"], ways["in turn"]) == (0, 2)


async def test_foreign_server_gets_a_plain_send(ways: Counter[str]) -> None:
    consumer, layer = rooms(Async)
    async with serving_bare(consumer.as_asgi()) as server, server.websocket("/") as client:
        await members(layer, 1)
        await layer.group_broadcast(ROOM, json={"n": 1})
        assert await client.get_message() == '{"n": 1}'
    assert (ways["at once"], ways["in turn"]) == (0, 1)


async def test_slow_reader_gets_all_in_order(ways: Counter[str]) -> None:
    consumer, layer = rooms(Async)
    async with serving_ours(consumer.as_asgi()) as server:
        slow = await open_h1(server)
        async with server.websocket("/") as healthy:
            await members(layer, 2)
            size = 2**20
            for letter in LETTERS:
                await layer.group_broadcast(ROOM, text=letter * size)
                assert await healthy.get_message() == letter * size
            assert layer.statistics().waiting, "the client is full"
            data = bytearray()
            while len(data) < len(LETTERS) * (size + 10):
                data += await slow.receive()
            for letter in LETTERS.encode():
                assert data[:2] == b"\x81\x7f"
                assert data[10 : 10 + size] == bytes((letter,)) * size
                del data[: 10 + size]
        await slow.aclose()
    assert ways["at once"] + ways["in turn"] == 2 * len(LETTERS)


async def test_client_that_is_too_slow_is_closed(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": 0.1, "DISCONNECT_TIMEOUT": 0.1}
    consumer, layer = rooms(Async)
    layer.capacity = 3
    async with serving_ours(consumer.as_asgi()) as server:
        slow = await open_h1(server)
        async with server.websocket("/") as healthy:
            await members(layer, 2)
            while layer.statistics().memberships == 2:
                await layer.group_broadcast(ROOM, text="x" * 2**15)
                assert len(await healthy.get_message()) == 2**15
            await layer.group_broadcast(ROOM, text="last")
            assert await healthy.get_message() == "last"
        await slow.aclose()


async def test_client_that_has_reset_harms_no_other() -> None:
    consumer, layer = rooms(Async)
    async with serving_ours(consumer.as_asgi()) as server, server.websocket("/") as healthy:
        leaving = [await open_h1(server) for _ in range(3)]
        await members(layer, 4)
        for number, client in enumerate(leaving):
            reset(client.stream)
            await layer.group_broadcast(ROOM, text=str(number))  # before the server has seen it
            assert await healthy.get_message() == str(number)
        await members(layer, 1)


async def test_client_that_resets_in_the_middle_of_a_message_has_gone() -> None:
    consumer, layer = rooms(Async)
    async with serving_ours(consumer.as_asgi()) as server:
        slow = await open_h1(server)
        await members(layer, 1)
        while not layer.statistics().waiting:
            await layer.group_broadcast(ROOM, text="x" * 2**20)
            await trio.testing.wait_all_tasks_blocked(0.01)
        reset(slow.stream)
        await members(layer, 0)


async def test_websocket_that_is_being_closed_gets_nothing_more(ways: Counter[str]) -> None:
    class Known(Async):
        async def connect(self) -> None:
            await self.accept()
            streams.append(self._connection._write_now.__self__)  # type: ignore[union-attr]

    streams: list[WebSocketStream] = []
    consumer, layer = rooms(Known)
    async with serving_ours(consumer.as_asgi()) as server:
        client = await open_h1(server)
        await members(layer, 1)
        close = streams[0].connection.send(CloseConnection(1000))  # it is not written yet
        assert not streams[0].write_now({"text": "between"}, {})
        await client.send(frame(8, close[2:]))
        assert await client.rest() == b""
        await client.aclose()
    assert not ways["at once"]


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_large_group_gets_it_in_parts(ways: Counter[str]) -> None:
    consumer, layer = rooms(Async)
    count = PART + 6
    async with serving_ours(consumer.as_asgi()) as server:
        clients = [await open_h1(server) for _ in range(count)]
        await members(layer, count)
        await layer.group_broadcast(ROOM, text="hello")
        for client in clients:
            assert await client.receive() == b"\x81\x05hello"
            await client.aclose()
    assert (ways["at once"], ways["built"]) == (count, 1)
