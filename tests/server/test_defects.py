"""The defects of bare hypercorn one by one, and their absence here. The documentation has the same numbers.

If a test of bare hypercorn fails, hypercorn has mended the defect, and our code for it can go.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypercorn.config import Config

from trio_channels.exceptions import ConnectionClosed
from trio_channels.server import statistics

from .clients import (
    HANDSHAKE,
    Application,
    Http1WebSocket,
    Server,
    close_code,
    frame,
    open_h1,
    open_h2,
    read_all,
    read_until,
    serving_bare,
    serving_ours,
)

Open = Callable[[Server], Awaitable[Any]]
BOTH_VERSIONS = pytest.mark.parametrize("connect", [open_h1, open_h2])

GOODBYE = frame(8, (4001).to_bytes(2, "big") + b"bye")


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


class Floods(Application):
    """Sends more than any buffer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.stopped: BaseException | None = None

    async def talk(self, receive: Any, send: Any) -> None:
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(2**16)})
                self.sent += 1
        except BaseException as error:
            self.stopped = error
            self.over.set()
            raise

    async def until_it_waits(self) -> None:
        """Wait until all buffers are full: a busy kernel goes on moving bytes from one to the next for a while."""
        quiet = 0
        while quiet < 20:
            before = self.sent
            await trio.sleep(3)
            quiet = quiet + 1 if self.sent == before > 0 else 0


# -- D3: a client that does not read ---------------------------------------------------------------------------------


async def test_bare_hypercorn_cannot_end_while_a_client_does_not_read(clock: trio.testing.MockClock) -> None:
    """D3."""
    application = Floods()
    async with serving_bare(application, graceful_timeout=3) as server:
        client = await open_h1(server)
        await application.until_it_waits()
        assert application.stopped is None
        server.stop.set()
        await trio.sleep(600)
        assert not server.died.is_set()
        await client.aclose()


@BOTH_VERSIONS
async def test_client_that_does_not_read_is_cut(connect: Open, clock: trio.testing.MockClock) -> None:
    application = Floods()
    async with serving_ours(application) as server:
        client = await connect(server)
        begun = trio.current_time()
        await application.over.wait()
        assert 15 < trio.current_time() - begun < 40
        assert isinstance(application.stopped, ConnectionClosed)
        assert isinstance(application.stopped, OSError), "for applications that know no trio-channels"
        assert statistics().ended == {"slow": 1}
        await client.aclose()


async def test_client_that_does_not_read_delays_no_shutdown(settings: Any, clock: trio.testing.MockClock) -> None:
    # No pings: where a busy kernel lets one through, the client is cut for its silence.
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": 10_000, "PING_INTERVAL": 10_000, "SHUTDOWN_GRACE": 7}
    application = Floods()
    async with serving_ours(application, graceful_timeout=Config.graceful_timeout) as server:
        client = await open_h1(server)
        await application.until_it_waits()
        assert application.stopped is None
        begun = trio.current_time()
        server.stop.set()
        await server.died.wait()
        assert trio.current_time() - begun < 7 + 1
        await client.aclose()


# -- D4: sending to a client that has gone ---------------------------------------------------------------------------


class SendsTooLate(Application):
    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.without_checkpoint = False

    async def talk(self, receive: Any, send: Any) -> None:
        await super().talk(receive, send)
        try:
            with trio.testing.assert_no_checkpoints():
                await send({"type": "websocket.send", "text": "too late"})
            self.without_checkpoint = True
        except BaseException as error:
            self.error = error


async def test_bare_hypercorn_sends_to_the_dead_at_once() -> None:
    """D4: without a checkpoint, so that a loop around it stops every other task."""
    application = SendsTooLate()
    async with serving_bare(application) as server:
        client = await open_h1(server)
        await client.aclose()
        await until(lambda: application.without_checkpoint)


@BOTH_VERSIONS
async def test_send_to_a_gone_client_raises_and_yields(connect: Open) -> None:
    class Sends(Application):
        error: BaseException | None = None

        async def talk(self, receive: Any, send: Any) -> None:
            await super().talk(receive, send)
            try:
                with trio.testing.assert_checkpoints():
                    await send({"type": "websocket.send", "text": "too late"})
            except OSError as error:
                self.error = error

    application = Sends()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(GOODBYE)
        await until(lambda: application.error)
        assert isinstance(application.error, ConnectionClosed)
        assert (application.error.code, application.error.reason) == (4001, "bye")
        await client.aclose()


# -- D5: the client's close code and reason --------------------------------------------------------------------------


async def test_bare_hypercorn_loses_the_clients_close_code() -> None:
    """D5, hypercorn issue 127."""
    application = Application()
    async with serving_bare(application) as server:
        client = await open_h1(server)
        await client.send(GOODBYE)
        await application.over.wait()
        await client.aclose()
    assert application.ended == [{"type": "websocket.disconnect", "code": 1006}]


@BOTH_VERSIONS
async def test_clients_close_code_and_reason_reach_the_application(connect: Open) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(GOODBYE)
        assert close_code(await client.rest()) == 4001
        await client.aclose()
    assert application.ended == [{"type": "websocket.disconnect", "code": 4001, "reason": "bye"}]


@BOTH_VERSIONS
async def test_close_without_code_is_1005_and_no_close_is_1006(connect: Open) -> None:
    application = Application()
    async with serving_ours(application) as server:
        for last in (frame(8), b""):
            client = await connect(server)
            await client.send(last)
            await client.aclose()
            await until(lambda: application.ended)
            assert application.ended.pop()["code"] == (1005 if last else 1006)


# -- D7: a frame before the handshake is answered --------------------------------------------------------------------


class Hesitates(Application):
    """Never accepts: it waits for another event first."""

    def __init__(self) -> None:
        super().__init__()
        self.connects = 0

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.connects += 1
        self.ended.append(await receive())


async def early_frame(server: Server, application: Hesitates) -> trio.SocketStream:
    stream = await server.connect()
    await stream.send_all(HANDSHAKE % (b"/", b""))
    await until(lambda: application.connects)
    await stream.send_all(frame(1, b"x"))
    return stream


async def test_bare_hypercorn_tells_nobody_of_a_frame_before_accept(clock: trio.testing.MockClock) -> None:
    """D7: the application waits for ever, and the socket stays open."""
    application = Hesitates()
    async with serving_bare(application) as server:
        async with await early_frame(server, application) as stream:
            await read_until(stream, b"HTTP/1.1 400")
        await trio.sleep(600)
        assert application.ended == []


async def test_frame_before_accept_is_a_400_and_a_disconnect() -> None:
    application = Hesitates()
    async with serving_ours(application) as server:
        async with await early_frame(server, application) as stream:
            assert (await read_all(stream)).startswith(b"HTTP/1.1 400")
        await until(lambda: application.ended and not statistics().connections)
    assert application.ended == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


# -- D10: a message that is too long ---------------------------------------------------------------------------------

MEGABYTE = bytes(2**20)


async def test_bare_hypercorn_goes_on_reading_what_is_too_long() -> None:
    """D10: the end of the message never comes, and all of it is kept."""
    async with serving_bare(Application(), websocket_max_message_size=2**20) as server:
        client = await open_h1(server)
        await client.send(frame(2, MEGABYTE, fin=False) + frame(0, MEGABYTE, fin=False))
        assert close_code(await client.receive()) == 1009
        for _ in range(50):
            await client.send(frame(0, MEGABYTE, fin=False))
        await client.aclose()


@BOTH_VERSIONS
@pytest.mark.parametrize("frames", [frame(2, b"", size=b"\xff" + bytes(3) + b"\xff" * 5), frame(2, b"x", fin=False)])
async def test_what_is_too_long_is_refused_when_it_is_announced(connect: Open, frames: bytes) -> None:
    application = Application()
    too_much = b"" if frames[0] & 0x80 else frame(0, b"", size=b"\xff" + (2**20).to_bytes(8, "big"))
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frames + too_much)
        assert close_code(await client.rest()) == 1009
        await client.aclose()
    assert application.ended[0]["code"] == 1009
    assert application.events == []


async def test_message_at_the_limit_is_taken_and_so_is_the_next() -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, frame(2, MEGABYTE[:10], fin=False) + frame(0, MEGABYTE[10:]))
                size = 10
                while size:
                    size = 0 if (await client.receive())[-1:] == b"" else len(application.events) == 0
        await client.aclose()
    assert [len(event["bytes"]) for event in application.events] == [2**20] * 2


# -- D11: compression ------------------------------------------------------------------------------------------------

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


async def head_of(server: Server, offer: bytes = OFFER) -> bytes:
    async with await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", offer))
        return (await read_until(stream, b"\r\n\r\n")).lower()


async def test_bare_hypercorn_compresses_whenever_it_is_asked_to() -> None:
    """Defect D11 of hypercorn."""
    async with serving_bare(Application()) as server:
        assert b"permessage-deflate" in await head_of(server)


async def test_compression_is_off_unless_a_setting_turns_it_on(settings: Any) -> None:
    async with serving_ours(Application()) as server:
        assert b"permessage-deflate" not in await head_of(server)
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    async with serving_ours(Application()) as server:
        assert b"permessage-deflate" in await head_of(server)
        nonsense = OFFER.replace(b"deflate", b"deflate; client_max_window_bits=x")
        assert b"permessage-deflate" not in await head_of(server, nonsense)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("size", [0, 5, 2**20])
async def test_compressed_message_comes_back_compressed(size: int, settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server, headers=OFFER)
        for _ in range(2):
            await client.send(frame(2, deflated(bytes(size)), reserved=0x40))
            answer = await client.receive()
            assert answer[0] == 0xC2
        await client.send(frame(1, b"plain"))
        assert (await client.receive())[0] == 0xC1
        await client.aclose()
    assert [len(event["bytes"] or b"") for event in application.events] == [size, size, 0]
    assert application.events[-1]["text"] == "plain"


async def test_message_that_inflates_beyond_the_limit_is_refused(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server, headers=OFFER)
        await client.send(frame(2, deflated(bytes(2**20 + 1)), reserved=0x40))
        assert close_code(await client.rest()) == 1009
        await client.aclose()
    assert application.events == []


async def test_what_is_no_compressed_data_is_1007(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"WEBSOCKET_COMPRESSION": True}
    async with serving_ours(Application()) as server:
        client = await open_h1(server, headers=OFFER)
        await client.send(frame(2, b"\xff\xff\xff", reserved=0x40))
        assert close_code(await client.rest()) == 1007
        await client.aclose()


# -- D15 and the pong ------------------------------------------------------------------------------------------------


def living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_bare_hypercorns_pings_outlive_their_connection(clock: trio.testing.MockClock) -> None:
    """Defect D15 of hypercorn."""
    application = Application()
    async with serving_bare(application, websocket_ping_interval=500) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = living()
        client = await open_h1(server)
        assert (await client.receive()).startswith(b"\x89")
        await client.aclose()
        await application.over.wait()
        await trio.sleep(400)
        assert living() > before
        await trio.sleep(400)
        assert living() == before


@BOTH_VERSIONS
async def test_pings_end_with_the_connection(connect: Open, clock: trio.testing.MockClock) -> None:
    application = Application()
    async with serving_ours(application, websocket_ping_interval=500) as server:
        await trio.testing.wait_all_tasks_blocked()
        before = living()
        client = await connect(server)
        await client.send(GOODBYE)
        await client.aclose()
        await application.over.wait()
        await trio.sleep(10)
        assert living() == before


async def test_bare_hypercorn_keeps_a_peer_that_has_vanished(clock: trio.testing.MockClock) -> None:
    application = Application()
    async with serving_bare(application, websocket_ping_interval=20) as server:
        client = await open_h1(server)
        await trio.sleep(200)
        assert application.ended == []
        await client.aclose()


@BOTH_VERSIONS
async def test_peer_that_answers_no_ping_is_cut_in_45_seconds(connect: Open, clock: trio.testing.MockClock) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frame(1, b"last sign of life"))
        heard = b""
        while b"last sign of life" not in heard:  # the clock may go on before a busy kernel delivers it
            heard += await client.receive()
        begun = trio.current_time()
        await application.over.wait()
        assert trio.current_time() - begun < 45
        assert application.ended[0]["code"] == 1006
        assert statistics().ended == {"silent": 1}
        await client.aclose()


async def test_peer_that_answers_stays(clock: trio.testing.MockClock) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        for _ in range(10):
            assert await client.receive() == b"\x89\x00"
            await client.send(frame(10))
        assert application.ended == []
        await client.aclose()


async def test_slow_application_is_not_its_clients_fault(clock: trio.testing.MockClock) -> None:
    class Sleeps(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await trio.sleep(200)
            await super().talk(receive, send)

    application = Sleeps()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"x") * 100)  # more than the queue to the application holds
        await client.send(frame(10))
        await trio.sleep(190)
        assert statistics().ended == {}
        await client.aclose()


# -- unforeseen errors in the protocol's code ------------------------------------------------------------------------


async def test_protocol_error_is_one_record_and_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application()
    async with serving_ours(application) as server:
        with monkeypatch.context() as patch:
            patch.setattr("trio_channels.server.http1.Http1._stream_for", lambda *_: {}["a bug"])
            async with await server.connect() as stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await read_all(stream)).startswith(b"HTTP/1.1 400")
        await server.still_serves()
        assert statistics().ended == {"errors": 1}
    (record,) = caplog.records
    assert record.name == "trio_channels.server"
    assert record.exc_info is not None


async def test_protocol_error_tells_a_talking_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await Http1WebSocket.open(server)
        with monkeypatch.context() as patch:
            patch.setattr("trio_channels.server.websocket.WebSocketStream.receive_bytes", lambda *_: {}["a bug"])
            await client.send(frame(1, b"x"))
            assert await client.rest() == b""
        await application.over.wait()
        await client.aclose()
    assert application.ended[0]["code"] == 1006
