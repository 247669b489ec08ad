"""``async with site("name") as served``: the site of a package, served by ``trio-channels serve``, and its visitors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from trio_websocket import WebSocketConnection

from ..integration.server.conftest import Server
from ..process import SAFETY, Program, program

#: The package that has the modules of most sites.
SITES = "tests.packages.sites"


class Site:
    """A running site.

    Attributes:
        url: its address, without a slash at the end.
        folder: its data.
    """

    def __init__(self, server: Program, port: int, folder: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.folder = folder
        self._server = server

    @property
    def log(self) -> str:
        """Everything that the server has written so far."""
        return self._server.text

    def lines(self, name: str) -> list[Any]:
        """The objects in a file with one line of JSON for each, without an unfinished last line."""
        lines = (self.folder / name).read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    async def logged(self, pattern: str) -> None:
        """Wait for a line of the log."""
        await self._server.said(pattern)

    def visitor(self, **options: Any) -> httpx.AsyncClient:
        """A client with cookies of its own; a context manager."""
        return httpx.AsyncClient(base_url=self.url, timeout=SAFETY, **options)

    def websocket(self, path: str, **options: Any) -> AbstractAsyncContextManager[WebSocketConnection]:
        """A WebSocket client; a context manager."""
        return Server(self.port).websocket(path, **options)

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[Stream]:
        """A response that comes in parts, to a GET."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as connection:
            await connection.send_all(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            yield Stream(connection)


class Stream:
    """A response, as it comes."""

    def __init__(self, connection: trio.SocketStream) -> None:
        self.text = ""
        self._connection = connection

    async def until(self, mark: str) -> None:
        """Read until the text has come."""
        while mark not in self.text:
            part = await self._connection.receive_some()
            assert part, f"the response ended without {mark!r}: {self.text}"
            self.text += part.decode()

    async def end(self) -> None:
        """Read until the server closes the connection."""
        async for part in self._connection:
            self.text += part.decode()


@asynccontextmanager
async def site(
    name: str,
    *,
    where: str = SITES,
    apps: Sequence[str] = (),
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Site]:
    """Serve a site during the block.

    Args:
        name: the module with the ``urlpatterns``.
        where: the package that has it.
        apps: additions to INSTALLED_APPS.
        first: middleware outside of Django's own.
        last: middleware inside of Django's own.
        settings: other settings. ``{"import": "module.name"}`` stands for an object; the object CALL is called at the
            end of the settings.
    """
    with serve_settings(name, where=where, apps=apps, first=first, last=last, **settings) as environment:
        command = ("-m", "trio_channels", "serve", "tests.packages.asgi:application", "--bind=127.0.0.1:0")
        async with program(*command, **environment) as server:
            try:
                yield Site(server, await server.port(), Path(environment["TESTS_FOLDER"]))
            except BaseException:
                print(server.text)
                raise


@contextmanager
def serve_settings(
    name: str,
    *,
    where: str = SITES,
    apps: Sequence[str] = (),
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    **settings: Any,
) -> Iterator[dict[str, str]]:
    """The environment of a process that serves a site, with a folder for its data; the arguments are :func:`site`'s."""
    given = {
        "ROOT_URLCONF": f"{where}.{name}",
        "APPS": apps,
        "MIDDLEWARE_FIRST": first,
        "MIDDLEWARE_LAST": last,
        **settings,
    }
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "DJANGO_SETTINGS_MODULE": "tests.packages.settings",
            "TESTS_FOLDER": folder,
            "TESTS_SETTINGS": json.dumps(given),
        }


async def at_once(*requests: Any) -> list[httpx.Response]:
    """Send requests at the same time; their responses, in the order of the requests."""
    responses: dict[int, httpx.Response] = {}

    async def one(number: int, request: Any) -> None:
        responses[number] = await request

    async with trio.open_nursery() as nursery:
        for number, request in enumerate(requests):
            nursery.start_soon(one, number, request)
    return [responses[number] for number in range(len(requests))]


@asynccontextmanager
async def ada_and_grace(served: Site) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Two visitors, logged in; the site has :func:`~.sites.common.login_as` at ``login/``."""
    async with served.visitor() as ada, served.visitor() as grace:
        for name, visitor in (("ada", ada), ("grace", grace)):
            assert (await visitor.get("/login/", params={"user": name})).text == name
        yield ada, grace
