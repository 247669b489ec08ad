"""The server of ``runserver``, in this process."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request
from typing import Any

import pytest
import trio

from trio_channels.server import development
from trio_channels.server.development import DevelopmentServer


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Says hello; without a lifespan."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def server() -> Any:
    server = DevelopmentServer(("127.0.0.1", 0))
    server.set_app(application)
    yield server
    server.server_close()


def test_taken_address_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            DevelopmentServer(taken.getsockname())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_as_ctrl_c(server: DevelopmentServer, number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever(lambda: os.kill(os.getpid(), number))


def test_in_a_thread_it_serves_until_it_is_told_to_end(server: DevelopmentServer) -> None:
    started = threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=[started.set])
    thread.start()
    try:
        assert started.wait(60)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=60) as answer:
            assert answer.read() == b"hello"
    finally:
        server.shutdown()
        thread.join()


def test_told_to_end_while_it_starts_it_ends(server: DevelopmentServer) -> None:
    starting = threading.Event()

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        starting.set()
        await trio.sleep_forever()

    began: list[bool] = []
    server.set_app(hangs)
    thread = threading.Thread(target=server.serve_forever, args=[lambda: began.append(True)])
    thread.start()
    assert starting.wait(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(development, "GRACE", 20.0)  # the start alone may take 60
        server.shutdown()
        assert server._ended.is_set()
    thread.join()
    assert began == []


def test_signal_while_it_starts_ends_it(server: DevelopmentServer) -> None:
    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        os.kill(os.getpid(), signal.SIGINT)
        await trio.sleep_forever()

    server.set_app(hangs)
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever()


def test_told_to_end_before_it_begins_it_does_not_begin(server: DevelopmentServer) -> None:
    server.shutdown()
    began: list[bool] = []
    server.serve_forever(lambda: began.append(True))
    assert began == []
