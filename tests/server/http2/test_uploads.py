"""Request bodies over HTTP/2: windows hold a client back, and nothing else does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes

from trio_channels.asgi import get_asgi_application
from trio_channels.generic.http import AsyncHttpConsumer
from trio_channels.routing import ProtocolTypeRouter
from trio_channels.server import statistics
from trio_channels.server.connection import ServerConnection
from trio_channels.server.http2.uploads import (
    CONNECTION_WINDOW,
    MOST_DROPPED,
    WIDE_STREAMS,
    WIDE_WINDOW,
    WINDOW,
    BodyInbox,
    Inflow,
)
from trio_channels.server.run import _servers

from .raw import END_STREAM, WINDOW_UPDATE, Reads, headers, post, raw

MIB = 2**20


class TakesLater(Reads):
    """Reads a body when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await self.go_on.wait()
        await super().http(scope, receive, send)


class TakesOnePart(Reads):
    """Reads a part of the body, and then nothing."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append(await receive())
        await trio.sleep_forever()


async def test_upload_takes_few_window_updates_and_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    receive = ServerConnection._receive

    async def counted(connection: ServerConnection) -> bytes:
        nonlocal reads
        reads += 1
        return await receive(connection)

    monkeypatch.setattr(ServerConnection, "_receive", counted)
    application = Reads()
    async with raw(application) as client:
        await client.send(post())
        await client.upload(1, 8 * MIB)
        assert await client.answer(1) == 200
        assert client.bodies[1] == b"%d" % (8 * MIB)
    assert application.events[0]["parts"] <= reads
    assert client.count(WINDOW_UPDATE) <= 8 * 8


@pytest.mark.parametrize("padding", [None, 0, 255])
async def test_padding_is_given_back(padding: int | None) -> None:
    async with raw(Reads()) as client:
        await client.send(post())
        await client.upload(1, 2 * MIB, padding)
        assert await client.answer(1) == 200


async def test_body_after_an_early_answer_is_dropped() -> None:
    async with raw() as client:
        await client.send(post())
        assert await client.answer(1) == 200
        await client.upload(1, MOST_DROPPED)
        assert await client.get(3) == 200
    assert client.resets == {}


async def test_client_is_told_to_stop_a_body_after_an_early_answer() -> None:
    async with raw() as client:
        await client.send(post())
        assert await client.answer(1) == 200
        while not client.resets:
            await client.data(1, bytes(16_384))
            await client.lives()
        assert client.resets == {1: ErrorCodes.NO_ERROR}
        await client.data(1, bytes(100))
        assert await client.get(3) == 200


async def test_slow_application_holds_back_only_its_client() -> None:
    application = TakesLater()
    async with raw(application) as client:
        await client.send(post())
        await client.fill(1)
        assert await client.get(3) == 200
        assert (client.window(1), client.window(0)) == (0, CONNECTION_WINDOW - WINDOW)
        application.go_on.set()
        await client.upload(1, 100_000)
        assert await client.answer(1) == 200
    assert application.events[-1]["size"] == WINDOW + 100_000


async def test_bytes_held_for_a_connection_are_bounded() -> None:
    application = TakesOnePart()
    async with raw(application) as client:
        streams = range(1, 199, 2)  # as many as may be open, but one
        for stream in streams:
            await client.send(post(stream))
            await client.data(stream, bytes(16_384))
            await client.data(stream, bytes(16_384))
            assert await client.lives()
        sent = 0
        for stream in streams:
            before = client.window(stream)
            while client.window(stream):
                assert await client.until(lambda: client.window(0))
                await client.data(stream, bytes(min(16_384, client.window(stream), client.window(0))))
            sent += before
        assert await client.lives()
        assert not any(client.window(stream) for stream in streams)
    assert sent <= WIDE_STREAMS * WIDE_WINDOW + len(streams) * WINDOW


async def test_stream_that_ends_leaves_its_wide_window_to_others() -> None:
    async with raw(Reads()) as client:
        for stream in range(1, 4 * WIDE_STREAMS, 2):
            await client.send(post(stream))
            await client.upload(stream, WIDE_WINDOW)
            assert await client.answer(stream) == 200
            assert max(int.from_bytes(f.payload) for f in client.seen if f.stream == stream and f.kind == 8) > WINDOW


# -- Expect: 100-continue ---------------------------------------------------------------------------------------------

EXPECT = ("expect", "100-continue")


async def test_client_is_told_to_continue_when_the_body_is_wanted() -> None:
    application = TakesLater()
    async with raw(application) as client:
        await client.send(post(1, EXPECT))
        assert await client.lives()
        assert client.statuses == {}
        application.go_on.set()
        assert await client.until(lambda: client.statuses)
        assert client.statuses == {1: [100]}
        await client.upload(1, 5)
        assert await client.answer(1) == 200
        assert client.statuses == {1: [100, 200]}


class Refuses(Reads):
    """Refuses the body, then reads the rest of it."""

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await receive()
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("application", "head", "part", "statuses"),
    [
        (Refuses, post(1, EXPECT), b"x", [413]),
        (Reads, post(1), b"x", [200]),
        (Reads, post(1, ("expect", "something else")), b"x", [200]),
        (Reads, headers(1), b"", [200]),
    ],
    ids=["the response has begun", "nothing is expected", "something else is expected", "there is no body"],
)
async def test_client_is_not_told_to_continue_when(
    application: Callable[[], Reads], head: bytes, part: bytes, statuses: list[int]
) -> None:
    async with raw(application()) as client:
        await client.send(head)
        assert await client.lives()
        if part:
            await client.data(1, part, END_STREAM)
        await client.answer(1)
        assert client.statuses == {1: statuses}


async def test_body_that_came_unasked_is_not_asked_for() -> None:
    application = TakesLater()
    async with raw(application) as client:
        await client.send(post(1, EXPECT))
        await client.upload(1, 5)
        assert await client.lives()
        application.go_on.set()
        assert await client.answer(1) == 200
        assert client.statuses == {1: [200]}


class Small(AsyncHttpConsumer):
    max_body_size = 10


@pytest.mark.parametrize("application", [Small.as_asgi, get_asgi_application], ids=["consumer", "Django"])
@pytest.mark.parametrize("more", [(), (EXPECT,)], ids=["plain", "Expect"])
async def test_body_announced_as_too_long_is_413_before_it_comes(
    application: Callable[[], Any], more: tuple[tuple[str, str], ...], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.TRIO_CHANNELS = {"MAX_UPLOAD_SIZE": 10}
    caplog.set_level(logging.INFO, "trio_channels.access")
    async with raw(ProtocolTypeRouter({"http": application()})) as client:
        await client.send(post(1, ("content-length", "11"), *more))
        assert await client.answer(1) == 413
        assert client.statuses == {1: [413]}
        await client.data(1, bytes(11), END_STREAM)  # it was under way
        assert await client.lives()
        assert statistics().refusals == {413: 1}
    assert sum('"POST / 2" 413 ' in record.getMessage() for record in caplog.records) == 1


# -- deadlines --------------------------------------------------------------------------------------------------------

Clock = trio.testing.MockClock


@pytest.mark.slow
@pytest.mark.time_limit(300)
async def test_slow_application_is_not_its_clients_fault(clock: Clock) -> None:
    class Sleeps(Reads):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            await trio.sleep(1_000)
            await super().http(scope, receive, send)

    application = Sleeps()
    async with raw(application) as client:
        await client.send(post())
        await client.data(1, bytes(10))
        await client.fill(1)
        await trio.sleep(1_001)
        await client.upload(1, 10)
        assert await client.answer(1) == 200
    assert statistics().ended == {}


async def test_client_that_drips_is_cut(clock: Clock) -> None:
    async with raw(Reads()) as client:
        await client.send(post())
        with trio.move_on_after(1_000) as patience:
            while not client.goaways:
                await client.data(1, b"x")
                with trio.move_on_after(40):
                    await client.next()
        assert not patience.cancelled_caught
        assert statistics().ended == {"slow request": 1}


async def test_reset_stream_owes_no_body(clock: Clock) -> None:
    class Talks(Reads):
        async def http(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(100_000)})

    async with raw(Talks()) as client:
        await client.send(post())  # neither sends the body nor reads the response
        assert await client.until(lambda: 1 in client.resets)
        assert not await client.until(lambda: False)  # the connection ends, as an idle one
        assert statistics().ended == {"slow": 1}


# -- the parts --------------------------------------------------------------------------------------------------------


async def test_connection_that_was_closed_meanwhile_is_told_nothing() -> None:
    application = TakesLater()
    async with raw(application) as client:
        await client.send(post(1, EXPECT))
        await client.fill(1)
        assert await client.lives()
        (server,) = _servers.get()
        (connection,) = server.connections
        connection.protocol.connection.close_connection()
        connection.protocol.connection.clear_outbound_data_buffer()
        application.go_on.set()  # takes the body
        await trio.testing.wait_all_tasks_blocked()
        connection.protocol.invite(1)
        assert connection.protocol.connection.data_to_send() == b""
    assert statistics().ended == {}


async def test_two_readers_of_one_body_get_it_once() -> None:
    inflow = Inflow(lambda: False, body=True)
    inbox = BodyInbox(inflow, lambda size: None, lambda: None)
    events: list[Any] = []

    async def read() -> None:
        events.append(await inbox.receive())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        inflow.add(b"all")
        inflow.end()
        await trio.testing.wait_all_tasks_blocked()
        assert events == [{"type": "http.request", "body": b"all", "more_body": False}]
        inbox.end({"type": "http.disconnect"})
        inbox.end({"type": "another"})
    assert events[1:] == [{"type": "http.disconnect"}]
    assert await inbox.receive() == {"type": "http.disconnect"}


async def test_bytes_before_a_disconnect_are_delivered() -> None:
    inflow = Inflow(lambda: False, body=True)
    inbox = BodyInbox(inflow, lambda size: None, lambda: None)
    inflow.add(b"half")
    inbox.end({"type": "http.disconnect"})
    assert await inbox.receive() == {"type": "http.request", "body": b"half", "more_body": True}
    assert await inbox.receive() == {"type": "http.disconnect"}


async def test_cancelled_receive_loses_nothing() -> None:
    inflow = Inflow(lambda: False, body=True)
    inbox = BodyInbox(inflow, lambda size: None, lambda: None)
    inflow.add(b"half")
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.receive()
    assert scope.cancelled_caught
    assert (await inbox.receive())["body"] == b"half"
