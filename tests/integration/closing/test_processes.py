"""Connections that are closed from outside, in two processes with a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from ...process import SAFETY, program
from ...redis_server import RedisServer, needs_redis
from ..server.conftest import Server

pytestmark = [pytest.mark.faults, needs_redis]

SERVE = ("-m", "trio_channels", "serve", "tests.integration.closing.urls:application", "--bind=127.0.0.1:0")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@asynccontextmanager
async def two_servers(redis: RedisServer, folder: Path) -> AsyncIterator[list[Server]]:
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.integration.closing.site",
        "TESTS_DATABASE": str(folder / "database"),
        "TESTS_REDIS": redis.url,
    }
    async with program("-m", "django", "migrate", "-v0", **environment) as migration:
        assert await migration.ends() == 0, migration.text
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(program(*SERVE, **environment)) for _ in range(2)]
        yield [Server(await process.port()) for process in processes]


class Login(NamedTuple):
    """A session, and a socket with it at each server."""

    browser: httpx.AsyncClient
    sockets: list[WebSocketConnection]


@asynccontextmanager
async def logged_in(servers: list[Server], name: str) -> AsyncIterator[Login]:
    async with AsyncExitStack() as stack:
        browser = httpx.AsyncClient(base_url=f"http://127.0.0.1:{servers[0].port}", timeout=SAFETY)
        await stack.enter_async_context(browser)
        assert (await browser.get("/login/", params={"name": name})).status_code == 200
        headers = [(b"cookie", f"sessionid={browser.cookies['sessionid']}".encode())]
        sockets = [await stack.enter_async_context(server.websocket("/", extra_headers=headers)) for server in servers]
        for socket in sockets:
            await socket.send_message("?")
            assert await socket.get_message() == name
        yield Login(browser, sockets)


async def assert_closed(socket: WebSocketConnection, code: int, reason: str) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await socket.get_message()
    assert (closed.value.reason.code, closed.value.reason.reason) == (code, reason)


async def assert_open(login: Login, name: str) -> None:
    for socket in login.sockets:
        await socket.send_message("?")
        assert await socket.get_message() == name


async def test_logout_closes_the_sockets_of_the_session(redis: RedisServer, tmp_path: Path) -> None:
    async with (
        two_servers(redis, tmp_path) as servers,
        logged_in(servers, "ada") as laptop,
        logged_in(servers, "ada") as phone,
        logged_in(servers, "grace") as grace,
    ):
        await laptop.browser.get("/logout/")
        for socket in laptop.sockets:
            await assert_closed(socket, 1008, "the session has ended")
        await assert_open(phone, "ada")
        await assert_open(grace, "grace")


async def test_user_is_closed_in_both_processes(redis: RedisServer, tmp_path: Path) -> None:
    async with (
        two_servers(redis, tmp_path) as servers,
        logged_in(servers, "ada") as ada,
        logged_in(servers, "grace") as grace,
        trio.open_nursery() as nursery,
    ):
        streams: list[str] = []

        async def listen(address: str) -> None:
            try:
                async with ada.browser.stream("GET", address) as response:
                    async for text in response.aiter_text():
                        streams.append(text)
                        if len(streams) == 2:
                            listening.set()
            except httpx.RemoteProtocolError:
                streams.append("broken off")

        listening = trio.Event()
        for server in servers:
            nursery.start_soon(listen, f"http://127.0.0.1:{server.port}/stream/")
        await listening.wait()
        await grace.browser.get("/ban/", params={"name": "ada"})
        for socket in ada.sockets:
            await assert_closed(socket, 4003, "banned")
        await assert_open(grace, "grace")
    assert streams == ["hello ada"] * 2 + ["broken off"] * 2
