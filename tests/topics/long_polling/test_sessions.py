"""The life of a session: its end, its limits, its place in the server."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import pytest
import trio
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from trio_channels._connection import lasting
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.topics import Topic, TopicSocket, broadcast, event
from trio_channels.topics.long_polling.forwarding import Request
from trio_channels.topics.long_polling.session import Session

from ...layers.test_contract import cancelled_at_checkpoint
from ...server.clients import OURS, serving
from .client import NDJSON, LongPollClient, open_sessions, reply_of, routed, served, site

JOIN = ["1", "1", "room:a", "phx_join", {}]


class Room(Topic):
    pattern = "room:<slug:name>"
    left: list[str] = []
    gate = trio.Event()

    async def leave(self) -> None:
        self.left.append(self.topic)

    @event("wait")
    async def wait(self, payload: Any) -> None:
        await self.gate.wait()

    @event("many")
    async def many(self, payload: int) -> None:
        for number in range(payload):
            await self.push("one", {"n": number, "text": "x" * 100})

    @event("close")
    async def close(self, payload: Any) -> None:
        await self.socket.close(4000)

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
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "gate", trio.Event())
    monkeypatch.setattr(Room, "left", [])
    monkeypatch.setattr(Socket, "codes", [])


@pytest.fixture
async def application() -> Any:
    async with served(routed(Socket.as_asgi())) as application:
        yield application
    assert Socket.channel_layer.statistics().memberships == 0


@pytest.fixture
async def client(application: Any) -> LongPollClient:
    return await joined(application)


async def joined(application: Any) -> LongPollClient:
    client = LongPollClient(application)
    await client.open()
    await client.post(JOIN)
    assert (await client.receive())[3] == "phx_reply"
    return client


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_client_that_vanishes(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(14)
    assert (Room.left, Socket.codes) == ([], [])
    await trio.sleep(2)
    assert (Room.left, Socket.codes) == (["room:a"], [1006])
    assert len(open_sessions()) == 0
    assert (await client.poll()).status == 410


async def test_client_that_polls_stays(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(5):
        assert (await client.poll()).status == 204
        await trio.sleep(10)
    assert Room.left == []


async def test_client_that_only_posts_vanishes(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(20):
        reply = await client.post([None, None, "phoenix", "heartbeat", {}])
        await trio.sleep(1)
    assert reply.status == 410


async def test_close_by_the_application(client: LongPollClient) -> None:
    await client.post(["1", "2", "room:a", "many", 2])
    await wait_all_tasks_blocked()
    await client.post(["1", "3", "room:a", "close", {}])
    await wait_all_tasks_blocked()
    assert Socket.codes == [4000]
    assert (await client.post(JOIN)).status == 410
    assert [frame[3] for frame in (await client.poll()).frames] == ["one", "one", "phx_reply"]
    assert (await client.poll()).status == 410
    assert len(open_sessions()) == 0


async def test_rest_that_nobody_fetches(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    await client.post(["1", "3", "room:a", "many", 2])
    await wait_all_tasks_blocked()
    await client.post("[]")
    await wait_all_tasks_blocked()
    assert (Socket.codes, len(open_sessions())) == ([1007], 1)
    await trio.sleep(16)
    assert len(open_sessions()) == 0


async def test_end_of_a_server(client: LongPollClient) -> None:
    async with client.request("GET") as poll:
        await poll.send_request()
        await wait_all_tasks_blocked()
        lasting.end_all()
        assert (await reply_of(poll)).status == 410
    await wait_all_tasks_blocked()
    assert (Socket.codes, len(open_sessions())) == ([1012], 0)
    assert (await LongPollClient(client.application).open()).http == 503


async def test_server_that_ends_answers_polls() -> None:
    async with serving(OURS, site(routed(Socket.as_asgi()))) as server, trio.open_nursery() as nursery:
        opened = json.loads((await server.request("GET", "/socket/longpoll")).body)
        polls: list[Any] = []

        async def poll() -> None:
            polls.append(await server.request("GET", f"/socket/longpoll?token={opened['token']}"))

        nursery.start_soon(poll)
        sessions = open_sessions()._sessions.values()
        while not all(session._poll for session in sessions):
            await trio.testing.wait_all_tasks_blocked()
        server.stop.set()
    assert json.loads(polls[0].body)["status"] == 410
    assert Socket.codes == [1012]


async def test_client_that_leaves_before_it_is_accepted(autojump_clock: trio.testing.MockClock) -> None:
    class Late(Socket):
        async def connect(self) -> None:
            await Room.gate.wait()

    async with served(routed(Late.as_asgi())) as application:
        async with LongPollClient(application).request("GET") as opening:
            await opening.send_request()
            await wait_all_tasks_blocked()
            assert repr(next(iter(open_sessions()._sessions.values()))).endswith("opening, 0 messages waiting>")
            await opening.disconnect()
        await trio.sleep(11)
        assert (len(open_sessions()), Socket.codes) == (0, [1006])


async def test_server_that_ends_while_a_session_opens(autojump_clock: trio.testing.MockClock) -> None:
    class Late(Socket):
        async def connect(self) -> None:
            await Room.gate.wait()

    async with served(routed(Late.as_asgi())) as application:
        async with LongPollClient(application).request("GET") as opening:
            await opening.send_request()
            await wait_all_tasks_blocked()
            lasting.end_all()
            reply = await reply_of(opening)
        assert (reply.http, reply.status) == (503, 500)


async def test_slow_acceptance_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    class Late(Socket):
        async def connect(self) -> None:
            await trio.sleep(20)
            await self.accept()

    with override_settings(TRIO_CHANNELS={"ACCEPT_TIMEOUT": 30.0}):
        async with served(routed(Late.as_asgi())) as application:
            client = LongPollClient(application)
            assert (await client.open()).status == 410
            assert (await client.post(JOIN)).status == 200


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_process_has_a_limit_of_sessions(application: Any, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_SESSIONS": 2}):
        replies = [await LongPollClient(application).open() for _ in range(5)]
    assert [reply.http for reply in replies] == [200, 200, 503, 503, 503]
    assert (replies[-1].status, replies[-1].headers[b"retry-after"]) == (500, b"1")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "LONG_POLL_SESSIONS)" in record.message


async def test_client_has_a_limit_of_sessions(application: Any, autojump_clock: trio.testing.MockClock) -> None:
    async def open_from(address: str) -> int:
        async with LongPollClient(application).request("GET") as request:
            request.scope["client"] = [address, 1234]
            return (await reply_of(request)).http

    with override_settings(TRIO_CHANNELS={"LONG_POLL_SESSIONS_PER_ADDRESS": 2}):
        assert [await open_from("192.0.2.1") for _ in range(3)] == [200, 200, 503]
        assert await open_from("192.0.2.2") == 200
        await trio.sleep(20)
        assert await open_from("192.0.2.1") == 200


async def test_client_that_does_not_poll_stops_the_application(application: Any) -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 1_000}):
        client = await joined(application)
        await client.post(["1", "3", "room:a", "many", 100])
        await wait_all_tasks_blocked()
        (session,) = open_sessions()._sessions.values()
        assert session._outgoing.size < 1_200
        assert (
            f"{session!r}"
            == f"<Session of websocket /socket/websocket: open, {len(session._outgoing)} messages waiting>"
        )
        got = [await client.receive() for _ in range(101)]
        assert [frame[4]["n"] for frame in got[:-1]] == list(range(100))
        assert got[-1][3] == "phx_reply"


async def test_senders_that_wait_keep_their_order() -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 10}):
        session = Session({"type": "websocket", "extensions": {}}, None)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(session.send, {"type": "websocket.send", "text": f"{number:6}"})
                await wait_all_tasks_blocked()
            got: list[str] = []
            while len(got) < 20:
                got += (await session.poll(0)).messages
                await wait_all_tasks_blocked()
        assert [int(text) for text in got] == list(range(20))


async def test_senders_of_a_client_that_has_gone_go_on() -> None:
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 10}):
        session = Session({"type": "websocket", "extensions": {}}, None)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(session.send, {"type": "websocket.send", "text": "x" * 10})
            await wait_all_tasks_blocked()
            session.vanish("test")
        await session.send({"type": "websocket.send", "text": "too late"})
        assert (await session.poll(0)).status == 410


async def test_denial_in_parts() -> None:
    session = Session({"type": "websocket", "extensions": {}}, None)
    await session.send({"type": "websocket.http.response.start", "status": 404})
    await session.send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
    assert not session.decided.is_set()
    await session.send({"type": "websocket.http.response.body", "body": b"!"})
    assert session.decided.is_set()
    assert (session.accepted, session.status) == (False, 404)


async def test_long_message_ends_the_session(client: LongPollClient) -> None:
    with override_settings(TRIO_CHANNELS={"MAX_MESSAGE_SIZE": 100}):
        other = await joined(client.application)
        assert (await other.post(["1", "2", "room:a", "wait", "x" * 100])).status == 410
    await wait_all_tasks_blocked()
    assert Socket.codes == [1009]


async def test_flood_of_messages_ends_the_session(application: Any) -> None:
    with override_settings(TRIO_CHANNELS={"MESSAGES_PER_SECOND": 5}):
        client = await joined(application)
        await client.post(*[[None, None, "phoenix", "heartbeat", {}]] * 50)
    await wait_all_tasks_blocked()
    assert Socket.codes == [1008]


async def test_posts_come_one_at_a_time() -> None:
    class Busy(Socket):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await Room.gate.wait()

    async with served(routed(Busy.as_asgi())) as application:
        client = LongPollClient(application)
        await client.open()
        async with trio.open_nursery() as nursery:
            replies: list[Any] = []

            async def post() -> None:
                replies.append(await client.post(*["[]"] * 100))

            nursery.start_soon(post)
            await wait_all_tasks_blocked()
            assert (await client.post("[]")).status == 409
            (name,) = open_sessions()._sessions
            by_another_process = Request("post", name, None, b"[]", b"application/x-ndjson")
            assert (await open_sessions().answer(by_another_process)).status == 409
            assert replies == []
            Room.gate.set()
        assert replies[0].status == 200


async def test_slow_client_of_a_broadcast_is_closed(application: Any) -> None:
    layer = Socket.channel_layer
    with override_settings(TRIO_CHANNELS={"LONG_POLL_BUFFER": 100}):
        client = await joined(application)
        for number in range(layer.capacity + 10):
            await broadcast("room:a", "news", number, layer=layer)
            await wait_all_tasks_blocked()
        (session,) = open_sessions()._sessions.values()
        assert len(session._outgoing) < 10
        while (reply := await client.poll()).status != 410:
            assert reply.status == 200
        await wait_all_tasks_blocked()
    assert Socket.codes == [1013]


# -- cancellation -----------------------------------------------------------------------------------------------------


class Cancelled:
    """A request that is cancelled at its n-th checkpoint, of the middle of which the server has many."""

    def __init__(self, client: LongPollClient, method: str, body: bytes = b"") -> None:
        self.scope = client.request(method, headers=NDJSON).scope
        self.application = client.application
        self.sent: list[Any] = []
        self._events = [{"type": "http.request", "body": body}]

    async def receive(self) -> Any:
        await trio.lowlevel.checkpoint()
        if self._events:
            return self._events.pop()
        return await trio.sleep_forever()

    async def send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    async def run(self, number: int) -> trio.CancelScope:
        with cancelled_at_checkpoint(number) as scope:
            await self.application(self.scope, self.receive, self.send)
        await wait_all_tasks_blocked()
        return scope


async def test_cancelled_opening_leaves_nothing(application: Any) -> None:
    for number in range(1, 100):
        request = Cancelled(LongPollClient(application), "GET")
        scope = await request.run(number)
        if not scope.cancel_called:
            break
        if len(request.sent) < 2:
            assert len(open_sessions()) == 0, number
            assert number == 1 or Socket.codes.pop() == 1006
    assert number > 4
    assert len(open_sessions()) == 1


async def test_cancelled_poll_loses_nothing(client: LongPollClient, autojump_clock: trio.testing.MockClock) -> None:
    (session,) = open_sessions()._sessions.values()
    for number in range(1, 100):
        scope = await Cancelled(client, "GET").run(number)
        assert session._poll is None
        assert session._patience.deadline < math.inf
        await client.post(["1", None, "room:a", "many", 1])
        assert (await client.poll()).status == 200
        if not scope.cancel_called:
            break
    assert number > 2


async def test_cancelled_post_leaves_the_session_usable(client: LongPollClient) -> None:
    (session,) = open_sessions()._sessions.values()
    body = "\n".join([json.dumps(["1", None, "room:a", "wait", {}])] * 3).encode()
    Room.gate.set()
    for number in range(1, 100):
        scope = await Cancelled(client, "POST", body).run(number)
        assert not session._posting
        assert (await client.post(["1", "2", "room:a", "echo", {}])).status == 200
        assert len((await client.poll()).messages) == 1
        if not scope.cancel_called:
            break
    assert number > 4
