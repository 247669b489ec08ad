"""The end of a server: everybody is told, nobody is cut who need not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed

from tests.integration.server.conftest import Server as RealServer
from trio_channels.server import statistics

from .clients import (
    GET,
    HANDSHAKE,
    Application,
    Http2,
    close_code,
    open_h1,
    open_h2,
    read_all,
    read_until,
    serving_ours,
)
from .test_limits import Clock

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("connect", [open_h1, open_h2])
async def test_client_and_application_of_a_websocket_are_told_1012(connect: Any) -> None:
    application = Application()
    async with serving_ours(application) as server:
        client = await connect(server)
        server.stop.set()
        assert close_code(await client.rest()) == 1012
        await client.aclose()
        await server.died.wait()
    assert application.ended[0]["code"] == 1012


async def test_websockets_are_told_in_batches_at_random_times(settings: Any, clock: Clock) -> None:
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 100}
    times: list[float] = []

    class Notes(Application):
        async def talk(self, receive: Any, send: Any) -> None:
            await super().talk(receive, send)
            times.append(trio.current_time())

    async with serving_ours(Notes(), graceful_timeout=3.0) as server:
        clients = [await open_h1(server) for _ in range(120)]
        server.stop.set()
        for client in clients:
            assert close_code(await client.rest()) == 1012
            await client.aclose()
    assert len(times) == 120
    assert [times.count(moment) for moment in sorted(set(times))] == [50, 50, 20]


class Waits(Application):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = trio.Event(), trio.Event()
        self.cancelled, self.began = False, 0

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        self.began += 1
        try:
            await self.go_on.wait()
        except trio.Cancelled:
            self.cancelled = True
            raise
        await super().http(scope, receive, send)


async def test_request_is_answered_and_an_idle_connection_is_closed() -> None:
    application = Waits()
    async with serving_ours(application, graceful_timeout=20) as server:
        async with await server.connect() as idle, await server.connect() as silent, await server.connect() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await application.begun.wait()
            server.stop.set()
            assert await read_all(idle) == b""
            assert await read_all(silent) == b""
            with pytest.raises(OSError, match="all attempts to connect"):
                await server.connect()
            assert statistics().ending
            application.go_on.set()
            assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200")
            assert await read_all(stream) == b""
        await server.died.wait()
    assert server.error is None


async def test_http2_request_is_answered_before_the_goaway() -> None:
    application = Waits()
    async with serving_ours(application, graceful_timeout=20) as server:
        async with await Http2.open(server) as client:
            number = await client.request(*GET, (b":path", b"/"))
            await application.begun.wait()
            server.stop.set()
            application.go_on.set()
            assert await client.status(number) == 200
            assert await client.until(h2.events.StreamEnded, number)
            assert await client.until(h2.events.ConnectionTerminated)
        await server.died.wait()


async def test_what_goes_on_is_cancelled_at_the_end_of_the_grace(settings: Any, clock: Clock) -> None:
    settings.TRIO_CHANNELS = {"SHUTDOWN_GRACE": 12}
    application = Waits()
    async with serving_ours(application, graceful_timeout=3.0) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await application.begun.wait()
        begun = trio.current_time()
        server.stop.set()
        await server.died.wait()
        assert 11 < trio.current_time() - begun < 14
    assert application.cancelled


async def test_failure_while_cancelled_is_logged(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    class Fails(Waits):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            async def fail() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("while it cleaned up")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                await super().http(scope, receive, send)

    application = Fails()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await application.begun.wait()
        server.stop.set()
        await server.died.wait()
    assert server.error is None
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], BaseExceptionGroup)
    assert record.exc_info[1].subgroup(ValueError) is not None


async def test_handshake_that_is_not_answered_yet_is_denied_with_503(settings: Any) -> None:
    class Hesitates(Application):
        async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            self.over.set()
            self.ended.append(await receive())

    application = Hesitates()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(HANDSHAKE % (b"/", b""))
        await application.over.wait()
        server.stop.set()
        assert (await read_all(stream)).startswith(b"HTTP/1.1 503")
    assert application.ended[0]["code"] == 1012


async def test_command_line_is_hardened_and_drains(tmp_path: Path) -> None:
    """hypercorn's own, from the application alone."""
    command = [sys.executable, "-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0"]
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.integration.server.settings", "PYTHONPATH": str(ROOT)}
    process = await trio.lowlevel.open_process(
        [*command, "tests.integration.server.application:application"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    log = ""
    try:
        while "Running on" not in log:
            log += (await process.stderr.receive_some()).decode()
        server = RealServer(int(log.partition("Running on http://127.0.0.1:")[2].split()[0]))
        async with server.websocket("/echo/") as client:
            await client.send_message("x")
            assert await client.get_message() == "x"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await client.get_message()
        assert closed.value.reason.code == 1012
        async for more in process.stderr:
            log += more.decode()
        assert await process.wait() == 0
    finally:
        process.kill()
        await process.stderr.aclose()
        with trio.CancelScope(shield=True):
            await process.wait()
    assert log.count("hardened by trio-channels") == 1
    assert "disconnected 1012" in log
    assert "Traceback" not in log


async def test_request_behind_the_body_of_the_last_one_is_not_begun(way: str) -> None:
    application = Waits()
    options = {"graceful_timeout": 20, "max_app_queue_size": 1}
    async with serving_ours(application, **options) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        for part in (b"a", b"bc" + b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"):  # it waits until the queue has room
            await trio.testing.wait_all_tasks_blocked()
            await stream.send_all(part)
        await trio.testing.wait_all_tasks_blocked()
        server.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        application.go_on.set()
        assert (await read_all(stream)).endswith(b"\r\n\r\nhello")
    assert application.began == 1
