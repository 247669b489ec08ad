"""Streams over sockets: HTTP/1.1 and HTTP/2, connections that are cut, servers that end, requests that are hostile."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote

import h2.events
import h11
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing.events import EventParser, ServerSentEvent
from trio_channels.topics import Topic, TopicSocket, event

from ...integration.server.conftest import Server as BaseServer
from ...integration.server.conftest import next_event
from ...server.clients import BARE, OURS, Http2, Server, serving
from .client import NDJSON, STREAM, LongPollClient, open_sessions, reply_of, routed, served, site

JOIN = ["1", "1", "room:a", "phx_join", {}]


class Room(Topic):
    pattern = "room:<slug:name>"

    @event("echo")
    async def echo(self, payload: Any) -> Any:
        return payload


class Socket(TopicSocket):
    topics = [Room]
    channel_layer = InMemoryChannelLayer()
    codes: list[int] = []

    async def disconnect(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture(autouse=True)
def codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Socket, "codes", [])


def application() -> Any:
    return site(routed(Socket.as_asgi()))


async def opened(server: Server) -> str:
    """The path of a session."""
    opened = json.loads((await server.request("GET", "/socket/longpoll?vsn=2.0.0")).body)
    return f"/socket/longpoll?token={quote(opened['token'])}"


async def post(server: Server, path: str, *messages: Any) -> int:
    body = "\n".join(map(json.dumps, messages)).encode()
    status: int = json.loads((await server.request("POST", path, NDJSON, body)).body)["status"]
    return status


@asynccontextmanager
async def streaming(
    server: BaseServer, path: str, last: int = 0
) -> AsyncIterator[AsyncGenerator[ServerSentEvent, None]]:
    """The events of a stream over HTTP/1.1; the end of the block cuts it."""
    stream, parser = await server.send_request("GET", path, [*STREAM, (b"last-event-id", b"%d" % last)])

    async def events() -> AsyncGenerator[ServerSentEvent, None]:
        decoder = EventParser()
        while not isinstance(part := await next_event(stream, parser), h11.EndOfMessage):
            if isinstance(part, h11.Data):
                for each in decoder.feed(bytes(part.data)):
                    yield each

    async with stream, aclosing(events()) as received:
        yield received


@pytest.mark.parametrize("serve", [OURS, BARE], ids=["ours", "hypercorn"])
async def test_connection_that_is_cut(serve: Any) -> None:
    async with serving(serve, application()) as server:
        path = await opened(server)
        await post(server, path, JOIN)
        async with streaming(server, path) as events:
            assert (await anext(events)).id == "1"
        (session,) = open_sessions()._sessions.values()
        while session._poll is not None:  # the server notices it
            await trio.testing.wait_all_tasks_blocked()
        await post(server, path, ["1", "2", "room:a", "echo", 1], ["1", "3", "room:a", "echo", 2])
        async with streaming(server, path, 1) as events:
            assert [(await anext(events)).id for _ in range(2)] == ["2", "3"]
        assert (await server.request("DELETE", path)).status == 200
        while len(open_sessions()):
            await trio.testing.wait_all_tasks_blocked()
    assert Socket.codes == [1000]


async def test_server_that_ends_tells_its_clients() -> None:
    async with serving(OURS, application(), graceful_timeout=30) as server:
        path = await opened(server)
        await post(server, path, JOIN)
        async with streaming(server, path) as events:
            await anext(events)
            server.stop.set()
            end = await anext(events)
            assert (end.event, end.json()["code"]) == ("close", 1012)
            assert [event async for event in events] == []
    assert Socket.codes == [1012]


async def test_stream_over_http2() -> None:
    async with serving(OURS, application()) as server:
        path = await opened(server)
        head = [(b":scheme", b"http"), (b":path", path.encode()), (b":authority", b"localhost")]
        async with await Http2.open(server) as client:
            parser, got = EventParser(), list[ServerSentEvent]()
            stream = await client.request((b":method", b"GET"), *head, *STREAM)
            assert await client.status(stream) == 200

            async def receive() -> ServerSentEvent:
                while not got:
                    data = await client.until(h2.events.DataReceived, stream)
                    got.extend(parser.feed(data.data))
                return got.pop(0)

            for number, frame in enumerate([JOIN, ["1", "2", "room:a", "echo", "x" * 30_000]], 1):
                posting = await client.request((b":method", b"POST"), *head, *NDJSON, end=False)
                body = json.dumps(frame).encode()
                for start in range(0, len(body), 16_000):
                    client.h2.send_data(posting, body[start : start + 16_000])
                    await client.flush()
                client.h2.send_data(posting, b"", end_stream=True)
                await client.flush()
                assert await client.status(posting) == 200
                assert (await receive()).id == str(number)
            client.h2.reset_stream(stream)
            await client.flush()
            (session,) = open_sessions()._sessions.values()
            while session._poll is not None:
                await trio.testing.wait_all_tasks_blocked()


# -- hostile requests -------------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(-2, 10).map(lambda n: b"%d" % n), st.binary(max_size=20))
headers = st.lists(st.tuples(st.sampled_from([b"last-event-id", b"x-message-number", b"accept"]), numbers), max_size=3)
requests = st.tuples(
    st.sampled_from(["GET", "POST", "DELETE", "OPTIONS"]), st.booleans(), headers, st.binary(max_size=30)
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(requests, max_size=8))
def test_any_request_is_answered(caplog: pytest.LogCaptureFixture, asked: list[Any]) -> None:
    async def exchange() -> None:
        async with served(routed(Socket.as_asgi())) as application:
            client = LongPollClient(application)
            await client.open()
            await client.post(JOIN)
            for method, streams, given, body in asked:
                async with client.request(method, body, [*(STREAM if streams else ()), *given, *NDJSON]) as request:
                    start = await request.get_response_start()
                    if dict(start["headers"])[b"content-type"] == b"text/event-stream":
                        await request.receive_body()
                        await request.disconnect()
                    else:
                        reply = await reply_of(request)
                        assert (reply.http, reply.status) in {(204, None), *((200, n) for n in (200, 204, 400, 410))}
            await client.ask("DELETE")
            for session in list(open_sessions()._sessions.values()):
                session.vanish("the test ends")
            await trio.testing.wait_all_tasks_blocked()

    caplog.set_level(logging.WARNING)
    trio.run(exchange, clock=trio.testing.MockClock(autojump_threshold=0.01))
    assert caplog.records == []
