"""Plain exchanges: h11 understands each request alike, makes the same response, and can go on at any time."""

from __future__ import annotations

from itertools import product
from typing import Any

import h11
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.server.plain import Exchange, plain_request
from trio_channels.server.request_head import RequestHead, check

from .clients import Application, read_all, read_until, serving_ours

LONGEST = Config.h11_max_incomplete_size
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH = (b"content-length", b"5")


def head(target: bytes = b"/", *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, target, version), *(lines or [b"Host: a"]), b"", b""])


def of_h11(data: bytes) -> tuple[RequestHead, bytes, bool]:
    """Parse a request with h11 and our checks: its head, the received part of its body, and whether that is all."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST)
    parser.receive_data(data)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += event.data
    assert parser.trailing_data[0] == b""
    return check(request, Config()), body, isinstance(event, h11.EndOfMessage)


def plain(data: bytes) -> tuple[RequestHead, bytes, bool] | None:
    """The same with `plain_request`; None for a request that is not plain."""
    found = plain_request(data, LONGEST)
    if found is None:
        return None
    exchange, head, body = found
    assert exchange.method == head.method
    return head, body, exchange.remaining == len(body)


PLAIN = {
    "a GET": GET,
    "a HEAD": head(method=b"HEAD"),
    "OPTIONS": head(method=b"OPTIONS"),
    "DELETE": head(method=b"DELETE"),
    "a query": head(b"/a%20b;c?d=e&f=%C3%A4"),
    "an absolute path with two slashes": head(b"//b/c"),
    "a port": head(b"/", b"Host: a:80"),
    "an IPv6 address": head(b"/", b"Host: [::1]:80"),
    "an empty host": head(b"/", b"Host:"),
    "no space, much space": head(b"/", b"Host:a", b"X:  \t b \t ", b"Y: c \t d"),
    "an empty value": head(b"/", b"Host: a", b"X:", b"Y: "),
    "Latin-1": head(b"/", b"Host: a", b"X: \xe4\x85\xa0"),
    "keep-alive": head(b"/", b"host: a", b"CONNECTION: Keep-Alive"),
    "keep-alive twice": head(b"/", b"Host: a", b"Connection: keep-alive", b"Connection: keep-alive"),
    "cookies": head(b"/", b"Host: a", b"Cookie: a=b", b"Cookie: c=d"),
    "a POST without a body": head(method=b"POST"),
    "a length of 0": head(b"/", b"Host: a", b"Content-Length: 0"),
    "a body": head(b"/", b"Host: a", b"Content-Length: 3", method=b"POST") + b"abc",
    "a part of a body": head(b"/", b"Host: a", b"content-length:\t3 ", method=b"PUT") + b"ab",
    "no part of a body": head(b"/", b"Content-Length: 03", b"Host: a", method=b"PATCH"),
    "odd names": head(b"/", b"Host: a", b"!#$%&'*+-.^_`|~09: b"),
}

UPGRADE = (b"Host: a", b"Upgrade: websocket")
HANDSHAKES = {
    "as browsers": head(b"/a?b=c", *UPGRADE, b"Connection: Upgrade", b"Sec-WebSocket-Version: 13"),
    "as Firefox": head(b"/", b"Connection: keep-alive, Upgrade", *UPGRADE),
    "any case": head(b"/", b"host: a", b"UPGRADE: WebSocket", b"connection: upgrade"),
    "keep-alive too": head(b"/", *UPGRADE, b"Connection: keep-alive", b"Connection: Upgrade"),
}

NOT_PLAIN = {
    "nothing": b"",
    "a part": GET[:-1],
    "two requests": GET * 2,
    "a byte more": GET + b"\0",
    "an empty line before": b"\r\n" + GET,
    "bare LF": GET.replace(b"\r\n", b"\n"),
    "a bare LF in a value": head(b"/", b"Host: a", b"X: b\nY: c"),
    "a bare CR in a value": head(b"/", b"Host: a", b"X: b\rY: c"),
    "NUL in a value": head(b"/", b"Host: a", b"X: b\0"),
    "DEL in a value": head(b"/", b"Host: a", b"X: \x7f"),
    "a folded value": head(b"/", b"Host: a", b"X: b", b" c"),
    "a space before the colon": head(b"/", b"Host : a"),
    "a name without a colon": head(b"/", b"Host: a", b"X"),
    "an empty name": head(b"/", b"Host: a", b": b"),
    "no header": b"GET / HTTP/1.1\r\n\r\n",
    "no host": head(b"/", b"X: b"),
    "two hosts": head(b"/", b"Host: a", b"Host: a"),
    "a host with a user": head(b"/", b"Host: u@a"),
    "HTTP/1.0": head(version=b"1.0"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another method": head(method=b"TRACE"),
    "a request behind a body": head(b"/", b"Host: a", b"Content-Length: 3") + b"abc" + GET,
    "two lengths": head(b"/", b"Host: a", b"Content-Length: 0", b"Content-Length: 0"),
    "a list of lengths": head(b"/", b"Host: a", b"Content-Length: 0, 0"),
    "a signed length": head(b"/", b"Host: a", b"Content-Length: +1"),
    "a length with a line": head(b"/", b"Host: a", b"Content-Length: 1_0"),
    "a length of many digits": head(b"/", b"Host: a", b"Content-Length: 0000000000000001"),
    "a length that is not ASCII": head(b"/", b"Host: a", b"Content-Length: \xb2"),
    "no length": head(b"/", b"Host: a", b"Content-Length:"),
    "a length and chunks": head(b"/", b"Host: a", b"Content-Length: 0", b"Transfer-Encoding: chunked"),
    "lower case": head(method=b"get"),
    "CONNECT": head(method=b"CONNECT"),
    "an absolute target": head(b"http://a/"),
    "an asterisk": head(b"*", method=b"OPTIONS"),
    "a space in the target": head(b"/a b"),
    "a path that is not ASCII": head(b"/\xe4"),
    "chunks": head(b"/", b"Host: a", b"transfer-encoding: chunked"),
    "Expect": head(b"/", b"Host: a", b"Expect: 100-continue"),
    "Upgrade": head(b"/", b"Host: a", b"Upgrade: h2c"),
    "an upgrade without the option": head(b"/", *UPGRADE),
    "an upgrade with another option": head(b"/", *UPGRADE, b"Connection: Upgrade, close"),
    "an upgrade to several protocols": head(b"/", *UPGRADE, b"Upgrade: h2c", b"Connection: Upgrade"),
    "the same upgrade twice": head(b"/", *UPGRADE, b"Upgrade: websocket", b"Connection: Upgrade"),
    "the option without an upgrade": head(b"/", b"Host: a", b"Connection: Upgrade"),
    "an upgrade with a body": head(b"/", *UPGRADE, b"Connection: Upgrade", b"Content-Length: 0"),
    "an upgrade and more": head(b"/", *UPGRADE, b"Connection: Upgrade") + b"\x81",
    "the option twice": head(b"/", b"Host: a", b"Connection: Upgrade", b"Connection: Upgrade"),
    "an upgrade of a HEAD": head(b"/", *UPGRADE, b"Connection: Upgrade", method=b"HEAD"),
    "close": head(b"/", b"Host: a", b"Connection: close"),
    "close behind keep-alive": head(b"/", b"Host: a", b"Connection: keep-alive, close"),
    "close in another line": head(b"/", b"Host: a", b"Connection: keep-alive", b"Connection: close"),
    "too long": head(b"/", b"Host: a", b"X: " + b"b" * LONGEST),
}


@pytest.mark.parametrize("case", PLAIN)
def test_plain_request_is_as_h11_understands_it(case: str) -> None:
    assert plain(PLAIN[case]) == of_h11(PLAIN[case])


@pytest.mark.parametrize("case", HANDSHAKES)
def test_handshake_is_as_h11_understands_it(case: str) -> None:
    found = plain(HANDSHAKES[case])
    assert found is not None
    assert found[0].upgrades
    assert found == of_h11(HANDSHAKES[case])


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_request_that_is_not_plain(case: str) -> None:
    assert plain(NOT_PLAIN[case]) is None


PIECES = [
    *(b"GET", b"HEAD", b"get", b"POST", b" ", b"/", b"/a", b"*", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r"),
    *(b"Host", b"host", b":", b": ", b"a", b"a:80", b"\t", b"\0", b"\x0b", b"\x85", b"\xff", b"X", b"Connection: "),
    *(
        b"Upgrade",
        b": websocket",
        b", Upgrade",
        b"keep-alive",
        b"close",
        b"Content-Length: ",
        b"0",
        b"3",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b"@",
    ),
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.sampled_from([*PLAIN.values(), *HANDSHAKES.values()]),
    st.data(),
)
def test_any_change_leaves_it_plain_or_to_h11(changed: bytes, one: bytes, data: st.DataObject) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(one))] * 2)))
    request = one[:start] + changed + one[end:]
    assert plain(request) in (None, of_h11(request) if plain(request) else None)


BARE_LENGTH = [(b"Content-Length", b"5")]
#: Headers of responses that have a body of five bytes.
PLAIN_HEADERS: list[list[Any]] = [
    *(
        [LENGTH],
        BARE_LENGTH,
        [(b"X", b"a\tb \xff"), LENGTH],
        [LENGTH, (b"X", b"")],
        [LENGTH, (b"X", b"Connection: close")],
    ),
    *([LENGTH, (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")], [LENGTH, (b"X-Content-Length", b"4")]),
]
OTHER_HEADERS: list[list[Any]] = [
    *([(b"content-length", value)] for value in (b"x", b"", b"5, 5", b"9" * 21, b"-5", b"5 ")),
    *([LENGTH, LENGTH], [LENGTH, (b"connection", b"close")], [LENGTH, (b"Transfer-Encoding", b"chunked")]),
    *([LENGTH, (b"host", b"a")], [LENGTH, (b"X", b" a")], [LENGTH, (b"X", b"a ")], [LENGTH, (b"X", b"\0")]),
    *([LENGTH, (b"X", b"a" + end + b"Y: b")] for end in (b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x0b", b"\x7f")),
    *([LENGTH, (b"X" + end + b"Y", b"b")] for end in (b"\r\n", b": a\r\n", b"\n", b" ", b":", b": ")),
    *([LENGTH, (b"X", b"a\r\n")], [LENGTH, (b"X", b"\r\n")], [LENGTH, (b"\nX", b"a")], [LENGTH, (b"", b"b")]),
    [(b"X", b"a\r\nContent-Length: 5")],
]
RESPONSES = list(
    product(("GET", "HEAD"), (199, 200, 204, 304, 404, 1000), [[], *PLAIN_HEADERS, *OTHER_HEADERS], (b"", b"hello"))
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_responses_that_are_plain(method: str) -> None:
    for headers in PLAIN_HEADERS:
        exchange = Exchange(GET, method)
        assert exchange.begin(200, headers), headers
        assert exchange.end(b"" if method == "HEAD" else b"hello") is not None, headers
    for headers in OTHER_HEADERS:
        assert not Exchange(GET, method).begin(200, headers), headers


def made_by_h11(request: bytes, status: int, headers: Any, body: bytes) -> tuple[bytes, h11.Connection]:
    """The response that h11 makes; it raises an error for one that is not valid."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(request)
    while parser.next_event() is not h11.NEED_DATA:
        pass
    data = parser.send(h11.Response(status_code=status, headers=headers))
    if body:
        data += parser.send(h11.Data(data=body))
    return data + parser.send(h11.EndOfMessage()), parser


def test_plain_response_is_as_h11_makes_it() -> None:
    for method, status, headers, body in RESPONSES:
        request = head(method=method.encode())
        exchange = Exchange(request, method)
        if method == "HEAD" or status in (204, 304):
            body = b""  # as the stream does it
        if exchange.begin(status, headers) and (response := exchange.end(body)) is not None:
            expected, parser = made_by_h11(request, status, headers, body)
            assert response == expected
            # h11 can be told of the exchange afterwards.
            other = h11.Connection(h11.SERVER)
            assert exchange.tell(other) == b""
            assert other.states == parser.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}


@pytest.mark.parametrize(("begun", "states"), [(False, h11.SEND_RESPONSE), (True, h11.SEND_BODY)])
def test_h11_goes_on_with_an_exchange(begun: bool, states: Any) -> None:
    exchange, parser = Exchange(GET, "GET"), h11.Connection(h11.SERVER)
    assert exchange.begin(200, [LENGTH]) or not begun
    assert exchange.end(b"hell") is None
    if not begun:
        exchange = Exchange(GET, "GET")
    held = exchange.tell(parser)
    assert held == (b"HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n" if begun else b"")
    assert parser.our_state is states


@pytest.mark.parametrize("came", range(4))
def test_h11_goes_on_with_a_body(came: int) -> None:
    request = head(b"/", b"Host: a", b"Content-Length: 3", b"X-Content-Length: 4", method=b"POST")
    found = plain_request(request, LONGEST)
    assert found is not None
    exchange, parser = found[0], h11.Connection(h11.SERVER)
    exchange.remaining -= came
    assert exchange.begin(200, [LENGTH]) is (came == 3)
    exchange.tell(parser)
    assert parser.their_state is (h11.DONE if came == 3 else h11.SEND_BODY)
    if came < 3:
        parser.receive_data(b"abc"[came:] + GET)
        event = parser.next_event()
        assert isinstance(event, h11.Data)
        assert event.data == b"abc"[came:]
        assert isinstance(parser.next_event(), h11.EndOfMessage)
        assert parser.next_event() is h11.PAUSED


def test_exchange_tells_its_state_in_its_repr() -> None:
    exchange = Exchange(GET, "GET")
    assert repr(exchange) == "<Exchange GET unanswered>"
    exchange.begin(200, [LENGTH])
    exchange.end(b"hello")
    assert repr(exchange) == "<Exchange GET 200, complete>"


class Slow(Application):
    """Answers in steps: it waits before the head, before the body, and after it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.steps = [trio.Event() for _ in range(2)]
        self.began = 0

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        self.began += 1
        await self.steps[0].wait()
        length = (b"content-length", b"%d" % self.size)
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await self.steps[1].wait()
        await send({"type": "http.response.body", "body": bytes(self.size)})


MUCH = 2**22  # more than the buffers of both sockets


@pytest.mark.parametrize("open_steps", [0, 1, 2])
async def test_request_behind_a_plain_one_waits(way: str, open_steps: int) -> None:
    application = Slow(MUCH)
    for step in application.steps[:open_steps]:
        step.set()
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()  # with both steps open it waits for the client to read
        await stream.send_all(head(b"/", b"Host: a", b"Connection: close") + b"garbage")
        await trio.testing.wait_all_tasks_blocked()
        assert application.began == 1
        for step in application.steps:
            step.set()
        answers = await read_all(stream)
    assert application.began == 2
    assert len(answers.split(b"HTTP/1.1 200 ")) == 3
    assert answers.count(b"\0") == 2 * MUCH
    assert answers.lower().count(b"connection: close") == 1


class Responds(Application):
    """Responds with these headers and this body."""

    def __init__(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        super().__init__()
        self.headers, self.body = headers, body
        self.failures: list[Exception] = []

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.headers})
            await send({"type": "http.response.body", "body": self.body})
        except h11.LocalProtocolError as error:
            self.failures.append(error)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([LENGTH, (b"x", b"a\r\ny: b")], b"hello", 500),
        ([LENGTH, (b"x y", b"a")], b"hello", 500),
        ([LENGTH, (b"set-cookie: y: b", b"a")], b"hello", 500),
        ([LENGTH], b"hell", 200),
        ([LENGTH], b"hello!", 200),
    ],
)
async def test_invalid_response_fails(way: str, headers: Any, body: bytes, status: int) -> None:
    application = Responds(headers, body)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(GET)
        answer = await read_all(stream)
    assert len(application.failures) == 1
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert b"y: b" not in answer


class Collects(Application):
    """Waits for `size` bytes of a body, and answers with them."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.events: list[Any] = []

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while len(body) < self.size:
            self.events.append(await receive())
            body += self.events[-1]["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


POST = head(b"/", b"Host: a", b"Content-Length: 6", method=b"POST")


async def test_body_in_parts(way: str) -> None:
    application = Collects(6)
    async with serving_ours(application) as server, await server.connect() as stream:
        for _ in range(2):
            for part in (POST, b"abc", b"d", b"ef"):
                await stream.send_all(part)
                await trio.testing.wait_all_tasks_blocked()
            assert b"content-length: 6\r\n" in await read_until(stream, b"abcdef")
        await stream.send_all(POST + b"abc")
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"def" + POST + b"ghijkl")
        await read_until(stream, b"ghijkl")
    assert b"".join(event["body"] for event in application.events) == b"abcdef" * 3 + b"ghijkl"


async def test_plain_body_that_comes_at_once_is_one_event() -> None:
    application = Collects(6)
    async with serving_ours(application) as server, await server.connect() as stream:
        await stream.send_all(POST + b"abcdef")
        await read_until(stream, b"abcdef")
    assert application.events == [{"type": "http.request", "body": b"abcdef", "more_body": False}]


async def test_plain_body_in_parts_passes_h11_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Exchange, "tell")
    async with serving_ours(Collects(6)) as server, await server.connect() as stream:
        for part in (POST, b"abc", b"d", b"ef"):
            await stream.send_all(part)
            await trio.testing.wait_all_tasks_blocked()
        await read_until(stream, b"\r\n\r\nabcdef")


@pytest.mark.parametrize("rest", [b"", b"def", b"def" + GET, b"de"])
async def test_answer_before_the_end_of_a_body(way: str, rest: bytes) -> None:
    async with serving_ours(Collects(3)) as server, await server.connect() as stream:
        await stream.send_all(POST + b"abc")
        await read_until(stream, b"\r\n\r\nabc")
        await stream.send_all(rest)
        assert await read_all(stream) == b""


async def test_refused_body_is_dropped(way: str) -> None:
    async with serving_ours(Application(), server_names=["b"]) as server, await server.connect() as stream:
        await stream.send_all(POST + b"abc")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        await stream.send_all(b"def")
        assert await read_all(stream) == b""


async def test_last_request_of_a_connection(way: str) -> None:
    async with serving_ours(Application(), keep_alive_max_requests=2) as server, await server.connect() as stream:
        await stream.send_all(GET)
        assert b"connection: close" not in await read_until(stream, b"hello")
        await stream.send_all(GET)
        assert b"connection: close" in await read_all(stream)


async def test_raw_names_are_passed_on() -> None:
    names: list[bytes] = []

    class Notes(Application):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            names.extend(name for name, _ in scope["headers"])
            await super().http(scope, receive, send)

    async with serving_ours(Notes(), h11_pass_raw_headers=True) as server, await server.connect() as stream:
        await stream.send_all(GET)
        await read_until(stream, b"hello")
    assert names == [b"Host"]
