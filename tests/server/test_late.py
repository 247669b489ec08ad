"""Events that come after an end, or in the middle of one: of a response, a stream, or the connection."""

from __future__ import annotations

import logging
from typing import Any
from unittest.mock import AsyncMock, Mock

import h2.events
import pytest
import trio
import trio.testing
from hypercorn.protocol.events import Body, Request, Response, Trailers
from hypercorn.protocol.ws_stream import ASGIWebsocketState

from trio_channels.exceptions import ConnectionClosed
from trio_channels.server import statistics
from trio_channels.server.connection import ServerConnection
from trio_channels.server.http2 import Http2 as Http2Protocol
from trio_channels.server.streams import HttpStream, Streams
from trio_channels.server.transport import SocketTransport
from trio_channels.server.websocket import WebSocketStream

from .clients import (
    GET,
    HANDSHAKE,
    Application,
    Http2,
    close_code,
    frame,
    open_h1,
    open_h2,
    read_all,
    serving_ours,
)

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ROOT = (b":path", b"/")

BOTH_STREAMS = pytest.mark.parametrize("kind", [HttpStream, WebSocketStream])
BOTH_VERSIONS = pytest.mark.parametrize("connect", [open_h1, open_h2])


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def protocols(monkeypatch: pytest.MonkeyPatch) -> list[Http2Protocol]:
    """The server's HTTP/2 connections."""
    made: list[Http2Protocol] = []
    initiate = Http2Protocol.initiate

    async def noted(protocol: Http2Protocol, *arguments: Any) -> None:
        made.append(protocol)
        await initiate(protocol, *arguments)

    monkeypatch.setattr(Http2Protocol, "initiate", noted)
    return made


async def still_answers(client: Http2) -> None:
    """The connection is none the worse for it."""
    assert await client.status(await client.request(*GET, ROOT)) == 200


async def receive_body(client: Http2, number: int, size: int, *, acknowledge: bool = False) -> None:
    """Read so many bytes of a response's body, and no more of it."""
    received = 0
    while received < size:
        event = await client.until(h2.events.DataReceived, number)
        received += len(event.data)
        if acknowledge:
            client.h2.acknowledge_received_data(event.flow_controlled_length, number)
            await client.flush()
    assert received == size


# -- streams ----------------------------------------------------------------------------------------------------------


def make(kind: Any, wire: Mock, send: AsyncMock) -> Any:
    """A stream whose protocol is ``send``."""
    if kind is WebSocketStream:
        return kind(wire, send, 1, wire.write)
    return kind(wire, Mock(stream_send=send), 1)


@BOTH_STREAMS
async def test_request_after_the_end_starts_no_application(kind: Any) -> None:
    wire, send = Mock(streams=Streams(), limits=Mock(messages_per_second=0)), AsyncMock()
    await wire.streams.hang_up()
    stream = make(kind, wire, send)
    request = Request(stream_id=1, headers=[], http_version="1.1", method="GET", raw_path=b"/", state=Mock())
    for event in (request, Body(stream_id=1, data=b"x")):
        await stream.handle(event)
    wire.tasks.spawn_app.assert_not_called()
    send.assert_not_called()


async def test_frames_after_the_end_are_not_read() -> None:
    wire, send = Mock(streams=Streams(), limits=Mock(messages_per_second=0)), AsyncMock()
    stream = make(WebSocketStream, wire, send)
    stream._frames = Mock()
    assert stream.hang_up()
    await stream.receive_bytes(frame(1, b"late"))
    stream.connection.receive_data.assert_not_called()


async def test_goodbye_after_the_end_is_not_sent() -> None:
    wire, send = Mock(streams=Streams(), limits=Mock(messages_per_second=0)), AsyncMock()
    stream = make(WebSocketStream, wire, send)
    stream._frames = Mock()
    assert stream.hang_up()
    await stream.go_away()
    stream.connection.send.assert_not_called()
    send.assert_not_called()


async def test_pongs_without_end_let_other_tasks_run() -> None:
    wire = Mock(streams=Streams(), limits=Mock(messages_per_second=0))
    stream = make(WebSocketStream, wire, AsyncMock())
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_bytes, frame(10) * 1_000)
        while len(nursery.child_tasks):
            turns += 1
            await trio.lowlevel.checkpoint()
    assert turns > 10
    assert stream._frames is None


async def test_goodbye_amid_the_answer_to_a_close_is_not_sent() -> None:
    written: list[bytes] = []
    answered = trio.Event()

    async def write(data: bytes) -> None:
        written.append(data)
        await answered.wait()

    wire = Mock(streams=Streams(), limits=Mock(messages_per_second=0))
    stream = WebSocketStream(wire, AsyncMock(), 1, write)
    stream.state = ASGIWebsocketState.CONNECTED
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_bytes, frame(8, b"\x03\xe8"))
        await trio.testing.wait_all_tasks_blocked()
        await stream.go_away()
        answered.set()
    assert written == [b"\x88\x02\x03\xe8"]


@pytest.mark.parametrize("data", [REQUEST, HANDSHAKE % (b"/", b"")], ids=["request", "WebSocket"])
async def test_server_that_ends_amid_a_404(
    data: bytes, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 0.01}
    blocked = trio.Event()

    async def send_all(_transport: SocketTransport, _data: bytes) -> None:
        blocked.set()
        await trio.sleep_forever()

    monkeypatch.setattr(SocketTransport, "send_nowait", lambda _transport, _data: 0)
    monkeypatch.setattr(SocketTransport, "send_all", send_all)
    async with serving_ours(Application(), server_names=["other"]) as server, await server.connect() as stream:
        await stream.send_all(data)
        await blocked.wait()
        server.stop.set()
        await server.died.wait()
        assert await read_all(stream) == b""
    assert server.error is None
    assert warnings(caplog) == []


# -- WebSockets -------------------------------------------------------------------------------------------------------


class Closes(Application):
    """Closes after the first message."""

    async def talk(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4002})
        await super().talk(receive, send)


@BOTH_VERSIONS
async def test_reply_to_a_close_gets_no_reply(connect: Any) -> None:
    application = Closes()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frame(1, b"close"))
        assert close_code(await client.receive()) == 4002
        if connect is open_h2:  # the close has ended the server's half of the stream
            await client.rest()
        await client.send(frame(8, (4002).to_bytes(2, "big")))
        await application.over.wait()
        if connect is open_h1:
            assert await client.rest() == b""
        await client.aclose()
        assert statistics().ended == {}
    assert application.ended[0]["code"] == 4002


@BOTH_VERSIONS
async def test_bad_frame_after_a_close_keeps_its_code(connect: Any) -> None:
    application = Closes()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frame(1, b"close"))
        assert close_code(await client.receive()) == 4002
        await client.send(frame(1, b"x", reserved=0x40))
        await application.over.wait()
        await client.aclose()
        assert statistics().ended == {"closed 1002": 1}
    assert application.ended[0]["code"] == 4002


async def test_message_amid_the_goodbye_finds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = trio.Event()

    class Sends(Application):
        error: BaseException | None = None

        async def talk(self, receive: Any, send: Any) -> None:
            await go_on.wait()
            try:
                await send({"type": "websocket.send", "text": "late"})
            except OSError as error:
                self.error = error
            self.over.set()
            await receive()

    application = Sends()
    write = ServerConnection.write

    async def lets_it_send(connection: ServerConnection, data: bytes) -> None:
        if data[0] == 0x88:  # a close frame
            go_on.set()
            await application.over.wait()
        await write(connection, data)

    monkeypatch.setattr(ServerConnection, "write", lets_it_send)
    async with serving_ours(application) as server:
        client = await open_h1(server)
        server.stop.set()
        rest = await client.rest()
        await client.aclose()
    assert isinstance(application.error, ConnectionClosed)
    assert application.error.code == close_code(rest) == 1012
    assert b"late" not in rest


# -- HTTP/1.1 ---------------------------------------------------------------------------------------------------------


async def test_answer_amid_a_400_is_dropped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    go_on, answered = trio.Event(), trio.Event()

    class Answers(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            try:
                await super().http(scope, receive, send)
            finally:
                answered.set()

    write = ServerConnection.write

    async def lets_it_answer(connection: ServerConnection, data: bytes) -> None:
        await write(connection, data)
        if data.startswith(b"HTTP/1.1 400"):
            go_on.set()
            await answered.wait()

    monkeypatch.setattr(ServerConnection, "write", lets_it_answer)
    async with serving_ours(Answers()) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n")
        answer = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"hello" not in answer
    assert warnings(caplog) == []


async def test_hang_up_behind_a_second_request_is_seen(clock: trio.testing.MockClock) -> None:
    class Receives(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.request"
            self.ended.append(await receive())
            self.over.set()

    application = Receives()
    async with serving_ours(application) as server:
        async with await server.connect() as stream:
            await stream.send_all(REQUEST * 2)  # the second one is not read before the first is answered
        await application.over.wait()
    assert application.ended == [{"type": "http.disconnect"}]


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------


async def test_trailers_follow_the_body() -> None:
    class Ends(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            assert "http.response.trailers" in scope["extensions"]
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"hello"})
            await send({"type": "http.response.trailers", "headers": [(b"checksum", b"5")]})

    async with serving_ours(Ends()) as server, await Http2.open(server) as client:
        for _ in range(2):
            number = await client.request(*GET, ROOT, (b"te", b"trailers"))
            assert await client.status(number) == 200
            assert (await client.until(h2.events.DataReceived, number)).data == b"hello"
            assert (await client.until(h2.events.TrailersReceived, number)).headers == [(b"checksum", b"5")]
            assert await client.until(h2.events.StreamEnded, number)


async def test_answer_after_a_stream_has_gone_is_dropped(protocols: list[Http2Protocol]) -> None:
    async with serving_ours(Application()) as server, await Http2.open(server) as client:
        number = await client.request(*GET, ROOT)
        assert await client.until(h2.events.StreamEnded, number)
        (protocol,) = protocols
        assert number not in protocol.stream_buffers
        client.events.clear()
        await protocol.stream_send(Response(stream_id=number, headers=[], status_code=200))
        await protocol.send_body(number, b"late", end=False)
        await still_answers(client)
        assert [event for event in client.events if getattr(event, "stream_id", None) == number] == []


async def test_body_after_the_last_part_is_dropped() -> None:
    class Answers(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            async def end() -> None:
                await send({"type": "http.response.body", "body": bytes(100_000)})  # more than the window holds

            await send({"type": "http.response.start", "status": 200, "headers": []})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                await trio.testing.wait_all_tasks_blocked()
                await send({"type": "http.response.body", "body": b"late", "more_body": True})
                self.over.set()

    application = Answers()
    async with serving_ours(application) as server, await Http2.open(server) as client:
        number = await client.request(*GET, ROOT)
        await application.over.wait()
        await receive_body(client, number, 100_000, acknowledge=True)
        assert await client.until(h2.events.StreamEnded, number)


async def test_trailers_after_a_stream_has_gone_are_dropped(protocols: list[Http2Protocol]) -> None:
    async with serving_ours(Application()) as server, await Http2.open(server) as client:
        number = await client.request(*GET, ROOT)
        assert await client.until(h2.events.StreamEnded, number)
        client.h2.prioritize(number)  # puts it into the priority tree again
        await still_answers(client)
        await protocols[0].stream_send(Trailers(stream_id=number, headers=[]))
        await still_answers(client)


async def test_stream_cut_after_a_goaway_ends_its_application(
    protocols: list[Http2Protocol], clock: trio.testing.MockClock
) -> None:
    class Endless(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            try:
                while True:
                    await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            except OSError:
                self.over.set()

    application = Endless()
    async with serving_ours(application) as server, await Http2.open(server) as client:
        number = await client.request(*GET, ROOT)
        await receive_body(client, number, 65_535)  # the window, which the client leaves closed
        await trio.testing.wait_all_tasks_blocked()
        await protocols[0].farewell()
        await application.over.wait()
        assert statistics().ended == {"slow": 1}
        assert number not in protocols[0].streams
