"""Limits of a client: threads, time, memory."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from trio.testing import MockClock

from trio_channels._http import client as _client
from trio_channels._http import request_body
from trio_channels._http.handler import DjangoHandler
from trio_channels._threads.database import thread_pool
from trio_channels.exceptions import RequestTimeout, WorkerPoolBusy
from trio_channels.testing import HttpCommunicator

from .common import NEUTRAL, Signals, client, fetch, header, until

# -- a project in a module --------------------------------------------------------------------------------------------

notes: list[str] = []
gate = threading.Event()


def quick(request: HttpRequest) -> HttpResponse:
    return HttpResponse("quick")


def reads(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.read())))


def waits(request: HttpRequest) -> HttpResponse:
    notes.append("entered")
    gate.wait(30)
    return HttpResponse()


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"x" * 1_000_000))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        try:
            while True:
                yield "x" * 1_000
        finally:
            notes.append("closed")

    return StreamingHttpResponse(parts())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        try:
            while True:
                yield ""
                yield "x"
        finally:
            notes.append("closed")

    return StreamingHttpResponse(parts())


def large_header(request: HttpRequest) -> HttpResponse:
    return HttpResponse("x", headers={"X-Large": "y" * 100_000, "X-Length": str(len(request.headers["x-large"]))})


async def busy(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "x"
        raise WorkerPoolBusy("in the middle")

    return StreamingHttpResponse(parts())


VIEWS = (quick, reads, waits, file, stream, async_stream, large_header, busy)
urlpatterns = [path(f"{view.__name__}/", view) for view in VIEWS]


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    notes.clear()
    gate.clear()


# -- time for a body --------------------------------------------------------------------------------------------------


def trickle(seconds: float, size: int, parts: int) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A server's receive for a body that comes in parts, one every `seconds`."""
    left = parts

    async def receive() -> dict[str, Any]:
        nonlocal left
        await trio.sleep(seconds)
        left -= 1
        return {"type": "http.request", "body": b"x" * size, "more_body": left > 0}

    return receive


async def nowhere(_message: Any) -> None:
    raise NotImplementedError


async def read(receive: Any) -> int:
    with await request_body.read_body(_client.Client({"type": "http"}, receive, nowhere), 10_000_000, 60.0) as body:
        return len(body.read())


@pytest.mark.parametrize(
    ("size", "parts"), [(10, 1), (10, 5), (request_body.SLOWEST * 10, 100), (request_body.SLOWEST * 11, 100)]
)
async def test_slow_body_is_waited_for_while_it_comes(autojump_clock: MockClock, size: int, parts: int) -> None:
    assert await read(trickle(10.0, size, parts)) == size * parts


@pytest.mark.parametrize(("size", "parts"), [(0, 100), (10, 100), (request_body.SLOWEST * 5, 100)])
async def test_body_that_is_held_back_is_given_up(autojump_clock: MockClock, size: int, parts: int) -> None:
    with pytest.raises(RequestTimeout, match=r"did not come at 500 bytes/s after 60 seconds \(BODY_TIMEOUT\)"):
        await read(trickle(10.0, size, parts))


@pytest.mark.parametrize("first", [None, b"", b"x" * 3_000_000], ids=["nothing", "a beginning", "one on disk"])
async def test_body_that_does_not_come_is_answered_with_408(
    first: bytes | None, sent_signals: Signals, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_body, "SLOWEST", 10**12)  # here, received bytes add no time
    with override_settings(TRIO_CHANNELS={"BODY_TIMEOUT": 0.01, "CLOSE_TIMEOUT": 0.01}):
        http = client("/reads/", "POST")
        async with http:
            if first is not None:
                await http.send_input({"type": "http.request", "body": first, "more_body": True})
            http._request_sent = True
            response = await http.get_response(timeout=30)
    assert response["status"] == 408
    assert sent_signals.sent == ["started", "finished"]
    assert "answering 408" in caplog.text


async def test_refused_client_is_read_so_that_the_answer_arrives() -> None:
    with override_settings(TRIO_CHANNELS={"MAX_UPLOAD_SIZE": 10}):
        http = client("/reads/", "POST")
        async with http:
            await http.send_input({"type": "http.request", "body": b"x" * 20, "more_body": True})
            assert (await http.receive_output(timeout=30))["status"] == 413
            await http.receive_output(timeout=30)
            for _ in range(100):
                await http.send_input({"type": "http.request", "body": b"x" * 20, "more_body": True})
            await http.send_input({"type": "http.request", "body": b"", "more_body": False})
            await http.wait(timeout=30)
            assert http._from_application.statistics().current_buffer_used == 0
            assert http._to_application.statistics().current_buffer_used == 1  # the disconnect


async def test_body_on_disk_is_read_by_the_view() -> None:
    with override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=10):
        http = client("/reads/", "POST", headers=[(b"content-length", b"60")])
        async with http:
            for more in (True, True, False):
                await http.send_input({"type": "http.request", "body": b"x" * 20, "more_body": more})
            http._request_sent = True
            assert (await http.get_response(timeout=30))["body"] == b"60"


@pytest.mark.parametrize("most", [0, 1, 30])
async def test_long_body_is_not_kept_in_memory(most: int) -> None:
    with (
        override_settings(FILE_UPLOAD_MAX_MEMORY_SIZE=most),
        await request_body.read_body(
            _client.Client({"type": "http"}, trickle(0.0, 20, 3), nowhere), 1_000, 60.0
        ) as body,
    ):
        assert body._rolled  # type: ignore[attr-defined]
        assert len(body.read()) == 60


# -- threads ----------------------------------------------------------------------------------------------------------


async def test_request_beyond_the_queue_is_answered_with_503(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1, "WORKER_QUEUE": 0}):
        async with client("/waits/") as first:
            await first.send_request()
            await until(lambda: notes)
            second = await fetch("/quick/")
            assert (second["status"], second["body"]) == (503, b"The server is busy.\n")
            gate.set()
            assert (await first.get_response(timeout=30))["status"] == 200
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.messages[0].endswith("find the slow calls, or raise WORKER_THREADS: answering 503")


async def test_response_that_has_begun_is_not_answered_a_second_time() -> None:
    async with client("/busy/") as http:
        await http.send_request()
        assert (await http.receive_output(timeout=30))["status"] == 200
        assert (await http.receive_output(timeout=30))["body"] == b"x"
        with pytest.raises(WorkerPoolBusy):
            await http.wait(timeout=30)


class SlowClient:
    """Takes the headers, and nothing else."""

    def __init__(self) -> None:
        self.took: list[str] = []
        self.full = trio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.took:
            await trio.sleep_forever()
        self.took.append("request")
        return {"type": "http.request"}

    async def send(self, message: dict[str, Any]) -> None:
        self.took.append(message["type"])
        if message["type"] == "http.response.body":
            self.full.set()
            await trio.sleep_forever()


def scope_of(where: str) -> dict[str, Any]:
    return dict(client(where).scope)


@pytest.mark.parametrize("where", ["/file/", "/async_stream/"])
async def test_slow_client_of_a_file_or_an_async_stream_holds_no_thread(where: str, sent_signals: Signals) -> None:
    with override_settings(TRIO_CHANNELS=NEUTRAL | {"WORKER_THREADS": 1}):
        async with trio.open_nursery() as nursery:
            slow = SlowClient()
            nursery.start_soon(DjangoHandler(), scope_of(where), slow.receive, slow.send)
            await slow.full.wait()
            assert thread_pool().statistics().leased == 0
            assert (await fetch("/quick/"))["status"] == 200
            nursery.cancel_scope.cancel()
    assert sent_signals.sent.count("finished") == 2


async def test_slow_client_of_a_stream_that_holds_a_thread_is_cut(
    sent_signals: Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1, "SEND_TIMEOUT": 0.01}):
        slow = SlowClient()
        await DjangoHandler()(scope_of("/stream/"), slow.receive, slow.send)
        assert thread_pool().statistics().leased == 0
    assert notes == ["closed"]
    assert sent_signals.sent == ["started", "finished"]
    (message,) = caplog.messages
    assert message.startswith("cutting http /stream/: the client took nothing for 0.01 seconds (SEND_TIMEOUT)")


# -- clients that leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/quick/", "/file/", "/stream/", "/async_stream/"])
@pytest.mark.parametrize("at", [0, 1])
async def test_server_that_reports_a_gone_client_ends_the_request(where: str, at: int, sent_signals: Signals) -> None:
    asked = sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked > 1:
            await trio.sleep_forever()
        return {"type": "http.request"}

    async def send(_message: Any) -> None:
        nonlocal sent
        if sent == at:
            raise BrokenPipeError
        sent += 1

    with trio.fail_after(30):
        await DjangoHandler()(scope_of(where), receive, send)
    assert sent == at
    assert sent_signals.sent == ["started", "finished"]


@pytest.mark.parametrize("where", ["/stream/", "/async_stream/"])
async def test_endless_stream_to_a_silent_server_ends(where: str) -> None:
    """As with hypercorn, the server's send neither waits nor raises."""
    events: list[dict[str, Any]] = [{"type": "http.request"}]
    sent = 0

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop()
        while sent < 100:
            await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None:
        nonlocal sent
        sent += 1

    with trio.fail_after(30):
        await DjangoHandler()(scope_of(where), receive, send)
    assert notes == ["closed"]


# -- sizes ------------------------------------------------------------------------------------------------------------


async def test_headers_of_100_kb_go_both_ways() -> None:
    response = await fetch("/large_header/", headers=[(b"x-large", b"z" * 100_000)])
    assert header(response, "X-Length") == b"100000"
    assert header(response, "X-Large") == b"y" * 100_000


@pytest.mark.parametrize("where", ["/file/", "/stream/", "/async_stream/"])
async def test_what_answers_head_is_not_read(where: str, sent_signals: Signals) -> None:
    async with HttpCommunicator(DjangoHandler(), "HEAD", where) as http:
        response = await http.get_response(timeout=30)
    assert (response["status"], response["body"]) == (200, b"")
    assert sent_signals.sent == ["started", "finished"]


# -- the client -------------------------------------------------------------------------------------------------------


async def test_nothing_is_begun_for_a_client_that_has_left() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def begin() -> None:
        raise AssertionError("begun")

    async def send(message: Any) -> None:
        raise AssertionError(message)

    client = _client.Client({"type": "http", "method": "GET", "path": "/a/"}, receive, send)
    assert "gone" not in repr(client)
    with pytest.raises(_client.ClientLeft):
        await client.next_part()
    assert repr(client).endswith(", gone>")
    assert "/a/" in repr(client)
    with pytest.raises(_client.ClientLeft):
        await client.while_there(begin)
