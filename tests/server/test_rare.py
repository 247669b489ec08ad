"""Rare events: clients that leave between two lines of code, ends without a trigger, odd turns of a WebSocket."""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h2.events
import h11
import pytest
import trio
import trio.testing
from hypercorn.events import RawData

from trio_channels.server import connections, serve, statistics
from trio_channels.server.transport import SocketTransport

from ..certificate import make_certificate
from .clients import (
    HANDSHAKE,
    Application,
    Http2,
    Server,
    close_code,
    config_for_tests,
    frame,
    open_h1,
    open_h2,
    read_all,
    read_until,
    serving_ours,
)
from .test_defects import Floods

PING_ACK = b"\0\0\x08\x06\x01"
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


def reset(stream: trio.SocketStream) -> None:
    """End a connection as a crashed client's system does."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


# -- connections ------------------------------------------------------------------------------------------------------


async def test_client_that_leaves_at_once_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = connections._address
    async with serving_ours(Application()) as server:
        # Connected without a chance for the server to run.
        client = socket.create_connection(("127.0.0.1", server.port))

        def leave(stream: trio.SocketStream) -> str:
            found = address(stream)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return found

        with monkeypatch.context() as patch:
            patch.setattr(connections, "_address", leave)
            await trio.testing.wait_all_tasks_blocked()
        assert client.fileno() == -1
        await server.still_serves()
        assert statistics().ended == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_option_that_an_ended_connection_refuses_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some systems refuse every option of a socket that the client has reset, as macOS does."""

    def refuse(_transport: SocketTransport, _seconds: float) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    async with serving_ours(Application()) as server:
        with monkeypatch.context() as patch:
            patch.setattr(SocketTransport, "unacknowledged_for_at_most", refuse)
            async with await server.connect() as stream:
                assert await read_all(stream) == b""
        await server.still_serves()
        assert statistics().ended == {}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_error_in_a_protocol_task_ends_one_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_protocol: Any) -> None:
        raise KeyError("a bug")

    async with serving_ours(Application()) as server:
        with monkeypatch.context() as patch:
            patch.setattr("trio_channels.server.http2.Http2.send_task", fail)
            async with await Http2.open(server) as client:
                assert await client.until(h2.events.StreamEnded) is None
        await server.still_serves()
        assert statistics().ended == {"errors": 1}
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_bytes_after_a_408_are_no_request(clock: trio.testing.MockClock) -> None:
    async with serving_ours(Application()) as server, await server.connect() as stream:
        await stream.send_all(HALF_A_HEAD)
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 408")
        await stream.send_all(b"\r\n" + HALF_A_HEAD)
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_eof()
        assert await read_all(stream) == b""


async def test_refused_client_that_goes_on_is_let_go(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.TRIO_CHANNELS = {"MAX_CONNECTIONS": 1}
    async with serving_ours(Application()) as server:
        async with await server.connect():
            await trio.testing.wait_all_tasks_blocked()
            second = await server.connect()
            assert (await read_until(second, b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
            await second.send_all(HALF_A_HEAD)
            await trio.testing.wait_all_tasks_blocked()
            reset(second)
            await trio.testing.wait_all_tasks_blocked()
        while statistics().connections:
            await trio.lowlevel.checkpoint()
        assert (await server.request("GET", "/")).status == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- the end of a server ----------------------------------------------------------------------------------------------


async def test_without_a_trigger_it_ends_after_its_requests() -> None:
    async with trio.open_nursery() as nursery:
        config = config_for_tests(max_requests=1)
        (bind,) = await nursery.start(serve, Application(), config)
        server = Server()
        server.port = int(bind.rsplit(":", 1)[1])
        for _ in range(2):
            assert (await server.request("GET", "/")).body == b"hello"


async def test_interrupt_ends_it_in_order() -> None:
    class Notes(Application):
        async def lifespan(self, scope: Any, receive: Any, send: Any) -> None:
            await super().lifespan(scope, receive, send)
            self.over.set()

    async def interrupt() -> None:
        raise KeyboardInterrupt

    application = Notes()
    await serve(application, config_for_tests(), shutdown_trigger=interrupt)
    assert application.over.is_set()


async def test_datagrams_go_to_hypercorns_quic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 0.01}  # hypercorn's waits for one more datagram

    class Quic:
        """A stand-in for hypercorn's class, whose library is not installed for tests."""

        idle = True

        def __init__(self, *arguments: Any) -> None:
            self.send = arguments[-1]

        async def handle(self, event: RawData) -> None:
            await self.send(RawData(event.data.upper(), event.address))

    monkeypatch.setitem(sys.modules, "hypercorn.protocol.quic", SimpleNamespace(QuicProtocol=Quic))
    caplog.set_level(logging.INFO)
    certificate, key = make_certificate(tmp_path)
    files = {"certfile": str(certificate), "keyfile": str(key)}
    async with serving_ours(Application(), quic_bind=["127.0.0.1:0"], **files):
        (line,) = [record.getMessage() for record in caplog.records if "QUIC" in record.getMessage()]
        port = int(line.partition("https://127.0.0.1:")[2].split()[0])
        with trio.socket.socket(type=socket.SOCK_DGRAM) as client:
            await client.connect(("127.0.0.1", port))
            await client.send(b"hello")
            assert await client.recv(100) == b"HELLO"


# -- the transport ----------------------------------------------------------------------------------------------------


async def test_transport_is_a_stream_of_trios(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    transport = SocketTransport(ours)
    await transport.wait_send_all_might_not_block()
    await transport.send_all(b"to them")
    await transport.send_eof()
    assert await read_all(theirs) == b"to them"
    wait_readable = trio.lowlevel.wait_readable
    wakes: list[object] = []

    async def wake_for_nothing_first(sock: Any) -> None:
        wakes.append(sock)
        if len(wakes) > 1:
            await wait_readable(sock)

    async with trio.open_nursery() as nursery:
        with monkeypatch.context() as patch:
            patch.setattr(trio.lowlevel, "wait_readable", wake_for_nothing_first)

            async def receive() -> None:
                assert await transport.receive_some() == b"to us"

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(b"to us")
    assert len(wakes) == 2
    assert not transport.has_hung_up()
    await transport.aclose()
    assert transport.has_hung_up()
    await theirs.aclose()


# -- WebSockets -------------------------------------------------------------------------------------------------------


async def test_stream_without_a_close_frame_is_1006() -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h2(server)
        client.client.h2.end_stream(client.number)
        await client.client.flush()
        await application.over.wait()
        await client.aclose()
    assert application.ended[0]["code"] == 1006


async def test_early_frame_amid_a_denial_ends_it() -> None:
    class Denies(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"part", "more_body": True})
            self.ended.append(await receive())
            self.over.set()

    application = Denies()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        assert (await read_until(stream, b"part")).startswith(b"HTTP/1.1 403")
        await stream.send_all(frame(1, b"early"))
        assert b"HTTP/1.1" not in await read_all(stream), "there is one answer"
        await application.over.wait()
    assert application.ended[0]["type"] == "websocket.disconnect"


async def test_application_that_denies_and_ends_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    class Denies(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close"})

    async with serving_ours(Denies()) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        assert (await read_all(stream)).startswith(b"HTTP/1.1 403")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_close_code_of_the_application_is_its_own_too(connect: Any) -> None:
    class Closes(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4002, "reason": "enough"})
            await super().talk(receive, send)

    application = Closes()
    async with serving_ours(application) as server:
        client = await connect(server)
        await client.send(frame(1, b"close"))
        assert close_code(await client.receive()) == 4002
        await client.aclose()
        await application.over.wait()
    assert (application.ended[0]["code"], application.ended[0]["reason"]) == (4002, "enough")


async def test_text_that_is_no_str_is_a_type_error() -> None:
    class Sends(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            with pytest.raises(TypeError, match="int"):
                await send({"type": "websocket.send", "text": 5})
            await super().talk(receive, send)

    async with serving_ours(Sends()) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"x"))
        assert (await client.receive()).endswith(b"x")
        await client.aclose()


async def test_base_exception_group_ends_the_server() -> None:
    class Exits(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            raise BaseExceptionGroup("", [SystemExit(3)])

    async def ask() -> None:
        async with serving_ours(Exits()) as server, await server.connect() as stream:
            await stream.send_all(HALF_A_HEAD + b"\r\n")
            await read_all(stream)

    with pytest.raises(BaseExceptionGroup) as failure:
        await ask()
    assert failure.value.subgroup(SystemExit) is not None


async def test_tasks_that_send_to_nobody_are_no_error(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """While a server ends, a cancelled task of an application still sends to a client that has left."""
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 0.01}

    class Sends(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            while (await receive())["type"] != "websocket.disconnect":
                pass

            async def say_goodbye() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        await send({"type": "websocket.send", "text": "goodbye"})

            async with trio.open_nursery() as nursery:
                nursery.start_soon(say_goodbye)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                self.over.set()

    application = Sends()
    async with serving_ours(application, graceful_timeout=3.0) as server:
        client = await open_h1(server)
        await client.aclose()
        await application.over.wait()
    assert server.error is None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# -- requests ---------------------------------------------------------------------------------------------------------


async def test_peer_that_the_kernel_gives_up_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await open_h1(server)

        def timed_out(*_arguments: object) -> bytes:
            raise trio.BrokenResourceError from OSError(errno.ETIMEDOUT, "Connection timed out")

        with monkeypatch.context() as patch:
            patch.setattr(SocketTransport, "receive_nowait", timed_out)
            await client.send(b"x")  # wakes the reader
            await application.over.wait()
        assert statistics().ended == {"slow": 1}
        await client.aclose()
    assert application.ended[0]["code"] == 1006


async def test_reader_that_is_woken_for_nothing_waits_on(monkeypatch: pytest.MonkeyPatch) -> None:
    receive_nowait = SocketTransport.receive_nowait
    wakes: list[object] = []

    def nothing_first(transport: SocketTransport, most: int) -> bytes:
        wakes.append(transport)
        if len(wakes) == 1:
            raise trio.WouldBlock
        return receive_nowait(transport, most)

    async with serving_ours(Application()) as server, server.websocket("/") as client:
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(SocketTransport, "receive_nowait", nothing_first)
        await client.send_message("hello")
        assert await client.get_message() == "hello"
    assert len(wakes) > 1


async def test_connection_ends_after_its_share_of_requests() -> None:
    request = HALF_A_HEAD + b"\r\n"
    async with serving_ours(Application(), keep_alive_max_requests=2) as server, await server.connect() as stream:
        await stream.send_all(request * 5)
        answers = (await read_all(stream)).lower()
    assert answers.count(b"http/1.1 200") == answers.count(b"hello") == 2
    assert answers.count(b"connection: close") == 1


async def test_body_beyond_its_length_is_an_error() -> None:
    class Exceeds(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            try:
                await send({"type": "http.response.body", "body": b"hello"})
            except h11.LocalProtocolError as error:
                self.events.append({"error": error})

    application = Exceeds()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HALF_A_HEAD + b"\r\n")
        await read_all(stream)
    assert len(application.events) == 1


async def test_frames_after_a_goaway_are_not_read() -> None:
    async with serving_ours(Application()) as server:
        async with await Http2.open(server) as client:
            for _ in range(200):
                client.h2.ping(bytes(8))
            pings = client.h2.data_to_send()
            client.h2.close_connection()
            await client.stream.send_all(client.h2.data_to_send() + pings)
            assert (await read_all(client.stream)).count(PING_ACK) < 200
        await server.still_serves()
    assert server.error is None


# -- shutdowns --------------------------------------------------------------------------------------------------------


async def test_messages_that_wait_at_a_shutdown_are_dropped() -> None:
    go_on = trio.Event()

    class Busy(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await go_on.wait()
            await super().talk(receive, self.events.append)

    async with serving_ours(Busy()) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"x") * 50)  # more than the queue to an application holds
        await trio.testing.wait_all_tasks_blocked()
        server.stop.set()
        assert close_code(await client.rest()) == 1012
        go_on.set()
        await client.aclose()
    assert server.error is None


async def test_message_during_the_goodbye_is_dropped(settings: Any, clock: trio.testing.MockClock) -> None:
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": 1_000, "PING_INTERVAL": 1_000}  # else it is cut while buffers fill
    application = Floods()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await application.until_it_waits()
        server.stop.set()
        await trio.testing.wait_all_tasks_blocked()  # the close frame waits for the client
        await client.send(frame(1, b"x"))
        await application.over.wait()
        await client.aclose()
    assert server.error is None


async def test_client_that_leaves_before_its_turn(
    settings: Any, clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 100}
    application = Application()
    async with serving_ours(application, graceful_timeout=3.0) as server:
        clients = [await open_h1(server) for _ in range(51)]  # one more than the server tells at a time
        server.stop.set()
        for client in clients:
            await client.aclose()
    assert len(application.ended) == 51
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_shutdown_amid_a_denial_ends_it() -> None:
    class Denies(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"part", "more_body": True})
            self.ended.append(await receive())

    application = Denies()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        await read_until(stream, b"part")
        server.stop.set()
        assert b"HTTP/1.1" not in await read_all(stream)
    assert application.ended[0]["code"] == 1012


async def test_client_that_answers_no_close_is_cut(clock: trio.testing.MockClock) -> None:
    class Closes(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4002})
            await super().talk(receive, send)

    application = Closes()
    async with serving_ours(application) as server:
        client = await open_h1(server)
        await client.send(frame(1, b"close"))
        await application.over.wait()
        assert close_code(await client.rest()) == 4002
        await client.aclose()
    assert application.ended[0]["code"] == 4002


@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_application_that_returns_closes_its_websocket_with_1011(connect: Any) -> None:
    class Returns(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await receive()

    async with serving_ours(Returns()) as server:
        client = await connect(server)
        await client.send(frame(1, b"return"))
        assert close_code(await client.rest()) == 1011
        await client.aclose()
