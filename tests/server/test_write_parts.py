"""Parts of a stream are written without being joined: all arrive in order, and each wait for the client has an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h2.events
import pytest
import trio
import trio.testing

from trio_channels._http.client import Client, ClientLeft

from .clients import GET, Application, Http2, read_all, read_until, serving_ours
from .tables import TRANSPORTS, served

REQUEST = b"%s /parts HTTP/1.1\r\nHost: a\r\n\r\n"
PARTS = [bytes((number,)) * 50_000 for number in range(100)]  # more than the buffers of both sockets
BODY = b"".join(PARTS)
LENGTH = (b"content-length", b"%d" % len(BODY))


class Streams(Application):
    """Sends the parts, as Django's handler does; notes how often the client was waited for, and why it ended."""

    def __init__(
        self, *headers: tuple[bytes, bytes], status: int = 200, together: int = len(PARTS), parts: list[bytes] = PARTS
    ) -> None:
        super().__init__()
        self.start = {"type": "http.response.start", "status": status, "headers": list(headers)}
        self.together, self.parts = together, parts
        self.waits = self.cancelled_at = 0
        self.left = trio.Event()
        self.cancel = trio.CancelScope()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/parts":
            await super().http(scope, receive, send)
            return
        client = Client(scope, receive, send)
        try:
            await client.send(self.start)
            with self.cancel:
                for first in range(0, len(self.parts), self.together):
                    await client.send_parts(self.parts[first : first + self.together], self.waited)
            await client.send({"type": "http.response.body"})
        except ClientLeft:
            self.left.set()

    def waited(self) -> None:
        self.waits += 1
        if self.waits == self.cancelled_at:
            self.cancel.cancel()


def content(answer: bytes) -> bytes:
    """The body of a response that may be in chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body, at = [], 0
    while at < len(rest):
        line = rest.index(b"\r\n", at)
        size = int(rest[at:line], 16)
        body.append(rest[line + 2 : line + 2 + size])
        at = line + 4 + size
    return b"".join(body)


@pytest.mark.parametrize("together", [7, len(PARTS)])
@pytest.mark.parametrize("headers", [[LENGTH], []], ids=["length", "chunks"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_all_parts_arrive_in_order(
    transport: str, headers: Any, together: int, certificate: tuple[Path, Path]
) -> None:
    application = Streams(*headers, together=together)
    async with served(transport, application, certificate) as connect, await connect() as stream:
        await stream.send_all((REQUEST % b"GET").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert content(await read_all(stream)) == BODY
    assert application.waits > len(PARTS) // together  # the client is waited for now and then


async def test_http2_parts_arrive_in_order() -> None:
    application = Streams(parts=[b"a" * 10, b"b" * 20_000, b"c"])
    async with serving_ours(application) as server, await Http2.open(server) as client:
        number = await client.request(*GET, (b":path", b"/parts"))
        await client.until(h2.events.StreamEnded, number)
        events = [event for event in client.events if isinstance(event, h2.events.DataReceived)]
    assert b"".join(event.data for event in events) == b"a" * 10 + b"b" * 20_000 + b"c"
    assert application.waits == 4


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
async def test_response_without_a_body_has_no_parts(method: bytes, status: int) -> None:
    async with serving_ours(Streams(LENGTH, status=status)) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % method + REQUEST % b"HEAD")
        await read_until(stream, b"\r\n\r\n")
        await stream.send_eof()
        assert b"\0" not in await read_all(stream)


async def test_client_that_leaves_amid_the_parts_is_noticed() -> None:
    application = Streams(LENGTH, together=10)
    async with serving_ours(application) as server:
        async with await server.connect() as stream:
            await stream.send_all(REQUEST % b"GET")
            await read_until(stream, b"\0")
        with trio.fail_after(30):
            await application.left.wait()


async def test_connection_is_reset_if_the_parts_are_cancelled() -> None:
    application = Streams(LENGTH)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        await read_until(stream, b"\0")
        await trio.testing.wait_all_tasks_blocked()
        application.cancel.cancel()
        assert len(await read_all(stream)) < len(BODY)


async def test_connection_is_reset_between_two_parts() -> None:
    application = Streams(LENGTH)
    application.cancelled_at = 2  # the first is before anything is written
    async with serving_ours(application, keep_alive_timeout=600) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        assert 0 < len(await read_all(stream)) < len(BODY)


@pytest.mark.parametrize(("error", "arrives"), [(BlockingIOError, True), (ConnectionResetError, False)])
async def test_kernel_that_takes_no_parts(error: type[OSError], arrives: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_none(_number: int, _parts: list[bytes]) -> int:
        raise error

    monkeypatch.setattr("trio_channels.server.transport.write_parts", take_none)
    application = Streams(parts=PARTS[:3], together=1)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        if arrives:
            await read_until(stream, b"\r\n0\r\n\r\n")
        else:
            assert content(await read_all(stream)) == b""
            with trio.fail_after(30):
                await application.left.wait()
