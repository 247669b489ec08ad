"""WebSockets over HTTP/2: one whose application does not receive holds up no other stream."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.server.clients import Application, close_code
from tests.server.clients import frame as websocket_frame
from tests.server.test_defects import until
from trio_channels.server import statistics

from .raw import DATA, RST_STREAM, Raw, frame, headers, raw, request, websocket

MESSAGE = websocket_frame(2, bytes(1_000))


class Listens(Application):
    """Sends nothing: to send to a client that has gone is an error."""

    async def talk(self, receive: Any, send: Any) -> None:
        await super().talk(receive, self._drop)

    async def _drop(self, message: Any) -> None:
        pass


class Deaf(Listens):
    """Accepts, and receives when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()

    async def talk(self, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await super().talk(receive, send)


async def accepted(client: Raw, stream: int = 1) -> None:
    await client.send(websocket(stream))
    assert await client.until(lambda: stream in client.statuses)
    assert client.statuses[stream] == [200]


async def fill(client: Raw, stream: int) -> int:
    """Send messages until the window is closed; returns the number of whole ones."""
    sent = b""
    while room := client.window(stream):
        part = (MESSAGE * 20)[len(sent) % len(MESSAGE) :][: min(room, 16_384)]
        await client.data(stream, part)
        sent += part
        await client.lives()
    return len(sent) // len(MESSAGE)


async def test_deaf_application_holds_up_no_other_stream() -> None:
    application = Deaf()
    async with raw(application) as client:
        for stream in range(1, 21, 2):
            await accepted(client, stream)
            await fill(client, stream)
        for stream in range(101, 121, 2):
            assert await client.get(stream) == 200
        application.go_on.set()


async def test_messages_that_had_to_wait_are_delivered() -> None:
    application = Deaf()
    async with raw(application) as client:
        await accepted(client)
        whole = await fill(client, 1)
        application.go_on.set()
        while len(application.events) < whole:
            assert await client.lives()
        assert len(application.events) == whole
        await client.until(lambda: client.window(1))


async def test_client_of_a_deaf_application_need_not_pong(settings: Any, clock: trio.testing.MockClock) -> None:
    settings.TRIO_CHANNELS = {"PING_INTERVAL": 20, "PONG_TIMEOUT": 20, "WRITE_TIMEOUT": 10_000}
    application = Deaf()
    async with raw(application) as client:
        await accepted(client)
        await fill(client, 1)
        await trio.sleep(200)
        application.go_on.set()
        assert await client.lives()
    assert statistics().ended == {}


async def test_frame_that_drips_is_cut_and_no_other_stream(clock: trio.testing.MockClock) -> None:
    application = Application()
    async with raw(application) as client:
        await accepted(client)
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in websocket_frame(1, b"x" * 100):
                    await client.data(1, bytes([byte]))
                    await trio.sleep(15)

            nursery.start_soon(drip)
            assert await client.until(lambda: 1 in client.ended)
            nursery.cancel_scope.cancel()
        assert 60 <= trio.current_time() < 90
        assert client.bodies[1].endswith(b"\x03\xf0expected a frame in 60 seconds and one for 500 bytes")
        assert statistics().ended == {"closed 1008": 1}
        assert await client.get(3) == 200
    assert application.ended[0]["code"] == 1008
    assert application.events == []


@pytest.mark.parametrize("last", [b"", frame(RST_STREAM, 0, 1, bytes(4))], ids=["end of the connection", "RST_STREAM"])
async def test_close_frame_before_the_end_is_handled(last: bytes) -> None:
    application = Listens()
    async with raw(application) as client:
        await accepted(client)
        close = websocket_frame(1, b"bye") + websocket_frame(8, b"\x0f\xa1")  # 4001
        await client.send(frame(DATA, 0, 1, close) + last)
        if not last:
            await client.stream.aclose()
        await application.over.wait()
    assert [event["text"] for event in application.events] == ["bye"]
    assert [event["code"] for event in application.ended] == [4001]


@pytest.mark.parametrize("last", [b"", frame(RST_STREAM, 0, 1, bytes(4))], ids=["end of the connection", "RST_STREAM"])
async def test_deaf_application_hears_of_the_end(last: bytes) -> None:
    application = Deaf()
    async with raw(application) as client:
        await accepted(client)
        await fill(client, 1)
        if last:
            await client.send(last)
        else:
            await client.stream.aclose()
        await until(lambda: not statistics().websockets)
        application.go_on.set()
        await application.over.wait()
    assert [event["code"] for event in application.ended] == [1006]


async def test_pongs_behind_a_closed_window_hold_up_no_stream() -> None:
    async with raw(begins=[(4, 0)]) as client:  # no window for the server
        await accepted(client)
        for _ in range(20):
            await client.data(1, websocket_frame(9, bytes(100)) * 20)
        await client.send(headers(3, request(method="HEAD")))
        assert await client.answer(3) == 200


async def test_end_of_the_stream_ends_the_websocket() -> None:
    application = Application()
    async with raw(application) as client:
        await accepted(client)
        await client.data(1, websocket_frame(8, b"\x03\xe8"), 1)
        await client.until(lambda: 1 in client.ended)
        assert close_code(client.bodies[1]) == 1000
    assert application.ended[0]["code"] == 1000
