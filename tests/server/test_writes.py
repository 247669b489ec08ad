"""How many writes a response takes, counted where the server gives its bytes to the kernel."""

from __future__ import annotations

from typing import Any

import h2.events
import pytest
import trio

from trio_channels.server.transport import SocketTransport

from .clients import GET, Application, Http2, read_all, read_until, serving_ours

pytestmark = pytest.mark.usefixtures("way")

REQUEST = b"%s / HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = (b"content-length", b"5")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The server's writes, one item per system call."""
    noted: list[bytes] = []
    write = SocketTransport.send_nowait

    def send_nowait(transport: SocketTransport, data: bytes | memoryview) -> int:
        noted.append(bytes(data))
        return write(transport, data)

    monkeypatch.setattr(SocketTransport, "send_nowait", send_nowait)
    return noted


class Responds(Application):
    """Responds with the given status, headers and bodies."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], *bodies: bytes) -> None:
        super().__init__()
        self.start = {"type": "http.response.start", "status": status, "headers": headers}
        self.bodies = bodies

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send(self.start)
        for number, body in enumerate(self.bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(self.bodies)})


class Waits(Application):
    """Sends the start of a response, and then waits for `go_on`."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        super().__init__()
        self.headers = headers
        self.started, self.go_on = trio.Event(), trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        self.started.set()
        await self.go_on.wait()


RESPONSES: dict[str, tuple[bytes, Responds, bytes, int]] = {
    "GET": (b"GET", Responds(200, [LENGTH], b"hello"), b"hello", 1),
    "HEAD": (b"HEAD", Responds(200, [LENGTH], b"hello"), b"\r\n\r\n", 1),
    "204": (b"GET", Responds(204, [], b""), b"\r\n\r\n", 1),
    "304": (b"GET", Responds(304, [], b""), b"\r\n\r\n", 1),
    "empty": (b"GET", Responds(200, [(b"Content-Length", b"0")], b""), b"\r\n\r\n", 1),
    "two parts": (b"GET", Responds(200, [LENGTH], b"he", b"llo"), b"hello", 2),
    "end of its own": (b"GET", Responds(200, [LENGTH], b"hello", b""), b"hello", 1),
    "chunked": (b"GET", Responds(200, [], b"hello"), b"\r\n0\r\n\r\n", 2),
    "no body at all": (b"GET", Responds(200, [(b"content-length", b"0")]), b"\r\n\r\n", 1),
}


@pytest.mark.parametrize("case", RESPONSES)
async def test_http1_response_writes(case: str, writes: list[bytes]) -> None:
    method, application, end, count = RESPONSES[case]
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % method)
        assert (await read_until(stream, end)).startswith(b"HTTP/1.1 ")
        await stream.send_eof()
        await read_all(stream)
        assert len(writes) == count, writes
        assert b"" not in writes


ERRORS = {
    "400": (b"GET / HTTP/9\r\n\r\n", b"HTTP/1.1 400"),
    "404": (b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", b"HTTP/1.1 404"),
    "501": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 501"),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_http1_error_is_one_write(case: str, writes: list[bytes]) -> None:
    request, answer = ERRORS[case]
    async with serving_ours(Application(), server_names=["a"]) as server, await server.connect() as stream:
        await stream.send_all(request)
        await stream.send_eof()
        assert (await read_all(stream)).startswith(answer)
        assert len(writes) == 1, writes


async def test_application_error_is_one_write(writes: list[bytes]) -> None:
    class Fails(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            raise LookupError

    async with serving_ours(Fails()) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 500")
        await stream.send_eof()
        await read_all(stream)
        assert len(writes) == 1, writes


async def test_pipelined_responses_take_one_write_each(writes: list[bytes]) -> None:
    async with serving_ours(Application()) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET" * 5)
        data = b""
        while data.count(b"hello") < 5:
            data += await read_until(stream, b"hello")
        assert len(writes) == 5, writes


async def test_streamed_head_is_sent_at_once() -> None:
    application = Waits()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        assert b"chunked" in await read_until(stream, b"\r\n\r\n")
        application.go_on.set()


async def test_held_head_is_sent_when_the_application_ends() -> None:
    application = Waits(LENGTH)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(REQUEST % b"GET")
        await application.started.wait()
        application.go_on.set()
        assert (await read_all(stream)).startswith(b"HTTP/1.1 200")


async def test_held_head_is_sent_when_the_server_closes() -> None:
    application = Waits(LENGTH)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await application.started.wait()
        await stream.send_all(b"no chunk\r\n")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        application.go_on.set()


async def test_http2_response_is_one_write(writes: list[bytes]) -> None:
    async with serving_ours(Application()) as server, await Http2.open(server) as client:
        await client.until(h2.events.SettingsAcknowledged)
        writes.clear()
        number = await client.request(*GET, (b":path", b"/"))
        await client.until(h2.events.StreamEnded, number)
        assert len(writes) == 1, writes
        assert b"hello" in writes[0]
        assert frames(writes[0]) == [(1, False), (0, True)]


async def test_http2_body_of_many_frames_is_one_write(writes: list[bytes]) -> None:
    application = Responds(200, [(b"content-length", b"50000")], bytes(50_000))
    async with serving_ours(application) as server, await Http2.open(server) as client:
        await client.until(h2.events.SettingsAcknowledged)
        writes.clear()
        number = await client.request(*GET, (b":path", b"/"))
        await client.until(h2.events.StreamEnded, number)
        assert frames(writes[0]) == [(1, False), (0, False), (0, False), (0, False), (0, True)]


async def test_http2_held_head_is_sent_when_the_application_ends() -> None:
    application = Waits((b"content-length", b"0"))
    async with serving_ours(application) as server, await Http2.open(server) as client:
        number = await client.request(*GET, (b":path", b"/"))
        await application.started.wait()
        application.go_on.set()
        await client.until(h2.events.ResponseReceived, number)


def frames(data: bytes) -> list[tuple[int, bool]]:
    """The types of the frames of HTTP/2 in some bytes, and whether each ends its stream."""
    found = []
    while data:
        found.append((data[3], bool(data[4] & 1)))
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return found
