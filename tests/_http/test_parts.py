"""Streams of synchronous iterators: the thread runs ahead of the client, but not far, and ends with it."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from trio.testing import MockClock

from tests.server.clients import read_until, serving_ours
from trio_channels._http.client import Client, ClientLeft
from trio_channels._http.handler import DjangoHandler
from trio_channels._http.parts import AHEAD, JOINED, LEAST, Parts
from trio_channels._http.response import _Hurried
from trio_channels._threads.database import run_in_thread, thread_pool
from trio_channels.server import transport

from .common import Signals, client, until

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class Stage:
    """The iterator that the view streams, and a record of its work."""

    def __init__(self) -> None:
        self.parts: Callable[[], Iterator[str | bytes]] = lambda: iter(())
        self.made = 0
        self.notes: list[object] = []
        self.gate = threading.Event()

    def counted(self, parts: Iterator[bytes]) -> Iterator[bytes]:
        for part in parts:
            self.made += 1
            yield part


stage = Stage()


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(stage.parts())


urlpatterns = [path("stream/", stream)]


@pytest.fixture(autouse=True)
def new_stage() -> Iterator[None]:
    stage.__init__()  # type: ignore[misc]
    yield
    stage.gate.set()


def forever(size: int) -> Iterator[bytes]:
    while True:
        yield bytes(size)


def each(send: Callable[[bytes], Awaitable[None]]) -> Callable[[list[bytes]], Awaitable[None]]:
    """A sender of lists of parts, that sends each part."""

    async def send_parts(parts: list[bytes]) -> None:
        for part in parts:
            await send(part)

    return send_parts


async def sent_of(parts: Iterator[bytes], joined: int = 0) -> list[bytes]:
    sent: list[bytes] = []

    async def send(part: bytes) -> None:
        sent.append(part)

    await Parts(parts, run_in_thread, joined, bool).send(each(send))
    return sent


# -- sent parts -------------------------------------------------------------------------------------------------------

MIXED = [b"a", b"", b"b" * JOINED, b"c", b"d" * (JOINED - 1), b"e" * AHEAD * 2, b"", b"f", b"g"]


async def test_each_part_is_sent_alone_to_other_servers() -> None:
    assert await sent_of(iter(MIXED)) == [part for part in MIXED if part]


async def test_parts_go_together_up_to_a_size() -> None:
    together = [MIXED[0], MIXED[2], MIXED[3] + MIXED[4], MIXED[5], MIXED[7] + MIXED[8]]
    sent = await sent_of(iter(MIXED), JOINED)
    assert b"".join(sent) == b"".join(MIXED)
    assert all(len(part) <= JOINED or part in MIXED for part in sent)
    assert len(sent) >= len(together)


@pytest.mark.parametrize("size", [1, 100, LEAST, 5_000, JOINED, AHEAD + 1])
async def test_stream_arrives_whole_and_in_order(size: int) -> None:
    expected = [bytes([number % 256]) * size for number in range(max(3, min(5_000, 3 * AHEAD // size)))]
    assert b"".join(await sent_of(iter(expected), JOINED)) == b"".join(expected)


# -- when parts are sent ----------------------------------------------------------------------------------------------


async def test_part_does_not_wait_for_the_next() -> None:
    def parts() -> Iterator[bytes]:
        for part in (b"a", b"b"):
            yield part
            stage.notes.append(stage.gate.wait(30))
            stage.gate.clear()

    stage.parts = parts
    async with client("/stream/") as http:
        await http.send_request()
        await http.receive_output()
        for part in (b"a", b"b"):
            assert (await http.receive_output())["body"] == part
            stage.gate.set()
        assert (await http.receive_output()).get("body", b"") == b""
        await http.wait()
    assert stage.notes == [True, True]


async def test_part_that_comes_late_is_sent_at_once() -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(30_000):
            if late._wanted or stage.gate.wait(0.001):
                break
        yield b"a"
        stage.notes.append(stage.gate.wait(30))

    async def send(part: bytes) -> None:
        stage.gate.set()

    late = Parts(parts(), run_in_thread, JOINED, bool)
    await late.send(each(send))
    assert stage.notes == [True]


async def test_long_stream_makes_few_calls_to_the_thread() -> None:
    stage.parts = lambda: iter([bytes(JOINED)] * 256)
    async with client("/stream/") as http:
        response = await http.get_response()
    assert len(response["body"]) == 256 * JOINED
    assert thread_pool().statistics().calls <= 256 * JOINED // AHEAD + 5


async def test_rows_are_few_writes_of_our_server(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = count_writes(monkeypatch)
    stage.parts = lambda: (b"%09d\n" % number for number in range(2_000))
    async with serving_ours(DjangoHandler()) as server, await server.connect() as connection:
        await connection.send_all(b"GET /stream/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(connection, b"000001999\n\r\n0\r\n\r\n")
    assert len(writes) <= 100


def count_writes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The server's writes, one item a system call."""
    noted: list[object] = []
    for name in ("write_socket", "write_parts"):
        real = getattr(transport, name)

        def counted(number: int, data: object, real: Any = real) -> Any:
            noted.append(data)
            return real(number, data)

        monkeypatch.setattr(transport, name, counted)
    return noted


async def test_large_parts_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    writes = count_writes(monkeypatch)
    stage.parts = lambda: iter([bytes(40_000)] * 20 + [b"the end"])  # two are too long to be joined
    async with serving_ours(DjangoHandler()) as server, await server.connect() as connection:
        await connection.send_all(b"GET /stream/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await read_until(connection, b"the end\r\n0\r\n\r\n")
    assert any(len(data) > 5 for data in writes if isinstance(data, list))


# -- how far ahead ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, LEAST, JOINED, AHEAD * 2])
async def test_slow_client_stops_the_iterator(size: int) -> None:
    counts_as = max(size, LEAST)
    blocked = trio.Event()

    async def send(part: bytes) -> None:
        blocked.set()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Parts(stage.counted(forever(size)), run_in_thread, JOINED, bool).send, each(send))
        await blocked.wait()
        await until(lambda: thread_pool().statistics().leased == 0)
        await trio.testing.wait_all_tasks_blocked()
        await until(lambda: thread_pool().statistics().leased == 0)
        assert AHEAD <= stage.made * counts_as <= AHEAD + 2 * counts_as
        nursery.cancel_scope.cancel()


# -- how it ends ------------------------------------------------------------------------------------------------------


async def test_iterator_makes_no_more_for_a_client_that_left(sent_signals: Signals) -> None:
    def parts() -> Iterator[bytes]:
        try:
            yield b"a"
            stage.gate.wait(30)
            for part in forever(1):
                stage.made += 1
                yield part
        finally:
            stage.notes.append("closed")

    stage.parts = parts
    async with client("/stream/") as http:
        await http.send_request()
        await http.receive_output()
        assert (await http.receive_output())["body"] == b"a"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.disconnect)
            await trio.testing.wait_all_tasks_blocked()
            stage.gate.set()
    assert (stage.made, stage.notes) == (1, ["closed"])
    assert sent_signals.sent == ["started", "finished"]


async def test_iterator_of_nothing_ends_with_its_client(sent_signals: Signals) -> None:
    stage.parts = lambda: stage.counted(forever(0))
    async with client("/stream/") as http:
        await http.send_request()
        await http.receive_output()
        await until(lambda: stage.made)
        await http.disconnect()
    assert sent_signals.sent == ["started", "finished"]


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
async def test_parts_before_a_failure_are_sent(kind: type[BaseException]) -> None:
    def parts() -> Iterator[bytes]:
        yield from [b"a", b"b"]
        raise kind("in the stream")

    sent: list[bytes] = []

    async def send(part: bytes) -> None:
        await trio.testing.wait_all_tasks_blocked()
        sent.append(part)

    with pytest.raises(kind, match="in the stream"):
        await Parts(parts(), run_in_thread, 0, bool).send(each(send))
    assert sent == [b"a", b"b"]


async def test_failure_of_the_sender_is_raised_bare() -> None:
    async def send(part: bytes) -> None:
        raise ClientLeft

    with pytest.raises(ClientLeft):
        await Parts(stage.counted(forever(JOINED)), run_in_thread, 0, bool).send(each(send))
    assert stage.made <= AHEAD // JOINED + 1


@pytest.mark.parametrize("cancelled", [True, False])
async def test_failure_of_the_iterator_counts_more(cancelled: bool) -> None:
    def parts() -> Iterator[bytes]:
        yield b"a"
        stage.gate.wait(30)
        raise LookupError("in the stream")

    async def send(part: bytes) -> None:
        if cancelled:
            scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
            raise ClientLeft
        finally:
            stage.gate.set()

    with pytest.raises(LookupError, match="in the stream"), trio.CancelScope() as scope:
        await Parts(parts(), run_in_thread, 0, bool).send(each(send))


async def test_failure_of_the_iterator_is_not_replaced() -> None:
    def parts() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("in the stream")

    async def send(part: bytes) -> None:
        await until(lambda: failing._over)
        raise ClientLeft

    failing = Parts(parts(), run_in_thread, 0, bool)
    with pytest.raises(LookupError, match="in the stream"):
        await failing.send(each(send))


async def test_stream_keeps_its_context() -> None:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            assert variable.get() == number
            variable.set(number + 1)
            yield bytes(AHEAD)

    assert len(await sent_of(parts())) == 3
    assert variable.get() == 3


async def test_failed_stream_leaves_nothing_to_the_collector() -> None:
    class Failed(Exception):
        """An exception that allows weak references."""

    def parts() -> Iterator[bytes]:
        yield b"a"
        raise Failed

    gc.disable()
    try:
        try:
            await sent_of(parts())
        except Failed as error:
            failure = weakref.ref(error)
        await until(lambda: failure() is None)  # the thread may be about to drop it
    finally:
        gc.enable()


# -- clients that take nothing ----------------------------------------------------------------------------------------


class HoldsThread:
    lease: object = object()


async def hurry(thread: Any, nothing_for: float, *, rests: bool) -> None:
    async def receive() -> Any:
        raise AssertionError("not called")

    async def send(_message: Any) -> None:
        if not rests:
            await trio.sleep(nothing_for)

    slow = Client({"type": "http", "method": "GET", "path": "/a/"}, receive, send)
    slow.answered = True
    with _Hurried(slow, thread, 8) as hurried:
        await hurried.send(b"a")
        if rests:
            hurried.rest()
            await trio.sleep(nothing_for)
        await hurried.send(b"b")


async def test_slow_iterator_is_no_slow_client(autojump_clock: MockClock) -> None:
    await hurry(HoldsThread(), 1_000, rests=True)


async def test_each_part_has_its_time(autojump_clock: MockClock) -> None:
    await hurry(HoldsThread(), 7.9, rests=False)


async def test_client_that_takes_nothing_is_cut(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ClientLeft):
        await hurry(HoldsThread(), 9.1, rests=False)
    assert len(caplog.messages) == 1


async def test_client_may_be_slow_if_no_thread_is_held(autojump_clock: MockClock) -> None:
    thread = HoldsThread()
    thread.lease = None
    await hurry(thread, 1_000, rests=False)
