"""Responses that go on, in tests: they are read part by part, and ended by the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from django.http import StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from trio.testing import MockClock

from trio_channels._http.handler import DjangoHandler
from trio_channels.consumer import AsyncConsumer
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.testing import HttpCommunicator, ServerSentEvent

STREAM = [(b"Content-Type", b"text/event-stream; charset=utf-8")]


class Counts(AsyncHttpConsumer):
    """An endless stream of events, with comments between."""

    ended: list[str]

    async def handle(self, body: bytes) -> None:
        await self.send_headers(headers=STREAM)
        self.start_soon(self.count)

    async def count(self) -> None:
        number = 0
        while True:
            await self.send_body(f": still here\n\ndata: {number}\n\n".encode(), more_body=True)
            await trio.sleep(1)
            number += 1

    async def disconnect(self) -> None:
        self.ended.append("disconnect")


@pytest.fixture
def counts() -> type[Counts]:
    class Own(Counts):
        ended: list[str] = []

    return Own


# -- get_response() ends with the response ----------------------------------------------------------------------------


class Plain(AsyncConsumer):
    """As Channels' own tests have it: nothing in it ends the connection."""

    async def http_request(self, event: dict[str, Any]) -> None:
        await self.send({"type": "http.response.start", "status": 200, "headers": []})
        await self.send({"type": "http.response.body", "body": b"ok"})


async def test_plain_consumer_answers() -> None:
    assert (await HttpCommunicator(Plain.as_asgi(), "GET", "/").get_response())["body"] == b"ok"


async def test_response_does_not_wait_for_work_after_it(autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ok"})
        assert await receive() == {"type": "http.disconnect"}
        await trio.sleep(20)
        ended.set()

    async with HttpCommunicator(application, "GET", "/") as http:
        started = trio.current_time()
        assert (await http.get_response())["body"] == b"ok"
        assert trio.current_time() == started
        assert not ended.is_set()
    assert ended.is_set()  # the block has given it the time


async def test_work_after_the_response_is_cancelled_in_the_end(autojump_clock: MockClock) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        await trio.sleep_forever()

    started = trio.current_time()
    async with HttpCommunicator(application, "GET", "/") as http:
        http.timeout = 5
        await http.get_response()
    assert trio.current_time() == started + 5


async def test_cancelled_end_of_the_block_cancels_the_application() -> None:
    cancelled = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    with trio.CancelScope() as scope:
        async with HttpCommunicator(application, "GET", "/") as http:
            await http.get_response()
            scope.cancel()
    assert cancelled == [True]


async def test_exception_after_the_response_reaches_the_block() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})
        raise LookupError("late")

    with pytest.raises(LookupError, match="late"):
        async with HttpCommunicator(application, "GET", "/") as http:
            await http.get_response()


async def test_client_that_has_its_response_disconnects_once(counts: type[Counts]) -> None:
    class Answers(counts):  # type: ignore[misc, valid-type]
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"")

    async with HttpCommunicator(Answers.as_asgi(), "GET", "/") as http:
        await http.get_response()
        await http.disconnect()
    assert counts.ended == ["disconnect"]


# -- an endless stream ------------------------------------------------------------------------------------------------


async def test_events_are_read_one_by_one(autojump_clock: MockClock, counts: type[Counts]) -> None:
    async with HttpCommunicator(counts.as_asgi(), "GET", "/") as http:
        assert await http.get_response_start() == {"status": 200, "headers": STREAM}
        assert [(await http.receive_event(timeout=2)).json() for _ in range(3)] == [0, 1, 2]
        await http.disconnect()
    assert counts.ended == ["disconnect"]


async def test_block_ends_an_endless_stream(autojump_clock: MockClock, counts: type[Counts]) -> None:
    async with HttpCommunicator(counts.as_asgi(), "GET", "/") as http:
        assert (await http.receive_event()).data == "0"
        started = trio.current_time()
    assert trio.current_time() == started  # at once
    assert counts.ended == ["disconnect"]


async def test_cancelled_read_loses_no_event(autojump_clock: MockClock, counts: type[Counts]) -> None:
    async with HttpCommunicator(counts.as_asgi(), "GET", "/") as http:
        assert (await http.receive_event()).data == "0"
        with trio.move_on_after(0.5) as scope:
            await http.receive_event(timeout=30)
        assert scope.cancelled_caught
        with pytest.raises(trio.TooSlowError):
            await http.receive_event(timeout=0.25)
        assert (await http.receive_event(timeout=2)).data == "1"


async def test_comments_do_not_extend_the_time(autojump_clock: MockClock) -> None:
    class Silent(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=STREAM)
            while True:
                await self.send_body(b": still here\n\n", more_body=True)
                await trio.sleep(1)

    async with HttpCommunicator(Silent.as_asgi(), "GET", "/") as http:
        started = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await http.receive_event(timeout=4.5)
        assert trio.current_time() == started + 4.5


async def test_events_of_one_part_come_one_by_one() -> None:
    class Two(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"data: 1\n\ndata: 2\n\n", STREAM)

    async with HttpCommunicator(Two.as_asgi(), "GET", "/") as http:
        assert [await http.receive_event() for _ in range(2)] == [ServerSentEvent("1"), ServerSentEvent("2")]
        with pytest.raises(EOFError, match="the response is complete"):
            await http.receive_event()


async def test_rest_of_a_response_is_read_whole() -> None:
    class Three(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(status=202)
            for part in (b"a", b"b"):
                await self.send_body(part, more_body=True)
            await self.send_body(b"c")

    async with HttpCommunicator(Three.as_asgi(), "GET", "/") as http:
        assert await http.receive_body() == b"a"
        assert await http.get_response() == {"status": 202, "headers": [], "body": b"bc"}


@pytest.mark.parametrize("headers", [[], [(b"content-type", b"text/html")]])
async def test_events_of_another_type_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    class Page(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, b"data: 1\n\n", headers)

    async with HttpCommunicator(Page.as_asgi(), "GET", "/") as http:
        with pytest.raises(AssertionError, match="expected a response of the type text/event-stream"):
            await http.receive_event()


# -- a stream of a Django view ----------------------------------------------------------------------------------------

closed: list[str] = []


async def _numbers() -> AsyncIterator[str]:
    number = 0
    try:
        while True:
            yield f"id: {number}\nevent: number\ndata: {number}\n\n"
            await trio.lowlevel.checkpoint()
            number += 1
    finally:
        closed.append("closed")


async def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(_numbers(), content_type="text/event-stream")


urlpatterns = [path("stream/", stream)]


@override_settings(ROOT_URLCONF=__name__)
async def test_stream_of_a_view_is_read_and_ended() -> None:
    closed.clear()
    async with HttpCommunicator(DjangoHandler(), "GET", "/stream/", headers=[(b"host", b"localhost")]) as http:
        assert [await http.receive_event() for _ in range(2)] == [
            ServerSentEvent("0", "number", "0"),
            ServerSentEvent("1", "number", "1"),
        ]
        await http.disconnect()
    assert closed == ["closed"]
