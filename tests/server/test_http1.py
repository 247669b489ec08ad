"""Requests over HTTP/1.1: which connections go on and which are closed, and that every request is answered."""

from __future__ import annotations

import logging
import socket
from typing import Any

import pytest
import trio

from trio_channels.server import statistics
from trio_channels.server.connection import ServerConnection

from .clients import Application, Server, open_h1, read_all, read_until, serving_ours

pytestmark = pytest.mark.usefixtures("way")


class WithoutLength(Application):
    """Sends an answer without a length."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


class Empty(Application):
    """Answers with 204 and no body."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


class Stops(Application):
    """Sends less than its announced length."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hel", "more_body": True})


class Reads(Application):
    """Reads the whole body, then greets."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        await super().http(scope, receive, send)


ANSWERS = pytest.mark.parametrize("application", [Application, WithoutLength, Empty, Reads])
METHODS = pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])


def request(method: str, version: str = "1.1", *headers: str) -> bytes:
    body = "abc" if method == "POST" else ""
    lines = [f"{method} / HTTP/{version}", "Host: a", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


async def answers(server: Server, data: bytes) -> bytes:
    """All bytes until the server closes."""
    async with await server.connect() as stream:
        await stream.send_all(data)
        return await read_all(stream)


@METHODS
@ANSWERS
@pytest.mark.parametrize("last", [("1.1", "Connection: close"), ("1.0",)], ids=["close", "HTTP/1.0"])
async def test_connection_that_must_not_go_on_is_closed(
    method: str, application: type[Application], last: tuple[str, ...]
) -> None:
    async with serving_ours(application()) as server:
        answer = await answers(server, request(method, *last))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert (b"hello" in body) is (method != "HEAD" and application is not Empty)


@METHODS
@ANSWERS
async def test_connection_goes_on_for_the_next_request(method: str, application: type[Application]) -> None:
    async with serving_ours(application()) as server:
        async with await server.connect() as stream:
            answer = b""
            for _ in range(3):
                await stream.send_all(request(method))
                answer += await read_until(stream, b"\r\n\r\n")
                while statistics().requests:
                    await trio.lowlevel.checkpoint()
            await stream.send_all(request(method, "1.1", "Connection: close"))
            answer += await read_all(stream)
        assert answer.count(b"HTTP/1.1 20") == 4
        assert statistics().accepted == 1


@METHODS
@ANSWERS
async def test_requests_that_are_sent_at_once_are_all_answered(method: str, application: type[Application]) -> None:
    async with serving_ours(application()) as server:
        answer = await answers(server, request(method) * 9 + request(method, "1.1", "Connection: close"))
    assert answer.count(b"HTTP/1.1 20") == 10


async def test_answer_that_breaks_off_ends_the_connection() -> None:
    async with serving_ours(Stops()) as server:
        assert (await answers(server, request("GET"))).endswith(b"hel")


async def test_body_that_is_asked_for_before_it_is_sent_is_read() -> None:
    async with serving_ours(Reads()) as server, await server.connect() as stream:
        asked = request("POST", "1.1", "Expect: 100-continue", "Connection: close")
        await stream.send_all(asked[:-3])
        await read_until(stream, b"HTTP/1.1 100 \r\n")
        await stream.send_all(asked[-3:])
        assert (await read_all(stream)).endswith(b"hello")


async def test_tunnel_is_not_built(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_ours(Application()) as server:
        for host in (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\nTLS"):
            assert (await answers(server, host)).startswith(b"HTTP/1.1 501")
        await server.still_serves()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_unknown_host_is_404_and_a_non_ascii_one_400() -> None:
    async with serving_ours(Application(), server_names=["b"]) as server:
        assert (await answers(server, request("GET"))).startswith(b"HTTP/1.1 404")
        no_ascii = request("GET").replace(b"Host: a", b"Host: \xe9")
        assert (await answers(server, no_ascii)).startswith(b"HTTP/1.1 400")


async def test_kernel_gives_up_on_a_silent_peer(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TRIO_CHANNELS = {"WRITE_TIMEOUT": 7}
    accepted: list[ServerConnection] = []
    monkeypatch.setattr(ServerConnection, "run", noting(accepted, ServerConnection.run))
    async with serving_ours(Application()) as server:
        client = await open_h1(server)
        (connection,) = accepted
        sock = connection._transport.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7_000
        assert repr(connection).endswith(f" from {connection.client}>")
        await client.aclose()


def noting(calls: list[Any], function: Any) -> Any:
    def noted(connection: Any) -> Any:
        calls.append(connection)
        return function(connection)

    return noted


@pytest.mark.parametrize(("raw", "name"), [(False, b"x-mine"), (True, b"X-Mine")])
async def test_names_of_headers_are_in_lower_case_or_raw(raw: bool, name: bytes) -> None:
    seen: list[Any] = []

    class Notes(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            seen.extend(scope["headers"])
            await super().http(scope, receive, send)

    async with serving_ours(Notes(), h11_pass_raw_headers=raw) as server, await server.connect() as stream:
        await stream.send_all(b"GET http://other/ HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\n\r\n")
        await read_until(stream, b"hello")
    assert seen == [(b"host", b"other"), (name, b"1")]
