"""For each way to vanish, last bytes and state of the application: the application is told, and nothing stays."""

from __future__ import annotations

import itertools
import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest
import trio
import trio.testing
from hypercorn.events import Closed
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState
from hypercorn.utils import UnexpectedMessageError

from trio_channels.server import statistics
from trio_channels.server.http1 import Http1
from trio_channels.server.http2 import Http2
from trio_channels.server.streams import HttpStream, Streams
from trio_channels.server.tasks import ClientGone
from trio_channels.server.websocket import WebSocketStream

from ..certificate import make_certificate
from .clients import HANDSHAKE, OURS, Server, config_for_tests, serving_ours
from .vanishing import FRAMES, PLACES, REQUESTS, REQUESTS_2, WAYS, Client, Notes, Place, post_and_reset
from .vanishing_direct import AsyncConsumers, Endpoints, SyncConsumers

Log = pytest.LogCaptureFixture
Way = Callable[[Client], None]

#: Runs of each combination. In half of them the server runs before the client ends, in half it does not.
REPEATS = 2

#: Clients at a time.
CROWD = 40


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Tests wait less: the server looks more often at clients that it does not read. There are threads for all
    handlers: none waits for the threads that slow ones hold."""
    monkeypatch.setattr("trio_channels.server.connection._LOOK_EVERY", 0.05)
    settings.TRIO_CHANNELS = {"WORKER_THREADS": 300}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@asynccontextmanager
async def listening(
    application: Notes, certificate: tuple[Path, Path], folder: Path
) -> AsyncIterator[tuple[Server, dict[str, Place]]]:
    """One server, on a TCP port, on a unix socket, and with TLS."""
    server = Server()
    config = config_for_tests(
        backlog=1000,  # clients here block until they are connected
        insecure_bind=["127.0.0.1:0", f"unix:{folder}/socket"],
        certfile=str(certificate[0]),
        keyfile=str(certificate[1]),
    )
    async with trio.open_nursery() as nursery:
        start = partial(OURS, application, config, shutdown_trigger=server.stop.wait)
        tls, server.port = [int(bind.rpartition(":")[2]) for bind in (await nursery.start(start))[:2]]
        context = ssl.create_default_context(cafile=str(certificate[0]))
        yield (
            server,
            {
                "TCP": Place(("127.0.0.1", server.port)),
                "unix": Place(f"{folder}/socket"),
                "TLS": Place(("127.0.0.1", tls), context),
            },
        )
        server.stop.set()


async def everything_ends(application: Notes, tasks: int) -> None:
    """Wait until there are no instance, no connection, no stream and no task more than before."""
    with trio.move_on_after(60):
        while _left(application, tasks):
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert _left(application, tasks) == {}
    assert application.told == application.begun


def _left(application: Notes, tasks: int) -> dict[str, Any]:
    now = statistics()
    left: dict[str, Any] = {case: count for case, count in application.alive.items() if count}
    left |= {name: count for name in ("connections", "websockets", "requests") if (count := getattr(now, name))}
    if not left and (more := trio.lowlevel.current_statistics().tasks_living - tasks):
        left["tasks"] = more
    return left


def cases(to: Place, place: str, table: dict[str, Any], times: int = REPEATS) -> list[Any]:
    """The arguments of a scenario, case by case; the target of the requests names the case."""
    return [
        (to, f"{place}?{quote(f'{name}, {way.__name__}')}", last, way, number)
        for (name, last), way, number in itertools.product(table.items(), WAYS, range(times))
    ]


async def run_all(scenario: Callable[..., Any], cases: list[Any]) -> None:
    """Run every case, a crowd at a time."""
    for start in range(0, len(cases), CROWD):
        async with trio.open_nursery() as nursery:
            for case in cases[start : start + CROWD]:
                nursery.start_soon(scenario, *case)


async def let_run(number: int, moments: Random | None) -> None:
    """Let the server run until it is idle, every other time; or, with `moments`, for a random while."""
    if moments is not None:
        for _ in range(moments.choice((0, 1, 2, 3, 5, 8, 13, 21))):
            await trio.lowlevel.checkpoint()
    elif number % 2:
        await trio.testing.wait_all_tasks_blocked()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.testing.wait_all_tasks_blocked(0.01)


async def http_1(to: Place, target: str, last: Any, way: Way, number: int, moments: Random | None = None) -> None:
    client = Client(to)
    await client.shake_hands()
    client.send(last(target.encode()))
    await let_run(number, moments)
    way(client)


async def websocket_1(
    to: Place, target: str, last: bytes, way: Way, number: int, moments: Random | None = None
) -> None:
    client = Client(to)
    await client.shake_hands()
    if target.startswith("unaccepted"):
        client.send(HANDSHAKE % (b"/" + target.encode(), b""))
        await let_run(number, moments)
    else:
        await client.open_websocket(target)
    client.send(last)
    await let_run(number, moments)
    way(client)


async def http_2(to: Place, target: str, last: Any, way: Way, number: int, moments: Random | None = None) -> None:
    client = Client(to)
    await client.shake_hands()
    client.begin_h2()
    await let_run(number, moments)
    last(client.h2, target.encode())
    client.send(client.h2.data_to_send())
    await let_run(number, moments)
    way(client)


async def websocket_2(
    to: Place, target: str, last: bytes, way: Way, number: int, moments: Random | None = None
) -> None:
    client = Client(to)
    await client.shake_hands()
    client.begin_h2()
    stream = await client.open_websocket_2(target)
    if last:
        client.h2.send_data(stream, last)
    client.h2.ping(bytes(8))
    client.send(client.h2.data_to_send())
    await let_run(number, moments)
    way(client)


def speaks(scenario: Any) -> Any:
    return getattr(scenario, "func", scenario)


async def leave(where: Place, scenario: Any, table: dict[str, Any], application: Notes, times: int = REPEATS) -> None:
    """Every case of a table, in every place: clients vanish, and nothing of them stays."""
    if where.tls is not None:
        where.tls.set_alpn_protocols(["h2" if speaks(scenario) in (http_2, websocket_2) else "http/1.1"])
    await trio.testing.wait_all_tasks_blocked()  # the server accepts
    tasks = trio.lowlevel.current_statistics().tasks_living
    for place in PLACES:
        application.go_on = trio.Event()
        await run_all(scenario, cases(where, place, table, times))
        await trio.testing.wait_all_tasks_blocked()
        application.go_on.set()
        await everything_ends(application, tasks)


BY_SCENARIO = pytest.mark.parametrize(
    ("scenario", "table", "make"),
    [
        pytest.param(http_1, REQUESTS, Notes, id="requests"),
        pytest.param(http_2, REQUESTS_2, Notes, id="requests over HTTP/2"),
        *(
            pytest.param(scenario, FRAMES, make, id=f"{name}{version}")
            for scenario, version in ((websocket_1, ""), (websocket_2, " over HTTP/2"))
            for make, name in (
                (Notes, "WebSockets"),
                (AsyncConsumers, "async consumers"),
                (SyncConsumers, "sync consumers"),
                (Endpoints, "endpoints"),
            )
        ),
    ],
)


@pytest.mark.parametrize("where", ["TCP", "unix", "TLS"])
@BY_SCENARIO
async def test_whoever_vanishes_leaves_nothing(
    scenario: Any, table: dict[str, Any], make: Any, where: str, certificate: Any, tmp_path: Path, caplog: Log
) -> None:
    application = make()
    async with listening(application, certificate, tmp_path) as (server, places):
        await leave(places[where], scenario, table, application)
        await server.still_serves()
    assert application.begun
    assert application.ways == ({True} if make is not Notes else set())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.faults
@pytest.mark.time_limit(480)
@BY_SCENARIO
async def test_many_who_vanish_at_random_moments_leave_nothing(
    scenario: Any, table: dict[str, Any], make: Any, certificate: Any, tmp_path: Path, caplog: Log
) -> None:
    application = make()
    async with listening(application, certificate, tmp_path) as (server, places):
        for where in places.values():
            await leave(where, partial(scenario, moments=Random(5)), table, application, 6)
        await server.still_serves()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_they_give_back_their_places(settings: Any) -> None:
    settings.TRIO_CHANNELS = {"MAX_CONNECTIONS": 20}
    application = Notes()
    async with serving_ours(application) as server:
        where = Place(("127.0.0.1", server.port))
        for name, last in FRAMES.items():
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(websocket_1, where, f"waiting?{quote(name)}", last, Client.reset, number)
            await until(lambda: not statistics().connections)
        assert statistics().refused == 0
        await server.still_serves()


async def test_drain_after_them_has_nothing_to_wait_for(clock: trio.testing.MockClock) -> None:
    application = Notes()
    async with serving_ours(application, graceful_timeout=10_000.0, backlog=1000) as server:
        where = Place(("127.0.0.1", server.port))
        await run_all(websocket_1, cases(where, "waiting", FRAMES))
        await run_all(http_2, cases(where, "waiting", REQUESTS_2))
        server.stop.set()
        await server.died.wait()
        assert trio.current_time() < 1_000  # the grace has not been used
    assert application.told == application.begun


async def test_each_websocket_has_its_two_lines_in_the_log(certificate: Any, tmp_path: Path, caplog: Log) -> None:
    application = Notes()
    with caplog.at_level(logging.INFO, "trio_channels.access"):
        async with listening(application, certificate, tmp_path) as (_, places):
            for scenario in (websocket_1, websocket_2):
                await run_all(scenario, cases(places["TCP"], "waiting", FRAMES))
            await until(lambda: not statistics().connections)
    lines = [record.getMessage() for record in caplog.records if record.name == "trio_channels.access"]
    ends = [line for line in lines if re.search(r'" 1\d\d\d ', line)]
    assert len(lines) == 2 * len(ends) == 2 * application.begun.total()


@pytest.mark.parametrize("protocol", [Http1, Http2])
async def test_end_does_not_depend_on_the_protocol_to_tell_it(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = protocol.handle

    async def loses_the_end(self: Any, event: Any) -> None:
        if not isinstance(event, Closed):
            await handle(self, event)

    monkeypatch.setattr(protocol, "handle", loses_the_end)
    application = Notes()
    scenario, table = (http_1, REQUESTS) if protocol is Http1 else (http_2, REQUESTS_2)
    async with serving_ours(application) as server:
        await scenario(Place(("127.0.0.1", server.port)), "waiting", table["a request"], Client.finish, 1)
        await until(lambda: application.told)
        server.stop.set()


@pytest.mark.parametrize(
    ("kind", "scenario", "last"),
    [
        (WebSocketStream, websocket_1, FRAMES["a close"]),
        (HttpStream, http_2, REQUESTS_2["a POST, a ping and a reset"]),
    ],
    ids=["WebSocket", "request"],
)
async def test_application_is_told_before_any_checkpoint(
    kind: Any, scenario: Any, last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = kind.handle
    told: list[bool] = []

    async def in_a_cancelled_scope(self: Any, event: Any) -> None:
        if not isinstance(event, StreamClosed):
            await handle(self, event)
            return
        with trio.CancelScope() as scope:
            scope.cancel()
            await handle(self, event)
        told.append(self.closed)

    async def log_end(self: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def tells_nobody(self: Any) -> None:
        """Replaces the connection's own call, which would hide that the stream has told no application."""

    monkeypatch.setattr(kind, "handle", in_a_cancelled_scope)
    monkeypatch.setattr(kind, "log_end", log_end)
    monkeypatch.setattr(Streams, "hang_up", tells_nobody)
    application = Notes()
    async with serving_ours(application) as server:
        await scenario(Place(("127.0.0.1", server.port)), "waiting", last, Client.reset, 1)
        await until(lambda: told and application.told == application.begun)
        server.stop.set()
    assert all(told)


@pytest.mark.parametrize(
    ("scenario", "last"),
    [(http_2, post_and_reset), (websocket_2, FRAMES["a close"])],
    ids=["request", "WebSocket"],
)
async def test_connection_forgets_what_has_ended_on_it(
    scenario: Any, last: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Streams] = []

    class Noted(Streams):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    def stays(client: Client) -> None:
        clients.append(client)

    clients: list[Client] = []
    monkeypatch.setattr("trio_channels.server.connection.Streams", Noted)
    application = Notes()
    async with serving_ours(application) as server:
        await scenario(Place(("127.0.0.1", server.port)), "waiting", last, stays, 1)
        await until(lambda: application.begun and application.told == application.begun)
        assert [streams._open for streams in made] == [[]], "the connection itself goes on"
        clients[0].socket.close()
        server.stop.set()


def test_nothing_begins_on_a_connection_that_has_ended() -> None:
    streams, stream = Streams(), Mock(spec=HttpStream)
    assert streams.enter(stream)
    trio.run(streams.hang_up)
    stream.hang_up.assert_called_once_with()
    late = Mock(spec=HttpStream)
    assert not streams.enter(late)
    trio.run(streams.hang_up)
    late.hang_up.assert_not_called()


@pytest.mark.parametrize("kind", [HttpStream, WebSocketStream])
def test_stream_of_a_connection_that_has_ended_is_closed(kind: Any) -> None:
    wire = Mock(streams=Streams(), limits=Mock(messages_per_second=1.0))
    arguments = (wire, Mock(), 1, Mock())[: 4 if kind is WebSocketStream else 3]
    assert not kind(*arguments).closed
    wire.streams = Streams()
    trio.run(wire.streams.hang_up)
    assert kind(*arguments).closed


@pytest.mark.parametrize("state", [ASGIHTTPState.REQUEST, ASGIHTTPState.RESPONSE, ASGIHTTPState.CLOSED])
def test_end_is_logged_unless_the_response_was_complete(state: ASGIHTTPState) -> None:
    lines: list[Any] = []

    async def access(*line: Any) -> None:
        lines.append(line)

    wire = Mock(streams=Streams(), config=Mock(log=Mock(access=access)))
    stream = HttpStream(wire, Mock(), 1)
    stream.scope, stream.start_time, stream.state = Mock(), 0.0, state
    if state is not ASGIHTTPState.REQUEST:
        stream.response = Mock()
    trio.run(stream.handle, StreamClosed(1))
    assert stream.closed
    known = {ASGIHTTPState.REQUEST: [None], ASGIHTTPState.RESPONSE: [getattr(stream, "response", None)]}
    assert [line[:2] for line in lines] == [(stream.scope, response) for response in known.get(state, [])]


@pytest.mark.parametrize("complete", [True, False])
async def test_send_after_the_end_is_told_unless_the_response_was_complete(complete: bool) -> None:
    wire = Mock(streams=Streams())
    stream = HttpStream(wire, Mock(), 1)
    stream.scope = {"method": "GET"}
    stream.closed = True
    stream.state = ASGIHTTPState.CLOSED if complete else ASGIHTTPState.RESPONSE
    with pytest.raises(UnexpectedMessageError if complete else ClientGone):
        await stream.app_send({"type": "http.response.body", "body": b""})


def test_all_applications_are_told_before_the_log() -> None:
    streams, told = Streams(), []

    async def log_end() -> None:
        assert len(told) == 2

    for name in ("one", "other"):
        streams.enter(Mock(hang_up=lambda name=name: told.append(name) is None, log_end=log_end))
    trio.run(streams.hang_up)
    assert sorted(told) == ["one", "other"]
