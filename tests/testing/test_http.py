"""One HTTP request for tests."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.testing import HttpCommunicator


class Echo(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(201, body, [(b"x-a", b"1")])


async def test_request_gets_its_response() -> None:
    async with HttpCommunicator(Echo.as_asgi(), "POST", "/", b"hello") as http:
        assert await http.get_response() == {"status": 201, "headers": [(b"x-a", b"1")], "body": b"hello"}


async def test_without_a_block_too() -> None:
    http = HttpCommunicator(Echo.as_asgi(), "POST", "/", b"hello")
    assert (await http.get_response())["body"] == b"hello"


async def test_scope_is_that_of_the_request() -> None:
    http = HttpCommunicator(Echo.as_asgi(), "get", "/caf%C3%A9/?q=%20x", headers=[(b"x-mine", b"1")])
    assert (http.scope["type"], http.scope["method"]) == ("http", "GET")
    assert (http.scope["path"], http.scope["raw_path"]) == ("/café/", b"/caf%C3%A9/")
    assert http.scope["query_string"] == b"q=%20x"
    assert http.scope["headers"] == [(b"x-mine", b"1")]


async def test_path_may_be_written_as_people_read_it() -> None:
    http = HttpCommunicator(Echo.as_asgi(), "GET", "/café au lait/?q=grüß")
    assert http.scope["path"] == "/café au lait/"
    assert http.scope["raw_path"] == b"/caf%C3%A9%20au%20lait/"
    assert http.scope["query_string"] == "q=grüß".encode()


async def test_parts_of_a_streamed_response_are_put_together() -> None:
    class Streams(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            for part in (b"a", b"b", b"c"):
                await self.send_body(part, more_body=True)
            await self.send_body(b"")

    async with HttpCommunicator(Streams.as_asgi(), "GET", "/") as http:
        assert (await http.get_response())["body"] == b"abc"


async def test_each_part_of_a_response_has_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await trio.sleep(0.9)
            await self.send_headers()
            for _ in range(3):
                await trio.sleep(0.9)
                await self.send_body(b"x", more_body=True)
            await self.send_body(b"")

    async with HttpCommunicator(Slow.as_asgi(), "GET", "/") as http:
        assert (await http.get_response())["body"] == b"xxx"


async def test_sending_the_request_twice_is_once() -> None:
    class Counts(AsyncHttpConsumer):
        requests = 0

        async def http_request(self, message: Any) -> None:
            Counts.requests += 1
            await super().http_request(message)

        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")

    async with HttpCommunicator(Counts.as_asgi(), "GET", "/") as http:
        await http.send_request()
        await http.get_response()
    assert Counts.requests == 1


async def test_exception_of_the_application_is_raised_by_get_response() -> None:
    class Fails(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            raise LookupError("in handle")

    async with HttpCommunicator(Fails.as_asgi(), "GET", "/") as http:
        with pytest.raises(LookupError, match="in handle"):
            await http.get_response()


async def test_leaving_tells_the_application_and_waits_for_its_end() -> None:
    left: list[str] = []

    class Streams(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers()
            await self.send_body(b"first", more_body=True)

        async def disconnect(self) -> None:
            left.append("yes")

    async with HttpCommunicator(Streams.as_asgi(), "GET", "/") as http:
        await http.send_request()
        await http.receive_output()
        await http.disconnect()
        assert left == ["yes"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.start", "status": 200}],
    ],
    ids=["no start", "two starts"],
)
async def test_message_out_of_order_fails_and_is_shown(messages: list[Any]) -> None:
    async def wrong(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    async with HttpCommunicator(wrong, "GET", "/") as http:
        with pytest.raises(AssertionError, match=r"expected a message of type 'http.response.\w+' .* got"):
            await http.get_response()


async def test_body_that_is_no_bytes_is_the_tests_own_error() -> None:
    with pytest.raises(TypeError, match="body must be bytes; got str"):
        HttpCommunicator(Echo.as_asgi(), "POST", "/", "text")  # type: ignore[arg-type]
