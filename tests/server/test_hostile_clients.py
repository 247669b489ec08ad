"""Clients that exploit the way the server is built. Each of these cases was a defect once."""

from __future__ import annotations

import zlib
from typing import Any

import h2.events
import pytest
import trio
import trio.testing

from trio_channels._concurrency.queues import Inbox
from trio_channels.server.run import _servers

from .clients import (
    GET,
    HANDSHAKE,
    Application,
    Http2,
    close_code,
    frame,
    open_h1,
    read_all,
    read_until,
    serving_ours,
)


class SendsOnly(Application):
    """Sends, and never receives. It ends when a send to a gone client fails."""

    def __init__(self) -> None:
        super().__init__()
        self.began = trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await self.forever(send, {"type": "http.response.body", "body": b"x", "more_body": True})

    async def talk(self, receive: Any, send: Any) -> None:
        await self.forever(send, {"type": "websocket.send", "text": "x"})

    async def forever(self, send: Any, message: dict[str, Any]) -> None:
        self.began.set()
        try:
            while True:
                await send(message)
                await trio.sleep(0.01)
        except OSError:
            self.over.set()


async def test_client_that_leaves_a_queued_request_is_noticed() -> None:
    application = SendsOnly()
    async with serving_ours(application) as server:
        async with await server.connect() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
            await read_until(stream, b"x")
        with trio.fail_after(30):
            await application.over.wait()


async def test_client_that_leaves_unread_messages_is_noticed() -> None:
    application = SendsOnly()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"unread") * 100)
        await application.began.wait()
        await client.aclose()
        with trio.fail_after(30):
            await application.over.wait()


async def test_upgrade_to_http2_is_not_taken() -> None:
    """HTTP/2 would evade the rules of a reverse proxy that passes ``Upgrade`` on for WebSockets."""
    async with serving_ours(Application()) as server, await server.connect() as stream:
        await stream.send_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        )
        assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200")


class Listens(Application):
    """Keeps the events that it receives, and answers nothing."""

    async def talk(self, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] != "websocket.disconnect":
            self.events.append(event)


@pytest.mark.parametrize("between", [frame(10), frame(9)], ids=["pong", "ping"])
async def test_control_frames_and_compressed_messages_do_not_meet(between: bytes, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    application = Listens()
    deflate = zlib.compressobj(wbits=-15)
    packed = (deflate.compress(b"compressed") + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with serving_ours(application) as server:
        client = await open_h1(server, headers=b"Sec-WebSocket-Extensions: permessage-deflate\r\n")
        await client.send(between + frame(1, packed, reserved=0x40))
        await client.send(frame(1, packed[:3], fin=False, reserved=0x40) + between + frame(0, packed[3:]))
        await client.send(frame(8, b"\x03\xe8"))
        await client.rest()
        await client.aclose()
    assert [event["text"] for event in application.events] == ["compressed", "compressed"]


async def test_illegal_accept_header_is_500_and_no_websocket() -> None:
    class Splits(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.accept", "headers": [(b"x-name", b"a\r\nset-cookie: b")]})

    async with serving_ours(Splits()) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        answer = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 500")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("seconds", [float("inf"), 1e9, 1e-6])
async def test_write_may_have_as_long_as_the_settings_say(seconds: float, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": seconds}
    async with serving_ours(Application()) as server:
        assert (await server.request("GET", "/")).body == b"hello"


async def test_client_that_leaves_a_nursery_of_senders_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Nursery(SendsOnly):
        async def talk(self, receive: Any, send: Any) -> None:
            self.began.set()

            async def sender() -> None:
                while True:
                    await send({"type": "websocket.send", "text": "x"})
                    await trio.sleep(0.01)

            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sender)
                    nursery.start_soon(sender)
            finally:
                self.over.set()

    application = Nursery()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await application.began.wait()
        await client.aclose()
        await application.over.wait()
    assert not [record for record in caplog.records if record.exc_info]


async def test_ambiguous_request_is_refused_and_nothing_after_heard() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving_ours(Application()) as server, await server.connect() as stream:
        await stream.send_all(head + b"0\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


async def test_whoever_waits_for_an_event_hears_of_the_end() -> None:
    inbox = Inbox(1)
    heard: list[Any] = []

    async def listen() -> None:
        heard.append(await inbox.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        inbox.end({"type": "http.disconnect"})
    assert heard == [{"type": "http.disconnect"}] * 2


async def test_first_disconnect_ends_an_inbox() -> None:
    inbox = Inbox(1)
    await inbox({"type": "http.request"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox, {"type": "http.request", "late": True})  # no room: it waits
        await trio.testing.wait_all_tasks_blocked()
        inbox.end({"type": "websocket.disconnect", "code": 1001})
        inbox.end({"type": "websocket.disconnect", "code": 1006})
    heard = [await inbox.receive() for _ in range(3)]
    assert heard == [{"type": "http.request"}, *[{"type": "websocket.disconnect", "code": 1001}] * 2]


async def test_late_answer_to_a_refused_handshake_finds_no_client(
    caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.TRIO_CHANNELS = {"BODY_TIMEOUT": 0.1}

    class Answers(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            await super().http(scope, receive, send)

    async with serving_ours(Answers()) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408")
    assert not [record for record in caplog.records if record.exc_info]


async def test_websocket_that_comes_while_the_server_ends_is_told_so() -> None:
    application = Application()
    async with serving_ours(application) as server:
        kept = await open_h1(server)
        async with await server.connect() as stream:
            await stream.send_all((HANDSHAKE % (b"/", b""))[:-2])
            await trio.testing.wait_all_tasks_blocked(0.05)
            server.stop.set()
            assert close_code(await kept.rest()) == 1012
            await stream.send_all(b"\r\n")
            assert (await read_all(stream)).startswith(b"HTTP/1.1 503")
        await kept.aclose()


async def test_flood_of_frames_lets_others_run() -> None:
    """Pongs make no task wait, and one read holds a thousand: the server yields between them."""
    async with serving_ours(Application()) as server:
        client = await open_h1(server)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        (websocket,) = _server().websockets
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.lowlevel.checkpoint()
            before = turns
            await websocket.receive_bytes(frame(10) * 1_000)
            assert turns - before >= 10
            nursery.cancel_scope.cancel()
        await client.aclose()


async def test_flood_of_http2_frames_lets_others_run() -> None:
    async with serving_ours(Application()) as server, await Http2.open(server) as client:
        await client.until(h2.events.RemoteSettingsChanged)
        (connection,) = _server().connections
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await trio.lowlevel.checkpoint()
            before = turns
            await connection.protocol.receive_bytes(PRIORITY * 1_000)
            assert turns - before >= 5
            nursery.cancel_scope.cancel()


#: A frame of stream 1, which depends on no other stream.
PRIORITY = b"\x00\x00\x05\x02\x00\x00\x00\x00\x01" + bytes(4) + b"\x01"


def _server() -> Any:
    (server,) = _servers.get()
    return server


async def test_made_you_reset_ends_the_connection() -> None:
    """CVE-2025-8671: an illegal frame ends its stream after the application instance has started."""

    class Counts(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.append(scope)
            while (await receive())["type"] != "http.disconnect":
                pass

    application = Counts()
    async with serving_ours(application) as server, await Http2.open(server) as client:
        with pytest.raises(trio.BrokenResourceError):
            await _overflow_for_ever(client)
    assert len(application.events) < 300


async def _overflow_for_ever(client: Http2) -> None:
    while True:
        number = await client.request(*GET, (b":path", b"/"))
        await client.stream.send_all(b"\x00\x00\x04\x08\x00" + number.to_bytes(4, "big") + OVERFLOW)
        with trio.move_on_after(0):
            await client.stream.receive_some()


#: An increment that overflows any window.
OVERFLOW = b"\x7f\xff\xff\xff"
