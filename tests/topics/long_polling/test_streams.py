"""Sessions that are streamed: the response, streams that are cut and taken up again, numbered posts, ends."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
import trio
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_channels._connection import lasting
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.topics import Topic, TopicSocket, event
from trio_channels.topics.long_polling.batches import event_of
from trio_channels.topics.long_polling.session import Session

from ...layers.test_contract import cancelled_at_checkpoint
from .client import NDJSON, STREAM, LongPollClient, StreamClient, end_of, open_sessions, reply_of, routed, served

JOIN = ["1", "1", "room:a", "phx_join", {}]
JOINED = ["1", "1", "room:a", "phx_reply", {"status": "ok", "response": {}}]


class Room(Topic):
    pattern = "room:<slug:name>"
    handled: list[Any] = []

    @event("many")
    async def many(self, payload: int) -> None:
        for number in range(payload):
            await self.push("one", {"n": number, "text": "x" * 100})

    @event("bytes")
    async def bytes(self, payload: Any) -> None:
        await self.push("bytes", b"\x00\xff")

    @event("note")
    async def note(self, payload: Any) -> None:
        self.handled.append(payload)

    @event("close")
    async def close(self, payload: Any) -> None:
        await self.push("last", {})
        await self.socket.close(4003, "as you wish")


class Socket(TopicSocket):
    topics = [Room]
    channel_layer = InMemoryChannelLayer()
    codes: list[int] = []

    async def disconnect(self, code: int) -> None:
        self.codes.append(code)


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "handled", [])
    monkeypatch.setattr(Socket, "codes", [])


@pytest.fixture
async def application() -> Any:
    async with served(routed(Socket.as_asgi())) as application:
        yield application
        for session in list(open_sessions()._sessions.values()):
            session.vanish("the test ends")
        await wait_all_tasks_blocked()


async def joined(application: Any) -> StreamClient:
    client = StreamClient(application)
    await client.open()
    await client.post_numbered(JOIN)
    return client


@pytest.fixture
async def client(application: Any) -> StreamClient:
    return await joined(application)


def push(name: str, payload: Any, ref: str | None = None) -> list[Any]:
    return ["1", ref, "room:a", name, payload]


def only_session() -> Session:
    (session,) = open_sessions()._sessions.values()
    return session


# -- the response -----------------------------------------------------------------------------------------------------


async def test_messages_come_as_they_are_sent(client: StreamClient) -> None:
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        for number in range(3):
            await client.post_numbered(push("many", 1))
            assert (await client.next_frame(stream))[4]["n"] == 0
            assert client.received == number + 2


async def test_head_of_a_stream(client: StreamClient) -> None:
    accept = [(b"accept", b"text/html, text/event-stream;q=0.9")]
    async with client.request("GET", headers=accept) as stream:
        start = await stream.get_response_start()
        headers = dict(start["headers"])
        assert (start["status"], headers[b"content-type"]) == (200, b"text/event-stream")
        assert headers[b"cache-control"] == b"no-store, no-transform"
        assert headers[b"x-accel-buffering"] == b"no"
        assert b"access-control-allow-origin" not in headers
        assert await client.next_frame(stream) == JOINED  # without a Last-Event-ID it begins at the first message
        await stream.disconnect()


async def test_stream_begins_at_once(application: Any) -> None:
    client = StreamClient(application)
    await client.open()
    async with client.streaming() as stream:
        assert await stream.receive_body() == b":\n\n"


async def test_binary_frames_stay_binary(client: StreamClient) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        await client.post_numbered(push("bytes", {}))
        assert await client.next_frame(stream) == b"\x00\x01\x06\x051room:abytes\x00\xff"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("[]", "id: 7\ndata: []\n\n"),
        ("[\n1\r\n]\r", "id: 7\ndata: [\ndata: 1\ndata: ]\ndata: \n\n"),
        (b"\x00\xff", "id: 7\nevent: binary\ndata: AP8=\n\n"),
    ],
)
def test_event_of_a_message(data: str | bytes, text: str) -> None:
    assert event_of(7, data) == text


async def test_text_that_is_no_unicode(application: Any) -> None:
    client = StreamClient(application)
    await client.open()
    with pytest.raises(UnicodeEncodeError):  # as over a WebSocket
        await only_session().send({"type": "websocket.send", "text": '["\ud800"]'})


async def test_comments_keep_the_connection_alive(client: StreamClient, autojump_clock: trio.testing.MockClock) -> None:
    client.received = 1
    async with client.streaming(0) as stream:
        await stream.receive_body()
        before = trio.current_time()
        for _ in range(5):
            assert await stream.receive_body() == b":\n\n"
        assert trio.current_time() - before == pytest.approx(50)
    assert Socket.codes == []


# -- streams that are cut ---------------------------------------------------------------------------------------------


async def test_stream_goes_on_behind_the_last_message(client: StreamClient) -> None:
    await client.post_numbered(push("many", 5))
    async with client.streaming() as stream:
        for _ in range(3):
            await client.next_frame(stream)
    async with client.streaming() as stream:
        assert [(await client.next_frame(stream))[4]["n"] for _ in range(3)] == [2, 3, 4]


@pytest.mark.parametrize("last", [b"7", b"-1", b"x", b"1" * 50, b"1.0", b" 1"])
async def test_message_that_was_never_sent(client: StreamClient, last: bytes) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
    async with client.streaming(last) as stream:
        assert (await reply_of(stream)).status == 410
    await wait_all_tasks_blocked()
    assert Socket.codes == [1006]


async def test_stream_cannot_go_on_where_messages_are_gone(application: Any) -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 1_000}):
        client = await joined(application)
        async with client.streaming() as stream:
            await client.next_frame(stream)
            for _ in range(20):
                await client.post_numbered(push("many", 1))
                await stream.receive_event()
            assert only_session()._outgoing.size <= 1_000
        async with client.streaming() as stream:
            assert (await reply_of(stream)).status == 410
    await wait_all_tasks_blocked()
    assert Socket.codes == [1006]


async def test_message_that_comes_while_a_stream_begins(application: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 100}):
        await joined(application)
        session = only_session()
        first = await session.read(0, 0, 0)

        async def wait(seconds: float) -> bool:
            await session.send({"type": "websocket.send", "text": "x" * 90})
            return True

        monkeypatch.setattr(session, "_wait", wait)
        again = await session.read(0, 0, 0)
    assert (again.messages, again.last) == ([*first.messages, "x" * 90], 2)


async def test_post_acknowledges_messages(client: StreamClient) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        await client.post_numbered(push("many", 3))
        for _ in range(3):
            await client.next_frame(stream)
        assert len(only_session()._outgoing) == 3
        await client.post_numbered(push("note", 1))
        assert len(only_session()._outgoing) == 0


async def test_newer_stream_ends_the_older(client: StreamClient) -> None:
    async with client.streaming() as older:
        assert await client.next_frame(older) == JOINED
        async with client.streaming() as newer:
            assert await end_of(older) is None
            await client.post_numbered(push("many", 1))
            assert (await client.next_frame(newer))[3] == "one"


async def test_older_stream_that_was_writing_does_not_come_back(client: StreamClient) -> None:
    async with client.streaming() as older:
        assert await client.next_frame(older) == JOINED
        session = only_session()
        assert (await session.read(0, 1, 0)).stream == 2  # a newer stream has begun
        assert await end_of(older) is None
        assert (await session.read(1, 1, 10)).status == 409
        assert (await session.read(2, 1, 0)).status == 204
        await session.poll(0)
        assert (await session.read(2, 1, 0)).status == 409


@override_settings(TRIO_CHANNELS={"LONG_POLL_WINDOW": 3_600.0})
async def test_poll_ends_a_stream_and_a_stream_a_poll(client: StreamClient) -> None:
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        async with client.request("GET") as poll:
            await poll.send_request()
            assert await end_of(stream) is None
            reply = await reply_of(poll)
            assert (reply.status, reply.frames) == (200, [JOINED])  # nobody has acknowledged it
    async with client.request("GET") as poll:
        await poll.send_request()
        await wait_all_tasks_blocked()
        async with client.streaming() as stream:
            assert (await reply_of(poll)).status == 204
            await client.post_numbered(push("many", 1))
            assert (await client.next_frame(stream))[3] == "one"


async def test_client_that_does_not_come_back(client: StreamClient, autojump_clock: trio.testing.MockClock) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        await trio.sleep(100)
    await trio.sleep(14)
    assert Socket.codes == []
    await trio.sleep(2)
    assert (Socket.codes, len(open_sessions())) == ([1006], 0)
    async with client.streaming() as stream:
        assert (await reply_of(stream)).status == 410


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=8))
def test_streams_cut_anywhere_bring_each_message_once(rounds: list[tuple[int, int]]) -> None:
    async def exchange() -> None:
        async with served(routed(Socket.as_asgi())) as application:
            client = await joined(application)
            waiting = 1
            for sent, taken in rounds:
                await client.post_numbered(push("many", sent))
                waiting += sent
                async with client.streaming() as stream:
                    for _ in range(min(taken, waiting)):
                        await client.next_frame(stream)
                        waiting -= 1
            await client.ask("DELETE")
            await wait_all_tasks_blocked()

    trio.run(exchange)


# -- posts ------------------------------------------------------------------------------------------------------------


async def test_repeated_post_is_handled_once(client: StreamClient) -> None:
    notes = [push("note", number) for number in range(4)]
    assert (await client.post_numbered(*notes[:2])).status == 200
    assert (await client.post_numbered(*notes[:2], first=2)).status == 200
    assert (await client.post_numbered(*notes, first=2)).status == 200
    assert (await client.post_numbered(first=6)).status == 200
    await wait_all_tasks_blocked()
    assert Room.handled == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [b"3", b"x", b"-1", b"9" * 30])
async def test_post_after_a_hole_ends_the_session(client: StreamClient, first: bytes) -> None:
    assert (await client.post_numbered(push("note", 1), first=first)).status == 400
    async with client.streaming() as stream:
        assert await client.next_frame(stream) == JOINED
        code, reason = await end_of(stream) or (0, "")
    assert (code, reason[:18]) == (1007, "expected message 2")
    assert Room.handled == []


async def test_posts_without_numbers_are_not_compared(client: StreamClient) -> None:
    for _ in range(2):
        assert (await client.post(push("note", 1))).status == 200
    await wait_all_tasks_blocked()
    assert Room.handled == [1, 1]


async def test_repeated_post_lets_others_run(client: StreamClient) -> None:
    session = only_session()
    session._received = 10_000
    rounds = 0

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        assert (await session.post(b"[]\n" * 10_000, NDJSON[0][1], 1)).status == 200
        nursery.cancel_scope.cancel()
    assert rounds > 100
    assert session._received == 10_000


class Cancelled:
    """A request that is cancelled at its n-th checkpoint."""

    def __init__(self, client: LongPollClient, method: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.scope = client.request(method, headers=headers).scope
        self.application = client.application
        self.parts: list[bytes] = []
        self._events = [{"type": "http.request", "body": body}]

    async def receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        return self._events.pop() if self._events else await trio.sleep_forever()

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.parts.append(message.get("body", b""))

    async def run(self, number: int) -> trio.CancelScope:
        with cancelled_at_checkpoint(number) as scope:
            await self.application(self.scope, self.receive, self.send)
        await wait_all_tasks_blocked()
        return scope


async def test_cancelled_post_is_repeated_without_doubles(client: StreamClient) -> None:
    expected: list[int] = []
    for number in range(1, 100):
        notes = [number * 10 + n for n in range(3)]
        body = "\n".join(json.dumps(push("note", note)) for note in notes).encode()
        headers = [*NDJSON, (b"x-message-number", b"%d" % (client.sent + 1))]
        scope = await Cancelled(client, "POST", body, headers).run(number)
        assert (await client.post_numbered(*[push("note", note) for note in notes])).status == 200
        expected += notes
        if not scope.cancel_called:
            break
    assert number > 3
    await wait_all_tasks_blocked()
    assert Room.handled == expected


async def test_cancelled_stream_loses_nothing(client: StreamClient, autojump_clock: trio.testing.MockClock) -> None:
    session = only_session()
    for number in range(1, 12):
        request = Cancelled(client, "GET", b"", [*STREAM, (b"last-event-id", b"%d" % client.received)])
        await request.run(number)
        assert session._poll is None
        assert session._patience.deadline < math.inf
        await client.post_numbered(push("many", 1))
        async with client.streaming() as stream:
            for _ in range(2 if number == 1 else 1):
                await client.next_frame(stream)
    assert client.received == 12


# -- the end ----------------------------------------------------------------------------------------------------------


async def test_close_by_the_application(client: StreamClient) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        await client.post_numbered(push("close", {}))
        assert (await client.next_frame(stream))[3] == "last"
        assert await end_of(stream) == (4003, "as you wish")
        assert await end_of(stream) is None
    client.received = 1
    async with client.streaming() as again:  # the first one may have been cut
        assert (await client.next_frame(again))[3] == "last"
        assert await end_of(again) == (4003, "as you wish")
    assert (await client.post_numbered(push("note", 1))).status == 410
    assert (await client.ask("DELETE")).status == 200
    await wait_all_tasks_blocked()
    assert (len(open_sessions()), Socket.codes) == (0, [4003])
    async with client.streaming() as gone:
        assert (await reply_of(gone)).status == 410


async def test_end_that_nobody_fetches(client: StreamClient, autojump_clock: trio.testing.MockClock) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
    await client.post_numbered(push("close", {}))
    await trio.sleep(14)
    assert len(open_sessions()) == 1
    await trio.sleep(2)
    assert len(open_sessions()) == 0


async def test_client_that_closes(client: StreamClient) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        assert (await client.ask("DELETE")).status == 200
        assert await end_of(stream) == (1000, "")
    await wait_all_tasks_blocked()
    assert (len(open_sessions()), Socket.codes) == (0, [1000])
    assert (await client.ask("DELETE")).status == 410


@pytest.mark.parametrize("token", ["", "phxlp1.", "phxlp1.a/b:c", None])
async def test_closing_needs_the_token(client: StreamClient, token: str | None) -> None:
    other = StreamClient(client.application)
    other.token = token
    assert (await other.ask("DELETE")).status == 410
    async with other.request("GET", headers=STREAM) as stream:
        reply = await reply_of(stream)
    assert reply.status == 410
    assert (reply.token is not None) is (token in ("", None))  # a session of its own
    assert Socket.codes == []


async def test_other_origin_can_neither_stream_nor_close(application: Any) -> None:
    ours, theirs = (b"origin", b"https://example.com"), (b"origin", b"https://evil.example")
    client = StreamClient(application, headers=[ours])
    await client.open()
    async with client.streaming() as stream:
        headers = dict((await stream.get_response_start())["headers"])
        assert headers[b"access-control-allow-origin"] == b"https://example.com"
        client.headers = [theirs]
        assert (await client.ask("DELETE")).status == 410
        async with client.streaming() as foreign:
            assert (await reply_of(foreign)).status == 410
    assert Socket.codes == []


async def test_server_that_ends_tells_its_clients(client: StreamClient) -> None:
    async with client.streaming() as stream:
        await client.next_frame(stream)
        await wait_all_tasks_blocked()
        lasting.end_all()
        assert await end_of(stream) == (1012, "the server restarts")
    assert Socket.codes == [1012]


async def test_application_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Socket):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise ValueError("a bug")

    async with served(routed(Failing.as_asgi())) as application:
        client = StreamClient(application)
        await client.open()
        async with client.streaming() as stream:
            await stream.receive_body()
            await client.post_numbered(JOIN)
            assert await end_of(stream) == (1011, "")
        await client.ask("DELETE")
        await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# -- slow clients -----------------------------------------------------------------------------------------------------


class Slow:
    """A client that reads the head of a stream, and then nothing."""

    def __init__(self, client: StreamClient) -> None:
        self.scope = client.request("GET", headers=STREAM).scope
        self.application = client.application
        self.taken = 0

    async def receive(self) -> Any:
        return {"type": "http.request"} if not self.taken else await trio.sleep_forever()

    async def send(self, message: Any) -> None:
        self.taken += 1
        if message["type"] == "http.response.body":
            await trio.sleep_forever()

    async def run(self) -> None:
        await self.application(self.scope, self.receive, self.send)


async def test_slow_client_takes_bounded_memory(application: Any, autojump_clock: trio.testing.MockClock) -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 1_000}):
        client = await joined(application)
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            slow = Slow(client)
            nursery.start_soon(slow.run)
            await client.post_numbered(push("many", 1_000))
            await trio.sleep(1)
            assert only_session()._outgoing.size < 1_200
            assert slow.taken == 2
            await trio.sleep(15)
            assert (Socket.codes, len(open_sessions())) == ([1006], 0)
        assert trio.current_time() - before < 60  # of the virtual clock: the request has ended, too
