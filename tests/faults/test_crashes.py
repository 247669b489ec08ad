"""A crash in every hook of every consumer class: that connection ends as it should, and nothing else is touched.

Each case runs a connection beside two neighbours in the same room, under a server that logs the exceptions of an
application, as servers do. A string names the place of the crash; every hook of every class compares its own place.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pytest
import trio

from trio_channels._asgi.protocol import ASGIApplication, Message
from trio_channels._limits import Limits
from trio_channels._threads.database import thread_pool
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.sync import async_to_sync
from trio_channels.websocket import WebSocket, websocket

pytestmark = pytest.mark.faults

server_log = logging.getLogger("server")

LIMITS = Limits(disconnect_timeout=20, close_timeout=20)


class Crash(Exception):
    """An exception that no application catches."""


class FaultyLayer(InMemoryChannelLayer):
    """A layer two of whose calls may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = ""

    async def group_add(self, group: str, channel: str) -> None:
        if self.broken == "group_add":
            self.broken = ""
            raise Crash("group_add")
        await super().group_add(group, channel)

    async def group_send(self, group: str, message: Message) -> None:
        if self.broken == "group_send" and message["type"] == "room.said":
            self.broken = ""
            raise Crash("group_send")
        await super().group_send(group, message)


class World:
    """The state that the hooks of one case share: the place of the crash, the disconnects."""

    def __init__(self, crash: str = "") -> None:
        self.crash = crash
        self.disconnected: list[str] = []
        self.left = 0

    def reach(self, place: str) -> None:
        """Crash here, if this is the place."""
        if place == self.crash:
            raise Crash(place)


def make_async(base: type, layer: InMemoryChannelLayer) -> ASGIApplication:
    json = issubclass(base, AsyncJsonWebsocketConsumer)

    class Async(base):  # type: ignore[misc]
        channel_layer = layer
        groups = ("room",)
        limits = LIMITS

        async def connect(self) -> None:
            self.world.reach("connect")
            self.start_soon(self.background)
            await self.accept()
            self.world.reach("connect, after accept")

        @property
        def world(self) -> World:
            return self.scope["world"]

        async def background(self) -> None:
            try:
                await self.scope["talked"].wait()
                self.world.reach("background")
                await trio.sleep_forever()
            finally:
                self.world.left += 1

        async def say(self, what: str) -> None:
            self.world.reach("receive")
            await layer.group_send("room", {"type": "room.said", "text": what})

        async def room_said(self, event: Message) -> None:
            self.world.reach("layer handler")
            if json:
                await self.send_json(event["text"])
            else:
                await self.send(event["text"])
            self.scope["talked"].set()

        async def disconnect(self, code: int) -> None:
            self.world.disconnected.append(str(code))
            self.world.reach("disconnect")

        if json:

            async def receive_json(self, content: Any) -> None:
                await self.say(content)

            @classmethod
            async def decode_json(cls, text_data: str) -> Any:
                if text_data == '"decode"':
                    raise Crash("decode_json")
                return await super().decode_json(text_data)

            @classmethod
            async def encode_json(cls, content: Any) -> str:
                if content == "encode":
                    raise Crash("encode_json")
                return await super().encode_json(content)

        else:

            async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                await self.say(text_data or "")

    return Async.as_asgi()


def make_sync(base: type, layer: InMemoryChannelLayer) -> ASGIApplication:
    json = issubclass(base, JsonWebsocketConsumer)

    class Sync(base):  # type: ignore[misc]
        channel_layer = layer
        groups = ("room",)
        limits = LIMITS

        def connect(self) -> None:
            self.world.reach("connect")
            self.accept()
            self.world.reach("connect, after accept")

        @property
        def world(self) -> World:
            return self.scope["world"]

        def background(self) -> None:
            try:
                async_to_sync(self.scope["talked"].wait)()
                self.world.reach("background")
            finally:
                self.world.left += 1

        def say(self, what: str) -> None:
            self.world.reach("receive")
            self.start_soon(self.background)
            async_to_sync(layer.group_send)("room", {"type": "room.said", "text": what})

        def room_said(self, event: Message) -> None:
            self.world.reach("layer handler")
            if json:
                self.send_json(event["text"])
            else:
                self.send(event["text"])
            call_set(self.scope["talked"])

        def disconnect(self, code: int) -> None:
            self.world.disconnected.append(str(code))
            self.world.reach("disconnect")

        if json:

            def receive_json(self, content: Any) -> None:
                self.say(content)

            @classmethod
            def decode_json(cls, text_data: str) -> Any:
                if text_data == '"decode"':
                    raise Crash("decode_json")
                return super().decode_json(text_data)

            @classmethod
            def encode_json(cls, content: Any) -> str:
                if content == "encode":
                    raise Crash("encode_json")
                return super().encode_json(content)

        else:

            def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
                self.say(text_data or "")

    return Sync.as_asgi()


def call_set(event: trio.Event) -> None:
    async def set_it() -> None:
        event.set()

    async_to_sync(set_it)()


def make_endpoint(layer: InMemoryChannelLayer) -> ASGIApplication:
    @websocket(limits=LIMITS)
    async def endpoint(ws: WebSocket) -> None:
        world: World = ws.scope["world"]
        try:
            world.reach("connect")
            async with layer.subscribe("room") as events:
                ws.start_soon(relay, ws, world, events)
                ws.start_soon(background, ws.scope["talked"], world)
                await ws.accept()
                world.reach("connect, after accept")
                async for text in ws:
                    world.reach("receive")
                    await layer.group_send("room", {"type": "room.said", "text": text})
        finally:
            # An endpoint has no disconnect hook: this block stands for it.
            world.disconnected.append("finally")
            world.reach("disconnect")

    async def relay(ws: WebSocket, world: World, events: Any) -> None:
        async for event in events:
            world.reach("layer handler")
            await ws.send(event["text"])
            ws.scope["talked"].set()

    async def background(talked: trio.Event, world: World) -> None:
        try:
            await talked.wait()
            world.reach("background")
            await trio.sleep_forever()
        finally:
            world.left += 1

    return endpoint


def make_http(layer: InMemoryChannelLayer) -> ASGIApplication:
    class Request(AsyncHttpConsumer):
        channel_layer = layer
        limits = LIMITS

        @property
        def world(self) -> World:
            return self.scope["world"]

        async def handle(self, body: bytes) -> None:
            self.world.reach("connect")
            await self.send_headers()
            await self.send_body(b"begun\n", more_body=True)
            self.world.reach("connect, after accept")
            self.start_soon(self.background)
            await layer.group_add("room", self.channel_name)
            self.world.reach("receive")
            await layer.group_send("room", {"type": "room.said", "text": "hello"})

        async def background(self) -> None:
            try:
                await self.scope["talked"].wait()
                self.world.reach("background")
                await trio.sleep_forever()
            finally:
                self.world.left += 1

        async def room_said(self, event: Message) -> None:
            self.world.reach("layer handler")
            await self.send_body(event["text"].encode(), more_body=True)
            self.scope["talked"].set()

        async def disconnect(self) -> None:
            self.world.disconnected.append("http")
            self.world.reach("disconnect")

    return Request.as_asgi()


FACTORIES = {
    "AsyncWebsocketConsumer": lambda layer: make_async(AsyncWebsocketConsumer, layer),
    "AsyncJsonWebsocketConsumer": lambda layer: make_async(AsyncJsonWebsocketConsumer, layer),
    "WebsocketConsumer": lambda layer: make_sync(WebsocketConsumer, layer),
    "JsonWebsocketConsumer": lambda layer: make_sync(JsonWebsocketConsumer, layer),
    "endpoint": make_endpoint,
    "AsyncHttpConsumer": make_http,
}


class Client:
    """The server's side of one connection; its failures are scripted as well."""

    def __init__(self, name: str, world: World, *, http: bool = False, json: bool = False) -> None:
        self.name = name
        self.world = world
        self.http = http
        self.json = json
        self.sent: list[Message] = []
        self.ended = trio.Event()
        self.accepted = trio.Event()
        self.error: Exception | None = None
        self.gone: Message = {"type": "http.disconnect"} if http else {"type": "websocket.disconnect", "code": 1006}
        self._to_application, self._events = trio.open_memory_channel[Message](10)
        self._to_application.send_nowait({"type": "http.request"} if http else {"type": "websocket.connect"})
        self.scope: dict[str, Any] = {"type": "http" if http else "websocket", "path": f"/{name}/", "headers": []}
        # From 2.4 on a server's send raises when the client has gone.
        self.scope |= {"world": world, "talked": trio.Event(), "asgi": {"version": "3.0", "spec_version": "2.4"}}

    def say(self, text: str) -> None:
        if not self.http:
            said = f'"{text}"' if self.json else text
            self._to_application.send_nowait({"type": "websocket.receive", "text": said})

    def leave(self) -> None:
        self._to_application.send_nowait(self.gone)

    async def receive(self) -> Message:
        event = await self._events.receive()
        if event["type"] not in ("websocket.connect", "http.request"):
            self.world.reach("server's receive")
        return event

    async def send(self, message: Message) -> None:
        talks = message["type"] == "websocket.send" or message.get("body") == b"hello"
        if talks and self.world.crash == "server's send":
            self.leave()
            raise OSError("connection reset by peer")
        self.sent.append(message)
        if message["type"] in ("websocket.accept", "http.response.start"):
            self.accepted.set()
        if message["type"] == "websocket.close":
            self.gone = {"type": "websocket.disconnect", "code": message.get("code", 1000)}
            self.leave()

    async def run(self, application: ASGIApplication) -> None:
        """Run an application as a server does: log its exception, and go on."""
        try:
            await application(self.scope, self.receive, self.send)
        except Exception as error:
            self.error = error
            server_log.exception("Error in ASGI Framework")
        self.ended.set()

    @property
    def texts(self) -> list[str]:
        return [message["text"].strip('"') for message in self.sent if message["type"] == "websocket.send"]

    async def has_got(self, *texts: str) -> None:
        while self.texts != list(texts):
            await trio.lowlevel.checkpoint()


class Case(NamedTuple):
    """A place, and the expected effects of a crash there."""

    place: str
    #: The last message to a WebSocket client, or None where the server answers the handshake.
    close: int | None
    #: The place that the notes of the exception name, for a consumer.
    note: str
    #: The victim's message.
    says: str = "hello"
    #: The victim's messages that the neighbours get.
    heard: tuple[str, ...] = ()


CASES = [
    Case("connect", None, "in the handler of 'websocket.connect'"),
    Case("connect, after accept", 1011, "in the handler of 'websocket.connect'"),
    Case("group_add", None, "in the handler of 'websocket.connect'"),
    Case("receive", 1011, "in the handler of 'websocket.receive'"),
    Case("group_send", 1011, "in the handler of 'websocket.receive'"),
    Case("layer handler", 1011, "in the handler of 'room.said'", heard=("hello",)),
    Case("background", 1011, "in the background task", heard=("hello",)),
    Case("disconnect", 1006, "", heard=("hello",)),
    Case("server's receive", 1011, ""),
]
JSON_CASES = [
    Case("decode_json", 1011, "in the handler of 'websocket.receive'", says="decode"),
    Case("encode_json", 1011, "in the handler of 'room.said'", says="encode", heard=("encode",)),
]
TABLE = [(kind, case) for kind in FACTORIES for case in CASES + (JSON_CASES if "Json" in kind else [])]


async def run_case(kind: str, place: str, says: str, heard: tuple[str, ...]) -> tuple[Client, FaultyLayer]:
    """Let one connection of a kind crash between two neighbours; check all but the connection itself."""
    layer = FaultyLayer()
    http, json = kind == "AsyncHttpConsumer", "Json" in kind
    calm = World()
    neighbours = [Client(f"neighbour {number}", calm) for number in (1, 2)]
    victim = Client("victim", World(place), http=http, json=json)
    async with trio.open_nursery() as nursery:
        for client in neighbours:
            nursery.start_soon(client.run, make_async(AsyncWebsocketConsumer, layer))
            await client.accepted.wait()

        layer.broken = place
        nursery.start_soon(victim.run, FACTORIES[kind](layer))
        while not (victim.accepted.is_set() or victim.ended.is_set()):
            await trio.lowlevel.checkpoint()
        victim.say(says)
        if place in ("disconnect", "nowhere") or (http and place == "server's receive"):
            await victim.scope["talked"].wait()
            victim.leave()  # for "server's receive" the server fails to deliver it
        await victim.ended.wait()

        neighbours[0].say("still here")
        for client in neighbours:
            await client.has_got(*heard, "still here")
        seen = layer.statistics()
        assert (seen.channels, seen.groups, seen.memberships) == (2, 1, 2)
        for client in neighbours:
            client.leave()
    assert [client.error for client in neighbours] == [None, None]
    assert calm.disconnected == ["1006", "1006"]
    seen = layer.statistics()
    assert (seen.channels, seen.groups, seen.memberships, seen.waiting) == (0, 0, 0, 0)
    pool = thread_pool().statistics()
    assert (pool.leased, pool.waiting) == (0, 0)
    return victim, layer


def errors_logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("kind", "case"), TABLE, ids=[f"{kind}-{case.place}" for kind, case in TABLE])
async def test_crash_ends_its_own_connection_only(kind: str, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    consumer = kind != "endpoint"
    http = kind == "AsyncHttpConsumer"
    # The event that the server fails to deliver is a WebSocket's message, or the end of an HTTP request.
    heard = ("hello",) if http and case.place == "server's receive" else case.heard
    victim, _ = await run_case(kind, case.place, case.says, heard)

    # one exception, bare, that says where it was
    assert type(victim.error) is Crash
    assert victim.error.args == (case.place,)
    notes = victim.error.__notes__
    assert notes[-1] == f"on {'http' if http else 'websocket'} /victim/"
    if consumer and not http:
        assert all(case.note in note for note in notes[:-1])
        assert len(notes) == 2 if case.note else 1
    # one record, the server's
    records = errors_logged(caplog)
    assert [record.name for record in records] == ["server"]
    # the client was told
    closes = [message for message in victim.sent if message["type"] == "websocket.close"]
    if http:
        assert not closes
    elif case.close == 1011:
        assert closes == [{"type": "websocket.close", "code": 1011}]
    else:
        assert closes == []
    # its hooks were run to their end, once
    assert len(victim.world.disconnected) == 1
    if consumer and not http:
        assert victim.world.disconnected == [str(case.close or 1011)]


@pytest.mark.parametrize("kind", FACTORIES)
async def test_server_that_cannot_write_ends_without_an_error(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    victim, _ = await run_case(kind, "server's send", "hello", ("hello",))
    assert victim.error is None
    assert errors_logged(caplog) == []
    assert len(victim.world.disconnected) == 1


@pytest.mark.parametrize("kind", FACTORIES)
async def test_without_a_crash_nothing_is_logged_and_everybody_leaves(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    victim, _ = await run_case(kind, "nowhere", "hello", ("hello",))
    assert victim.error is None
    assert errors_logged(caplog) == []
    assert victim.world.left == 1
