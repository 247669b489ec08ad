"""Messages and pushes of a topic, with a server whose every frame is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.client import ClientSocket, ClientTopic, Message, Rejoined
from trio_channels.exceptions import (
    JoinFailed,
    MessageNotEncodable,
    NotConnected,
    PushFailed,
    ReplyLost,
    ReplyTimeout,
    SocketEnded,
    TopicClientError,
    TopicEnded,
)

from .scripted import A, Peer, Scripted, connected, wait_until


class Room:
    """A client that has joined, in the background, and the server's side of it."""

    def __init__(self, server: Scripted, peer: Peer, socket: ClientSocket) -> None:
        self.server, self.peer, self.socket = server, peer, socket
        self.topic: ClientTopic
        self.join: list[Any]

    async def push(self, *args: Any, **options: Any) -> list[Any]:
        """Push in the background; returns the frame."""
        self.nursery.start_soon(self.record, args, options)
        return await self.peer.receive()

    async def record(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        try:
            self.results.append(await self.topic.push(*args, **options))
        except TopicClientError as error:
            self.results.append(error)

    nursery: trio.Nursery
    results: list[Any]

    async def next(self) -> Message:
        return await self.topic.__anext__()

    async def event(self, event: str, payload: Any = None, position: str | None = None) -> None:
        await self.peer.send(None, None, A, event, payload, *([] if position is None else [position]))

    async def has_result(self) -> Any:
        await wait_until(lambda: bool(self.results))
        return self.results.pop(0)


@asynccontextmanager
async def room(
    response: Any = None, since: str | None = None, params: Any = None, **options: Any
) -> AsyncIterator[Room]:
    async with connected(**options) as (server, peer, socket), trio.open_nursery() as nursery:
        made = Room(server, peer, socket)
        made.nursery, made.results = nursery, []
        joined, over = trio.Event(), trio.Event()

        async def stay() -> None:
            try:
                async with socket.join(A, params, since=since) as made.topic:
                    joined.set()
                    await over.wait()
                    raise KeyError  # it is left without waiting
            except KeyError:
                pass

        nursery.start_soon(stay)
        made.join = await peer.accept_join(response)
        await joined.wait()
        yield made
        over.set()
        nursery.cancel_scope.cancel()


async def test_join_frame_has_one_reference_and_the_params() -> None:
    async with room(params={"x": 1}) as client:
        assert client.join == [client.join[0], client.join[0], A, "phx_join", {"x": 1}]
        assert (client.topic.name, client.topic.response, client.topic.position) == (A, {}, None)
        assert "joined" in repr(client.topic)


async def test_since_is_sent_with_the_params() -> None:
    async with room({"recovered": True, "position": "e-5"}, since="e-5", params={"x": 1}) as client:
        assert client.join[4] == {"x": 1, "since": "e-5"}
        assert (client.topic.recovered, client.topic.position) == (True, "e-5")


@pytest.mark.parametrize("response", [{"position": "queen to e4"}, {"recovered": 1, "position": "x"}, "text", None, []])
async def test_reply_without_a_history_has_no_position(response: Any) -> None:
    async with room(response) as client:
        assert (client.topic.recovered, client.topic.position) == (False, None)


async def test_messages_keep_their_positions() -> None:
    async with room({"recovered": False, "position": "e-0"}) as client:
        await client.event("told", 1, "e-1")
        await client.peer.send_raw(b"\x02\x06\x04room:atold\xff")
        await client.event("phx_position", {}, "e-2")
        await client.event("told", 3)
        assert [await client.next() for _ in range(3)] == [
            Message("told", 1, "e-1"),
            Message("told", b"\xff"),
            Message("told", 3),
        ]
        assert client.topic.position == "e-2"


async def test_rejoin_resumes_from_the_last_message() -> None:
    async with room({"recovered": False, "position": "e-0"}) as client:
        await client.event("told", 1, "e-1")
        assert (await client.next()).payload == 1
        await client.peer.close(1012)
        peer = await client.server.peer()
        response = {"recovered": True, "position": "e-1"}
        assert (await peer.accept_join(response))[4] == {"since": "e-1"}
        assert await client.next() == Rejoined(payload=response, position="e-1", recovered=True)


@pytest.mark.parametrize("recovered", [(True, True), (True, False), (False, True)])
async def test_joins_without_a_message_between_them_are_one(recovered: tuple[bool, bool]) -> None:
    async with room({"recovered": False, "position": "e-0"}) as client:
        for each in recovered:
            await client.peer.send(client.join[0], client.join[0], A, "phx_error", {})
            client.join = await client.peer.accept_join({"recovered": each, "position": "e-0"})
        await client.event("told", 1)
        await client.peer.reply(await client.push("echo"))
        await client.has_result()
        message = await client.next()
        assert isinstance(message, Rejoined)
        assert message.recovered is all(recovered)
        assert (await client.next()).event == "told"


@pytest.mark.parametrize(("stable", "attempts"), [(0.0, [1, 1, 1]), (1_000.0, [1, 2, 3])])
async def test_delays_of_a_topic_grow_until_it_is_stable(
    stable: float, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_channels.client.membership.STABLE", stable)
    seen: list[int] = []

    def back_off(attempt: int, code: int | None) -> float:
        seen.append(attempt)
        return 0.0

    async with room(back_off=back_off) as client:
        for _ in attempts:
            await client.peer.send(client.join[0], client.join[0], A, "phx_error", {})
            client.join = await client.peer.accept_join()
            await client.next()
    assert seen[:3] == attempts


async def test_topic_without_a_history_is_not_recovered() -> None:
    async with room() as client:
        await client.peer.cut()
        peer = await client.server.peer()
        await peer.accept_join({"x": 1})
        message = await client.next()
        assert isinstance(message, Rejoined)
        assert (message.recovered, message.payload) == (False, {"x": 1})


async def test_params_without_a_place_for_since_are_sent_again() -> None:
    async with room({"recovered": False, "position": "e-0"}, params=[1]) as client:
        await client.peer.cut()
        assert (await (await client.server.peer()).accept_join())[4] == [1]


async def test_messages_before_the_reply_do_not_count() -> None:
    async with room({"recovered": False, "position": "e-0"}) as client:
        await client.peer.close(1012)
        peer = await client.server.peer()
        join = await peer.receive()
        await peer.send(None, None, A, "told", 9, "e-9")
        await peer.reply(join, {"recovered": True, "position": "e-0"})
        await peer.send(None, None, A, "told", 1, "e-1")
        assert [(await client.next()).event, (await client.next()).payload] == ["phx_join", 1]
        assert client.topic.position == "e-1"


async def test_frames_of_an_earlier_join_are_dropped() -> None:
    async with room() as client:
        await client.peer.send("77", None, A, "told", "old")
        await client.peer.send("77", "77", A, "phx_close", {})
        await client.peer.send("77", "77", A, "phx_error", {})
        await client.peer.send(client.join[0], "88", A, "phx_reply", {"status": "ok", "response": 1})
        await client.peer.send(client.join[0], client.join[0], A, "phx_reply", {"status": "error", "response": 1})
        await client.event("told", "new")
        assert (await client.next()).payload == "new"


async def test_frames_of_other_topics_are_dropped() -> None:
    async with room() as client:
        await client.peer.send(None, None, "room:b", "told", 1)
        await client.peer.send(None, "7", "phoenix", "phx_reply", {"status": "ok", "response": {}})
        await client.event("told", 2)
        assert (await client.next()).payload == 2
        assert client.socket.statistics().heartbeats == 0


async def test_push_gets_its_reply() -> None:
    async with room() as client:
        frame = await client.push("echo", {"n": 1})
        assert frame == [client.join[0], frame[1], A, "echo", {"n": 1}]
        await client.peer.reply(frame, {"n": 2})
        assert await client.has_result() == {"n": 2}


async def test_error_reply_is_raised_with_its_response() -> None:
    async with room() as client:
        await client.peer.reply(await client.push("echo"), {"reason": "no"}, "error")
        error = await client.has_result()
        assert isinstance(error, PushFailed)
        assert error.response == {"reason": "no"}


async def test_empty_stream_is_none_for_a_push() -> None:
    async with room() as client:
        await client.peer.reply(await client.push("count"), status="end")
        assert await client.has_result() is None


async def test_push_without_a_reply_times_out() -> None:
    async with room() as client:
        frame = await client.push("echo", timeout=0.01)
        assert isinstance(await client.has_result(), ReplyTimeout)
        await client.peer.reply(frame, "late")
        await client.event("told", 1)
        assert (await client.next()).payload == 1


@pytest.mark.parametrize("end", ["cut", "crash"])
async def test_reply_is_lost_with_the_connection_or_topic(end: str) -> None:
    async with room() as client:
        await client.push("echo")
        if end == "cut":
            await client.peer.cut()
        else:
            await client.peer.send(client.join[0], client.join[0], A, "phx_error", {})
        error = await client.has_result()
        assert isinstance(error, ReplyLost)
        assert "'echo' of 'room:a'" in str(error)


async def test_pushes_made_away_are_sent_in_order_after_the_join() -> None:
    async with room() as client:
        await client.peer.close(1012)
        await wait_until(lambda: not client.socket.statistics().connected or client.socket.statistics().connections > 1)
        peer = client.peer = await client.server.peer()
        join = await peer.receive()
        for number in range(5):
            client.nursery.start_soon(client.record, ("echo", number), {})
            await wait_until(lambda number=number: client.socket.statistics().waiting_pushes == number + 1)
        await peer.reply(join)
        for number in range(5):
            frame = await peer.receive()
            assert (frame[0], frame[4]) == (join[0], number)
            await peer.reply(frame, number)
        await wait_until(lambda: len(client.results) == 5)
        assert client.results == list(range(5))
        assert client.socket.statistics().waiting_pushes == 0


async def away(client: Room) -> list[Any]:
    """Lose the connection; returns the frame of the next join, which has no answer yet."""
    await client.peer.cut()
    client.peer = await client.server.peer()
    return await client.peer.receive()


async def test_push_that_must_not_wait_fails_at_once() -> None:
    async with room() as client:
        await away(client)
        with pytest.raises(NotConnected, match="must not wait"):
            await client.topic.push("echo", wait=False)


async def test_waiting_pushes_are_bounded() -> None:
    async with room(max_waiting=2) as client:
        await away(client)
        for _ in range(2):
            client.nursery.start_soon(client.record, ("echo",), {})
        await wait_until(lambda: client.socket.statistics().waiting_pushes == 2)
        with pytest.raises(NotConnected, match="max_waiting"):
            await client.topic.push("echo")


async def test_push_that_gives_up_waiting_is_not_sent() -> None:
    async with room() as client:
        join = await away(client)
        with pytest.raises(ReplyTimeout):
            await client.topic.push("echo", timeout=0.01)
        with trio.move_on_after(0.01) as scope:
            await client.topic.push("echo")
        assert scope.cancelled_caught
        assert client.socket.statistics().waiting_pushes == 0
        await client.peer.reply(join)
        frame = await client.push("alive")
        assert frame[3] == "alive"


async def test_stream_gives_each_reply() -> None:
    async with room() as client, client.topic.stream("count", 2) as replies:
        frame = await client.peer.receive()
        for number in range(2):
            await client.peer.reply(frame, number)
        await client.peer.reply(frame, status="end")
        assert [value async for value in replies] == [0, 1]
        with pytest.raises(StopAsyncIteration):
            await replies.__anext__()


async def test_stream_ends_with_an_error_reply() -> None:
    async with room() as client, client.topic.stream("count") as replies:
        await client.peer.reply(await client.peer.receive(), "why", "error")
        with pytest.raises(PushFailed):
            await replies.__anext__()
        with pytest.raises(StopAsyncIteration):
            await replies.__anext__()


async def test_stream_that_is_not_read_is_bounded() -> None:
    async with room(capacity=2) as client, client.topic.stream("count") as replies:
        frame = await client.peer.receive()
        for number in range(4):
            await client.peer.reply(frame, number)
        await client.event("told")
        await client.next()
        assert [await replies.__anext__(), await replies.__anext__()] == [0, 1]
        with pytest.raises(ReplyLost, match="more than 2 replies"):
            await replies.__anext__()


async def test_stream_waits_for_each_reply_for_its_own_time() -> None:
    async with room() as client, client.topic.stream("count", timeout=0.01) as replies:
        await client.peer.receive()
        with pytest.raises(ReplyTimeout):
            await replies.__anext__()


async def test_slow_reader_joins_again_from_its_last_message() -> None:
    async with room({"recovered": False, "position": "e-0"}, capacity=2) as client:
        for number in range(1, 6):
            await client.event("told", number, f"e-{number}")
        await client.peer.reply(await client.push("echo"))
        await client.has_result()
        assert client.topic.position == "e-2"
        assert [(await client.next()).payload, (await client.next()).payload] == [1, 2]
        async with trio.open_nursery() as nursery:
            got: list[Message] = []

            async def read() -> None:
                got.extend([await client.next(), await client.next()])

            nursery.start_soon(read)
            join = await client.peer.accept_join({"recovered": True, "position": "e-2"})
            assert join[4] == {"since": "e-2"}
            await client.event("told", 3, "e-3")
        assert [(message.event, message.position) for message in got] == [("phx_join", "e-2"), ("told", "e-3")]


async def test_nothing_comes_after_a_dropped_message_before_the_join() -> None:
    async with room({"recovered": False, "position": "e-0"}, capacity=2) as client:
        for number in range(1, 4):
            await client.event("told", number, f"e-{number}")
        await client.peer.reply(await client.push("echo"))
        await client.has_result()
        assert (await client.next()).payload == 1
        await client.event("told", 4, "e-4")
        await client.peer.reply(await client.push("echo"))
        await client.has_result()
        assert (await client.next()).payload == 2
        client.nursery.start_soon(client.next)
        assert (await client.peer.accept_join())[4] == {"since": "e-2"}


async def test_position_of_a_dropped_message_does_not_count() -> None:
    async with room({"recovered": False, "position": "e-0"}, capacity=1) as client:
        await client.event("told", 1, "e-1")
        await client.event("told", 2)
        await client.event("phx_position", {}, "e-2")
        await client.peer.reply(await client.push("echo"))
        await client.has_result()
        assert client.topic.position == "e-1"


@pytest.mark.parametrize("reason", ["unavailable", "join crashed", "too many pushes are waiting"])
async def test_temporary_refusal_of_a_rejoin_is_tried_again(reason: str) -> None:
    async with room() as client:
        join = await away(client)
        await client.peer.reply(join, {"reason": reason}, "error")
        await client.peer.accept_join()
        assert (await client.next()).event == "phx_join"


async def test_rejoin_without_an_answer_is_tried_again() -> None:
    late = trio.Event()

    def back_off(attempt: int, code: int | None) -> float:
        if code is None:
            late.set()
        return 0.1

    async with room(timeout=0.1, back_off=back_off) as client:
        first = await away(client)
        await late.wait()
        await client.peer.reply(first, "too late")
        second = await client.peer.receive()
        await client.peer.reply(second, "in time")
        assert (await client.next()).payload == "in time"


async def test_refusal_of_a_rejoin_ends_the_topic() -> None:
    async with room() as client:
        client.nursery.start_soon(client.record, ("echo",), {})
        await client.peer.receive()
        join = await away(client)
        assert isinstance(await client.has_result(), ReplyLost)
        client.nursery.start_soon(client.record, ("echo",), {})
        await wait_until(lambda: client.socket.statistics().waiting_pushes == 1)
        await client.peer.reply(join, {"reason": "banned"}, "error")
        for use in (client.next, lambda: client.topic.push("echo")):
            with pytest.raises(JoinFailed) as failed:
                await use()
            assert failed.value.response == {"reason": "banned"}
        assert isinstance(await client.has_result(), JoinFailed)
        assert "ended" in repr(client.topic)


async def test_end_by_the_server_ends_the_iteration() -> None:
    async with room() as client:
        await client.push("echo")
        await client.event("told", 1)
        await client.peer.send(client.join[0], client.join[0], A, "phx_close", {})
        assert [message.payload async for message in client.topic] == [1]
        assert isinstance(await client.has_result(), ReplyLost)
        with pytest.raises(TopicEnded):
            await client.topic.push("echo")


async def test_end_of_the_socket_is_raised_after_the_messages() -> None:
    async with room() as client:
        await client.event("told", 1)
        await client.peer.close(4001, "banned")
        assert (await client.next()).payload == 1
        with pytest.raises(SocketEnded, match="banned") as ended:
            await client.next()
        assert ended.value.code == 4001
        with pytest.raises(SocketEnded):
            await client.topic.push("echo")


async def test_only_one_task_may_iterate() -> None:
    async with room() as client:
        client.nursery.start_soon(client.next)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.next()


@pytest.mark.parametrize("payload", [object(), {1.5: 2, "a": object()}, "\ud800"])
async def test_payload_that_is_no_json_is_refused(payload: Any) -> None:
    async with room() as client:
        with pytest.raises(MessageNotEncodable):
            await client.topic.push("echo", payload)
        with pytest.raises(MessageNotEncodable):
            async with client.socket.join("room:b", payload):
                pass
        assert client.socket.statistics().topics == 1


@pytest.mark.parametrize("name", ["", "é" * 200, None, "phx_leave"])
async def test_event_that_cannot_be_sent_is_refused(name: Any) -> None:
    async with room() as client:
        with pytest.raises(MessageNotEncodable):
            await client.topic.push(name)


async def test_presence_follows_its_messages() -> None:
    async with room() as client:
        await client.event("presence_state", {"ada": {"metas": [{"phx_ref": "1"}]}})
        await client.next()
        joins = {"bob": {"metas": [{"phx_ref": "2", "tab": 1}]}, "ada": {"metas": [{"phx_ref": "3"}]}}
        await client.event("presence_diff", {"joins": joins, "leaves": {"ada": {"metas": [{"phx_ref": "1"}]}}})
        await client.next()
        assert client.topic.presence == {"ada": [{"phx_ref": "3"}], "bob": [{"phx_ref": "2", "tab": 1}]}
