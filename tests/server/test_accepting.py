"""Descriptors run out: new clients are refused, the log names the remedy, and connected clients go on."""

from __future__ import annotations

import errno
import logging
import os
import re
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_channels.server import accepting, statistics
from trio_channels.server.accepting import Acceptor, descriptor_problem
from trio_channels.server.run import warn_of_descriptors

from .clients import Application, Server, read_all, serving_ours
from .tables import access_log

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The process can open nothing more in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 16, hard))
    taken = list(_all_free())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


def _all_free() -> Iterator[int]:
    while True:
        try:
            yield os.dup(0)
        except OSError:
            return


class Clients:
    """Clients whose sockets are made in advance, and closed at the end: a closed one would be a free descriptor."""

    def __init__(self, server: Server, number: int) -> None:
        self._port = server.port
        self._free = [trio.socket.socket() for _ in range(number)]
        self._used: list[trio.socket.SocketType] = []

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_exception: object) -> None:
        for sock in self._free + self._used:
            sock.close()

    async def connect(self) -> trio.SocketStream:
        sock = self._free.pop()
        self._used.append(sock)
        await sock.connect(("127.0.0.1", self._port))
        return trio.SocketStream(sock)


@asynccontextmanager
async def started() -> AsyncIterator[Server]:
    """A server that has its spare descriptor: it has answered a client."""
    async with serving_ours(Application()) as server:
        assert (await server.request("GET", "/")).body == b"hello"
        while statistics().connections:
            await trio.lowlevel.checkpoint()
        yield server


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_client_without_a_descriptor_gets_503(caplog: pytest.LogCaptureFixture) -> None:
    with access_log() as log:
        async with serving_ours(Application()) as server, server.served_meanwhile():
            with Clients(server, 5) as clients, no_descriptors():
                for _ in range(5):
                    stream = await clients.connect()
                    await stream.send_all(REQUEST)
                    answer = await read_all(stream)
                    assert answer.startswith(b"HTTP/1.1 503")
                    assert b"retry-after: 5" in answer
                    await stream.send_eof()
            assert (await server.request("GET", "/")).body == b"hello"
            assert statistics().refused == 5
            assert statistics().refusals == {503: 5}
    assert log.lines.count("- - - 503") == 5
    (warning,) = warnings(caplog)
    assert warning.startswith("no descriptor is left for new clients, which get 503: Too many open files, with 1 conn")


async def test_client_that_sends_nothing_gets_503_too() -> None:
    async with started() as server:
        with Clients(server, 1) as clients, no_descriptors():
            assert (await read_all(await clients.connect())).startswith(b"HTTP/1.1 503")


async def test_idle_server_without_descriptors_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with started() as server:
        with Clients(server, 1) as clients:
            with no_descriptors():
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
            stream = await clients.connect()
            await stream.send_all(REQUEST)
            assert (await read_all(stream)).endswith(b"hello")
    assert warnings(caplog) == []


async def test_warning_comes_again_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(accepting, "_WARN_EVERY", 0.0)
    async with started() as server:
        with Clients(server, 2) as clients, no_descriptors():
            for _ in range(2):
                stream = await clients.connect()
                await read_all(stream)
                await stream.send_eof()
    assert len(warnings(caplog)) == 2


async def test_encrypted_client_without_a_descriptor_is_closed(certificate: tuple[Path, Path]) -> None:
    options = {"certfile": str(certificate[0]), "keyfile": str(certificate[1])}
    async with serving_ours(Application(), **options) as server:
        await (await server.connect()).aclose()
        while not statistics().accepted or statistics().connections:
            await trio.lowlevel.checkpoint()
        with Clients(server, 1) as clients, no_descriptors():
            assert await read_all(await clients.connect()) == b""
        assert statistics().refusals == {503: 1}


async def test_client_waits_if_the_spare_descriptor_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []
    tries = 0
    free = Acceptor._free_spare

    def lose(acceptor: Acceptor) -> None:
        nonlocal tries
        tries += 1
        free(acceptor)
        lost.extend(_all_free())

    async with started() as server:
        with Clients(server, 1) as clients:
            with no_descriptors():
                monkeypatch.setattr(Acceptor, "_free_spare", lose)
                stream = await clients.connect()
                while tries < 2:  # the second time there is none to lose
                    await trio.lowlevel.checkpoint()
                monkeypatch.setattr(Acceptor, "_free_spare", free)
            for number in lost:
                os.close(number)
            await stream.send_all(REQUEST)
            assert (await read_all(stream)).endswith(b"hello")


async def test_other_error_of_accept_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(listener: trio.SocketListener) -> Any:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(trio.SocketListener, "accept", fails)
    async with serving_ours(Application()) as server:
        with socket.create_connection(("127.0.0.1", server.port)):
            await server.died.wait()
    assert isinstance(server.error, ExceptionGroup)
    assert server.error.subgroup(OSError) is not None


@pytest.mark.parametrize(
    ("soft", "most", "problem"),
    [
        (resource.RLIM_INFINITY, 20_000, None),
        (20_100, 20_000, None),
        (20_099, 20_000, "may open only 20099 files, .* to 20100 \\(ulimit -n 20100; .*, or MAX_CONNECTIONS to 19999$"),
        (1_024, 20_000, "may open only 1024 files, .* or MAX_CONNECTIONS to 924$"),
        (64, 1_000, "or MAX_CONNECTIONS to 1$"),
    ],
)
def test_limit_of_files_is_compared(
    soft: int,
    most: int,
    problem: str | None,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    settings.TRIO_CHANNELS = {"MAX_CONNECTIONS": most}
    warn_of_descriptors()
    assert bool(caplog.messages) is bool(problem)
    if problem is not None:
        assert re.search(problem, caplog.messages[0])
        assert descriptor_problem(most) == caplog.messages[0]
