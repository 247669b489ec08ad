"""Heads of HTTP/1.1 requests: the answer, whether the connection lives, and the line in the access log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from trio_channels.server.http1 import Http1

from .clients import Application, read_all, read_until
from .tables import PROBE, TRANSPORTS, Row, access_log, check, row, served


def get(target: bytes = b"/", *headers: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, target, version), *(headers or [b"Host: a"]), b"", b""])


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    return get(b"/", b"Host: a", *headers, version=version, method=b"POST") + body


OK = "GET / 1.1 200"

LAST = {
    "a request after Connection: close": row(get(b"/", b"Host: a", b"Connection: close"), OK, lives=False),
    "garbage after Connection: close": row(get(b"/", b"Host: a", b"Connection: close") + b"\0\xff", OK, lives=False),
    "a line after Connection: close": row(get(b"/", b"Host: a", b"Connection: close") + b"\r\n", OK, lives=False),
    "a request after HTTP/1.0": row(get(version=b"1.0"), "GET / 1.0 200", lives=False),
    "garbage after HTTP/1.0": row(get(version=b"1.0") + b"\0\xff", "GET / 1.0 200", lives=False),
    "HTTP/1.0 that would be kept alive": row(
        get(b"/", b"Host: a", b"Connection: keep-alive", version=b"1.0"), "GET / 1.0 200", lives=False
    ),
    "a body, then garbage": row(
        post(b"abc", b"Content-Length: 3", b"Connection: close") + b"\0\xff", "POST / 1.1 200", lives=False
    ),
    "a chunked body, then garbage": row(
        post(b"3\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", b"Connection: close") + b"\0",
        "POST / 1.1 200",
        lives=False,
    ),
    "close in the second Connection header": row(
        get(b"/", b"Host: a", b"Connection: keep-alive", b"Connection: close"), OK, lives=False
    ),
    "close in the first Connection header": row(
        get(b"/", b"Host: a", b"Connection: close", b"Connection: keep-alive"), OK, lives=False
    ),
    "close in a list": row(get(b"/", b"Host: a", b"Connection: x, Close"), OK, lives=False),
    "two headers that close nothing": row(get(b"/", b"Host: a", b"Connection: x", b"Connection: y"), OK, lives=True),
}

EMPTY_LINES = {
    "one": row(b"\r\n" + get(), OK, lives=True),
    "a bare LF": row(b"\n" + get(), OK, lives=True),
    "some": row(b"\r\n\n\r\n" + get(), OK, lives=True),
    "a thousand": row(b"\r\n" * 1_000 + get(), OK, lives=True),
    "between two requests": row(get() + b"\r\n" + get(b"/b"), OK, "GET /b 1.1 200", lives=True),
    "behind a body": row(post(b"abc", b"Content-Length: 3") + b"\r\n", "POST / 1.1 200", lives=True),
    "a bare CR": row(b"\r" + get(), "- - - 400", lives=False),
    "a space": row(b" \r\n" + get(), "- - - 400", lives=False),
}

TARGETS = {
    "absolute": row(get(b"http://b/x"), "GET /x 1.1 200", lives=True),
    "absolute, no path": row(get(b"http://b"), OK, lives=True),
    "absolute, a query and no path": row(get(b"http://b?y"), OK, lives=True),
    "absolute, of TLS": row(get(b"https://b:1/x"), "GET /x 1.1 200", lives=True),
    "absolute, in upper case": row(get(b"HTTP://b/x"), "GET /x 1.1 200", lives=True),
    "absolute, an IPv6 address": row(get(b"http://[::1]:80/x"), "GET /x 1.1 200", lives=True),
    "absolute, HTTP/1.0 and no Host": row(get(b"http://b/x", b"A: b", version=b"1.0"), "GET /x 1.0 200", lives=False),
    "absolute, no host": row(get(b"http:///x"), "GET http:///x 1.1 400", lives=False),
    "absolute, only a port": row(get(b"http://:80/x"), "GET http://:80/x 1.1 400", lives=False),
    "absolute, a user": row(get(b"http://u@b/x"), "GET http://u@b/x 1.1 400", lives=False),
    "absolute, two ports": row(get(b"http://b:1:2/x"), "GET http://b:1:2/x 1.1 400", lives=False),
    "another scheme": row(get(b"ftp://b/x"), "GET ftp://b/x 1.1 400", lives=False),
    "no slash": row(get(b"x"), "GET x 1.1 400", lives=False),
    "an asterisk": row(get(b"*"), "GET * 1.1 400", lives=False),
    "an asterisk, with OPTIONS": row(get(b"*", method=b"OPTIONS"), "OPTIONS * 1.1 200", lives=True),
    "two slashes": row(get(b"//b/x"), "GET //b/x 1.1 200", lives=True),
    "a host, with CONNECT": row(get(b"b:443", method=b"CONNECT"), "CONNECT b:443 1.1 501", lives=False),
}

REST = {
    "no Host": row(get(b"/", b"A: b"), "- - - 400", lives=False),
    "no Host, HTTP/1.0": row(get(b"/", b"A: b", version=b"1.0"), "GET / 1.0 200", lives=False),
    "no Host, HTTP/1.2": row(get(b"/", b"A: b", version=b"1.2"), "GET / 1.2 400", lives=False),
    "two Hosts": row(get(b"/", b"Host: a", b"Host: b"), "- - - 400", lives=False),
    "a Host with a path": row(get(b"/", b"Host: a/b"), "GET / 1.1 400", lives=False),
    "a Host with a space": row(get(b"/", b"Host: a b"), "GET / 1.1 400", lives=False),
    "a Host with a user": row(get(b"/", b"Host: u@a"), "GET / 1.1 400", lives=False),
    "an empty Host": row(get(b"/", b"Host:"), OK, lives=True),
    "a Host with a port": row(get(b"/", b"Host: a:80"), OK, lives=True),
    "a Host that is no ASCII": row(get(b"/", b"Host: \xe9"), "GET / 1.1 400", lives=False),
    "a method in lower case": row(get(method=b"get"), "get / 1.1 501", lives=False),
    "an unknown method": row(get(method=b"BREW"), "BREW / 1.1 200", lives=True),
    "HTTP/1.2": row(get(version=b"1.2"), OK, lives=True),
    "HTTP/3.0": row(get(version=b"3.0"), "GET / 3.0 505", lives=False),
    "HTTP/2, not first": row(get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", OK, "PRI * 2.0 505", lives=False),
    "no version": row(b"GET /\r\n\r\n", "- - - 400", lives=False),
    "no request": row(b"\0\xff\r\n\r\n", "- - - 400", lives=False),
    "a handshake of TLS": row(b"\x16\x03\x01\x02\0\r\n\r\n", "- - - 400", lives=False),
    "a folded header": row(get(b"/", b"Host: a", b"A: b", b" c"), OK, lives=True),
    "a space before a colon": row(get(b"/", b"Host : a"), "- - - 400", lives=False),
    "a header with a zero byte": row(get(b"/", b"Host: a", b"A: \0"), "- - - 400", lives=False),
    "a head that is too long": row(get(b"/", b"Host: a", b"A: " + b"b" * 70_000), "- - - 431", lives=False),
    "two lengths": row(post(b"abc", b"Content-Length: 3", b"Content-Length: 4"), "- - - 400", lives=False),
    "a length and chunks": row(
        post(b"0\r\n\r\n", b"Content-Length: 3", b"Transfer-Encoding: chunked"), "POST / 1.1 400", lives=False
    ),
    "chunks, HTTP/1.0": row(
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", version=b"1.0"), "POST / 1.0 400", lives=False
    ),
    "another encoding": row(post(b"", b"Transfer-Encoding: gzip, chunked"), "- - - 501", lives=False),
    "chunks without a size": row(post(b"x\r\n", b"Transfer-Encoding: chunked"), "POST / 1.1 400", lives=False),
    "hardly a body in its chunks": row(
        post((b"1;" + b"x" * 2_000 + b"\r\na\r\n") * 99 + b"0\r\n\r\n", b"Transfer-Encoding: chunked"),
        "POST / 1.1 400",
        lives=False,
    ),
    "a body in chunks of a byte": row(
        post(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n", b"Transfer-Encoding: chunked"), "POST / 1.1 200", lives=True
    ),
}


def table(rows: dict[str, Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("the", rows.values(), ids=rows)


over = pytest.mark.parametrize("transport", TRANSPORTS)


@over
@table(LAST)
async def test_bytes_after_the_last_request_are_dropped(
    the: Row, transport: str, certificate: tuple[Path, Path]
) -> None:
    await check(the, transport, certificate)


@over
@table(EMPTY_LINES)
async def test_empty_lines_before_a_request_are_ignored(
    the: Row, transport: str, certificate: tuple[Path, Path]
) -> None:
    await check(the, transport, certificate)


@over
@pytest.mark.parametrize("first", [b"", get()], ids=["before the first request", "between two requests"])
@pytest.mark.parametrize("parts", [[b"\r\n"], [b"\n"], [b"\r", b"\n"], [b"\r\n\r", b"\n\r\n"]])
async def test_empty_lines_that_come_alone_are_ignored(
    parts: list[bytes], first: bytes, transport: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, handled = trio.open_memory_channel[bytes](100)
    handle = Http1.receive_bytes

    async def notes(protocol: Http1, data: bytes) -> None:
        await handle(protocol, data)
        sending.send_nowait(data)

    monkeypatch.setattr(Http1, "receive_bytes", notes)
    with access_log() as log:
        async with served(transport, Application(), certificate) as connect, await connect() as stream:
            if first:
                await stream.send_all(first)
                await read_until(stream, b"hello")
            for part in parts:
                await stream.send_all(part)
                while await handled.receive() != part:
                    pass
            await stream.send_all(PROBE)
            assert (await read_all(stream)).endswith(b"hello")
    assert log.lines == [*([OK] if first else []), "GET /probe 1.1 200"]


@over
@table(TARGETS)
async def test_target(the: Row, transport: str, certificate: tuple[Path, Path]) -> None:
    await check(the, transport, certificate)


@over
@table(REST)
async def test_head(the: Row, transport: str, certificate: tuple[Path, Path]) -> None:
    await check(the, transport, certificate)


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/x?y", "/x", "y", "a"),
        (b"http://b/x?y", "/x", "y", "b"),
        (b"http://b:81?y", "/", "y", "b:81"),
        (b"http://a/%20", "/ ", "", "a"),
    ],
)
async def test_application_sees_the_targets_host(
    target: bytes, path: str, query: str, host: str, certificate: tuple[Path, Path]
) -> None:
    application = await check(row(get(target), f"GET {path} 1.1 200", lives=True), "tcp", certificate)
    assert application.requests[0] == ("GET", path, query, host, b"")


async def test_unknown_server_name_is_refused(certificate: tuple[Path, Path]) -> None:
    the = row(get(b"/", b"Host: b"), "GET / 1.1 404", lives=False)
    await check(the, "tcp", certificate, server_names=["a", "localhost"])


async def test_head_that_is_too_long_and_comes_at_once(certificate: tuple[Path, Path]) -> None:
    the = row(get(b"/", b"Host: a", b"A: " + b"b" * 2_000), "GET / 1.1 431", lives=False)
    await check(the, "tcp", certificate, h11_max_incomplete_size=1_000)


@over
async def test_late_bytes_after_the_last_request_are_not_read(
    transport: str, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, paused, pause = trio.Event(), trio.Event(), Http1._pause

    async def notes(protocol: Http1) -> None:
        paused.set()
        await pause(protocol)

    class Hesitates(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await paused.wait()
            await super().http(scope, receive, send)

    async with served(transport, Hesitates(), certificate) as connect, await connect() as stream:
        await stream.send_all(get(b"/", b"Host: a", b"Connection: close"))
        await begun.wait()
        monkeypatch.setattr(Http1, "_pause", notes)
        await stream.send_all(b"\0\xff" * 1_000)
        assert (await read_all(stream)).endswith(b"hello")
