"""The life of a topic: it begins and ends apart from the others, and leave() runs on every way out."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._limits import Limits
from trio_channels.exceptions import ChannelLayerUnavailable, ConnectionClosed, DenyConnection
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import TopicCommunicator
from trio_channels.topics import Topic, TopicSocket, event

A = "room:a"


class Gate(Topic):
    """Its methods wait at gates that the test opens; `log` records each step."""

    pattern = "<slug:kind>:<slug:name>"
    log: list[str] = []
    gates: dict[str, trio.Event] = {}

    async def join(self, params: Any) -> None:
        self.log.append(f"join {self.topic}")
        await self.pass_gate(f"join {self.topic}")
        if isinstance(params, dict) and "task" in params:
            self.start_soon(self.task, params["task"])

    async def task(self, then: str) -> None:
        await self.pass_gate("task")
        if then == "closed":
            raise ConnectionClosed
        raise ValueError(then)

    async def leave(self) -> None:
        self.log.append(f"leave {self.topic}")
        await self.pass_gate(f"leave {self.topic}")

    async def pass_gate(self, name: str) -> None:
        if name in self.gates:
            try:
                await self.gates[name].wait()
            except trio.Cancelled:
                self.log.append(f"cancelled {name}")
                raise

    @event("wait")
    async def wait(self, payload: str) -> str:
        await self.pass_gate(payload)
        self.log.append(payload)
        return payload

    @event("stream")
    async def stream(self, payload: Any) -> AsyncIterator[int]:
        try:
            for number in range(10**9):
                yield number
                await trio.lowlevel.checkpoint()
        finally:
            self.log.append("stream ended")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "log", [])
    monkeypatch.setattr(Gate, "gates", {})


@asynccontextmanager
async def opened(topic: type[Topic] = Gate, **attributes: Any) -> AsyncIterator[TopicCommunicator]:
    socket: Any = type("Socket", (TopicSocket,), {"channel_layer": InMemoryChannelLayer(), **attributes})
    async with TopicCommunicator(socket.as_asgi(topics=[topic])) as client:
        assert await client.connect() == (True, None)
        yield client


def gate(name: str) -> trio.Event:
    Gate.gates[name] = trio.Event()
    return Gate.gates[name]


async def test_topics_run_side_by_side() -> None:
    slow = gate("slow")
    async with opened() as client:
        await client.join(A)
        await client.join("room:b")
        waiting = await client.send_push(A, "wait", "slow")
        assert (await client.push("room:b", "wait", "quick")).response == "quick"
        slow.set()
        assert (await client.receive_reply(waiting)).response == "slow"
        await client.disconnect()
    assert Gate.log[2:4] == ["quick", "slow"]
    assert sorted(Gate.log[4:]) == ["leave room:a", "leave room:b"]


async def test_pushes_of_one_topic_are_handled_in_order() -> None:
    first = gate("1")
    async with opened() as client:
        await client.join(A)
        refs = [await client.send_push(A, "wait", str(number)) for number in range(1, 6)]
        await wait_all_tasks_blocked()
        first.set()
        assert [(await client.receive_frame()).ref for _ in refs] == refs
        await client.disconnect()
    assert Gate.log == ["join room:a", *"12345", "leave room:a"]


async def test_join_that_takes_long_holds_up_nobody() -> None:
    slow = gate("join room:a")
    async with opened() as client:
        waiting = await client.send_push(A, "phx_join")
        await client.join("room:b")
        slow.set()
        assert (await client.receive_reply(waiting)).status == "ok"
        await client.disconnect()


async def test_push_may_come_before_the_reply_to_the_join() -> None:
    slow = gate("join room:a")
    async with opened() as client:
        client._join_refs[A] = "1"
        joining = await client.send_push(A, "phx_join")
        pushed = await client.send_push(A, "wait", "early")
        await wait_all_tasks_blocked()
        slow.set()
        assert [(await client.receive_frame()).ref for _ in range(2)] == [joining, pushed]
        await client.disconnect()


async def test_leave_ends_a_join_that_runs() -> None:
    gate("join room:a")
    async with opened() as client:
        client._join_refs[A] = "1"
        await client.send_push(A, "phx_join")
        await wait_all_tasks_blocked()
        assert (await client.leave(A)).status == "ok"
        assert (await client.receive_event(A)).event == "phx_close"
        await client.disconnect()
    assert Gate.log == ["join room:a", "cancelled join room:a"]


async def test_leave_comes_after_the_pushes_before_it() -> None:
    first = gate("1")
    async with opened() as client:
        await client.join(A)
        refs = [await client.send_push(A, "wait", "1"), await client.send_push(A, "wait", "2")]
        refs += [await client.send_push(A, "phx_leave"), await client.send_push(A, "phx_leave")]
        await client.send_push(A, "wait", "after the leave")
        await wait_all_tasks_blocked()
        first.set()
        assert [(await client.receive_frame()).ref for _ in range(4)] == [*refs[:3], "1"]
        assert (await client.push(A, "wait", "3")).response == {"reason": "unmatched topic"}
        await client.disconnect()
    assert Gate.log == ["join room:a", "1", "2", "leave room:a"]


async def test_leave_ends_a_handler_that_takes_too_long(autojump_clock: MockClock) -> None:
    gate("stuck")
    async with opened(limits=Limits(disconnect_timeout=5)) as client:
        await client.join(A)
        await client.send_push(A, "wait", "stuck")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        assert (await client.leave(A)).status == "ok"
        assert trio.current_time() - start == pytest.approx(5)
        await client.disconnect()
    assert Gate.log == ["join room:a", "cancelled stuck", "leave room:a"]


async def test_leave_ends_a_stream(autojump_clock: MockClock) -> None:
    # The clock stands still: the stream ends by itself, and not at a deadline.
    async with opened() as client:
        await client.join(A)
        await client.push(A, "stream")
        assert (await client.leave(A)).status == "ok"
        await client.disconnect()
    assert Gate.log == ["join room:a", "stream ended", "leave room:a"]


async def test_second_join_waits_for_the_end_of_the_first() -> None:
    gate("stuck")
    leaving = gate("leave room:a")
    async with opened() as client:
        await client.join(A)
        await client.send_push(A, "wait", "stuck")
        await wait_all_tasks_blocked()
        client._join_refs[A] = "3"
        await client.send_push(A, "phx_join")
        await wait_all_tasks_blocked()
        assert Gate.log == ["join room:a", "cancelled stuck", "leave room:a"]
        leaving.set()
        assert [(frame.ref, frame.event) for frame in [await client.receive_frame() for _ in range(2)]] == [
            ("1", "phx_close"),
            ("3", "phx_reply"),
        ]
        await client.disconnect()
    assert Gate.log[3:] == ["join room:a", "leave room:a"]


async def test_join_that_never_began_is_closed_by_the_next() -> None:
    leaving = gate("leave room:a")
    async with opened() as client:
        await client.join(A)
        for number in range(2, 5):
            client._join_refs[A] = str(number)
            await client.send_push(A, "phx_join")
        await wait_all_tasks_blocked()
        leaving.set()
        got = [await client.receive_frame() for _ in range(4)]
        assert [(frame.ref, frame.event) for frame in got] == [
            ("2", "phx_close"),
            ("3", "phx_close"),
            ("1", "phx_close"),
            ("4", "phx_reply"),
        ]
        await client.disconnect()
    assert Gate.log == ["join room:a", "leave room:a"] * 2


@pytest.mark.parametrize("then", ["boom", "closed"])
async def test_crash_of_a_task_during_the_join_refuses_it(then: str, caplog: pytest.LogCaptureFixture) -> None:
    gate("task").set()
    hanging = gate("join room:b")

    class Hanging(Gate):
        async def join(self, params: Any) -> None:
            self.start_soon(self.task, then)
            await self.pass_gate("join room:b")

    async with opened(Hanging) as client:
        assert await client.join(A) == ("error", {"reason": "join crashed"})
        await client.disconnect()
    assert not hanging.is_set()
    assert len(caplog.records) == 1
    assert "in the background task" in logging.Formatter().format(caplog.records[0])


async def test_groups_of_failures_are_told_whole(caplog: pytest.LogCaptureFixture) -> None:
    class Twice(Topic):
        pattern = "room:<slug:name>"

        async def fail(self, message: str) -> None:
            raise ValueError(message)

        @event("fail")
        async def both(self, payload: Any) -> None:
            self.start_soon(self.fail, "one")
            self.start_soon(self.fail, "two")

    async with opened(Twice) as client:
        await client.join(A)
        await client.send_push(A, "fail")
        assert (await client.receive_event(A)).event == "phx_error"
        await client.disconnect()
    (record,) = caplog.records
    text = logging.Formatter().format(record)
    assert "ValueError: one" in text
    assert "ValueError: two" in text


@pytest.mark.parametrize("way", ["disconnect", "cancel", "close", "crash"])
async def test_every_way_out_of_the_socket_calls_leave(way: str, caplog: pytest.LogCaptureFixture) -> None:
    gate("join room:c")

    async def receive(self: Any, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "crash":
            raise ValueError("crash of the socket")
        await TopicSocket.receive(self, text_data, bytes_data)

    with pytest.raises(ValueError, match="of the socket") if way == "crash" else trio.CancelScope():
        async with opened(receive=receive) as client:
            await client.join(A)
            await client.join("room:b")
            await client.send_push("room:c", "phx_join")
            await wait_all_tasks_blocked()
            if way == "cancel":
                client.stop()
                await client.wait()
            elif way == "disconnect":
                await client.disconnect()
            elif way == "close":
                await client.send_to(text_data="no frame")
                await client.wait()
            else:
                await client.send_to(text_data="crash")
                await client.wait()
    assert sorted(line for line in Gate.log if not line.startswith("join")) == [
        "cancelled join room:c",
        "leave room:a",
        "leave room:b",
    ]
    assert caplog.records == []


async def test_disconnect_lets_pushes_finish() -> None:
    first = gate("1")
    async with opened() as client:
        await client.join(A)
        await client.send_push(A, "wait", "1")
        await client.send_push(A, "wait", "2")
        await wait_all_tasks_blocked()
        await client.send_input({"type": "websocket.disconnect", "code": 1001})
        await wait_all_tasks_blocked()
        first.set()
        await client.wait()
    assert Gate.log == ["join room:a", "1", "2", "leave room:a"]


async def test_disconnect_ends_handlers_that_take_too_long(autojump_clock: MockClock) -> None:
    gate("stuck")
    leaving = gate("leave room:a")
    async with opened(limits=Limits(disconnect_timeout=5)) as client:
        await client.join(A)
        await client.send_push(A, "wait", "stuck")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await client.disconnect(timeout=60)
        assert trio.current_time() - start == pytest.approx(10)  # the handler, then leave()
    assert not leaving.is_set()
    assert Gate.log == ["join room:a", "cancelled stuck", "leave room:a", "cancelled leave room:a"]


async def test_socket_that_is_to_be_cancelled_with_its_client_is(autojump_clock: MockClock) -> None:
    gate("stuck")
    async with opened(cancel_on_disconnect=True) as client:
        await client.join(A)
        await client.send_push(A, "wait", "stuck")
        await wait_all_tasks_blocked()
        start = trio.current_time()
        await client.disconnect()
        assert trio.current_time() == start
    assert Gate.log == ["join room:a", "cancelled stuck", "leave room:a"]


@pytest.mark.parametrize("error", [ValueError("in the end"), ConnectionClosed()])
async def test_failure_of_leave_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Gate):
        async def leave(self) -> None:
            raise error

    async with opened(Failing) as client:
        await client.join(A)
        assert (await client.leave(A)).status == "ok"
        assert (await client.receive_event(A)).event == "phx_close"
        await client.disconnect()
    (record,) = caplog.records
    assert "in leave()" in logging.Formatter().format(record)


async def test_normal_end_of_a_topic_whose_socket_ends_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Sending(Gate):
        async def leave(self) -> None:
            await self.push("bye")

    async with opened(Sending) as client:
        await client.join(A)
        await client.disconnect()
    assert caplog.records == []


async def test_failed_removal_from_the_group_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    class Layer(InMemoryChannelLayer):
        async def group_discard(self, group: str, channel: str) -> None:
            raise ChannelLayerUnavailable("away")

    async with opened(channel_layer=Layer()) as client:
        await client.join(A)
        assert (await client.leave(A)).status == "ok"
        assert (await client.join(A)).status == "ok"
        await client.disconnect()
    assert caplog.records == []


async def test_plain_methods_run_on_threads() -> None:
    threads: list[threading.Thread] = []

    class Plain(Topic):
        pattern = "room:<slug:name>"

        def join(self, params: Any) -> None:
            threads.append(threading.current_thread())

        def leave(self) -> None:
            threads.append(threading.current_thread())

        @event("fail")
        def fail(self, payload: Any) -> None:
            raise ValueError("on a thread")

    async with opened(Plain) as client:
        await client.join(A)
        await client.leave(A)
        await client.join(A)
        await client.send_push(A, "fail")
        assert (await client.receive_event(A, "phx_error")).payload == {}
        await client.disconnect()
    assert len(threads) == 4
    assert threading.main_thread() not in threads


async def test_topics_work_without_a_layer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("trio_channels.consumer.base.get_channel_layer", lambda alias: None)
    monkeypatch.setattr("trio_channels.topics.broadcasting.get_channel_layer", lambda: None)

    class Room(Gate):
        @event("tell")
        async def tell(self, payload: Any) -> None:
            await self.broadcast_from("told")

    async with opened(Room, channel_layer=None) as client:
        await client.join(A)
        assert (await client.push(A, "wait", "1")).response == "1"
        await client.send_push(A, "tell")
        assert (await client.receive_event(A)).event == "phx_error"
        await client.disconnect()
    assert "needs a channel layer" in caplog.text


async def test_failure_beside_a_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Gate):
        @event("fail")
        async def fail(self, payload: Any) -> None:
            self.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("on the way out")

    async with opened(Failing) as client:
        await client.join(A)
        await client.send_push(A, "fail")
        await wait_all_tasks_blocked()
        client.stop()
        await client.wait()
    assert "ValueError: on the way out" in caplog.text
    assert Gate.log[-1] == "leave room:a"


async def test_handler_that_says_closed_on_an_open_socket_fails(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Gate):
        @event("fail")
        async def fail(self, payload: Any) -> None:
            raise ConnectionClosed(1001)

    async with opened(Failing) as client:
        await client.join(A)
        await client.send_push(A, "fail")
        assert (await client.receive_event(A)).event == "phx_error"
        await client.disconnect()
    assert len(caplog.records) == 1


async def test_join_right_before_the_disconnect_does_not_begin() -> None:
    busy = trio.Event()

    async def receive(self: Any, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "busy":
            await busy.wait()
        else:
            await TopicSocket.receive(self, text_data, bytes_data)

    async with opened(receive=receive) as client:
        await client.send_to(text_data="busy")
        await client.send_push(A, "phx_join")
        await client.send_input({"type": "websocket.disconnect", "code": 1001})
        await wait_all_tasks_blocked()
        busy.set()
        await client.wait()
    assert Gate.log == []


async def test_permissions_of_the_user() -> None:
    class User:
        def has_perm(self, permission: str, obj: Any = None) -> bool:
            assert threading.current_thread() is not threading.main_thread()
            return (permission, obj) == ("chat.view_room", "a")

    class Guarded(Topic):
        pattern = "room:<slug:name>"

        async def join(self, params: Any) -> str:
            await self.authorize("chat.view_room", self.kwargs["name"])
            return repr(self)

        @event("delete")
        async def delete(self, payload: Any) -> None:
            await self.authorize("chat.delete_room")

    async with opened(Guarded) as client:
        client.scope["user"] = User()
        assert (await client.join(A)).response == "<Guarded 'room:a'>"
        assert await client.join("room:b") == ("error", {"reason": "forbidden"})
        assert await client.push(A, "delete") == ("error", {"reason": "forbidden"})
        await client.disconnect()


async def test_task_outlives_the_call_on_a_thread_that_started_it() -> None:
    class Starting(Gate):
        @event("start")
        def start(self, payload: Any) -> None:
            async_to_sync(self.begin)()

        async def begin(self) -> None:
            self.start_soon(self.later)

        async def later(self) -> None:
            await self.pass_gate("later")
            await self.push("later", await sync_to_async(threading.active_count)())

    later = gate("later")
    async with opened(Starting) as client:
        await client.join(A)
        await client.push(A, "start")
        later.set()
        assert (await client.receive_event(A)).event == "later"
        await client.disconnect()


# -- the socket -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "chosen", "token"),
    [
        ([], None, None),
        (["phoenix"], "phoenix", None),
        (["phoenix", "base64url.bearer.phx.c2VjcmV0"], "phoenix", "secret"),
        (["phoenix", "base64url.bearer.phx.w6nDvz8/"], "phoenix", "éÿ??"),
        (["phoenix", "base64url.bearer.phx.____"], "phoenix", None),
        (["phoenix", "base64url.bearer.phx.a"], "phoenix", None),
        (["base64url.bearer.phx.c2VjcmV0"], None, "secret"),
    ],
)
async def test_subprotocol_and_token(offered: list[str], chosen: str | None, token: str | None) -> None:
    seen: list[Any] = []

    class Socket(TopicSocket):
        async def connect(self) -> None:
            seen.append((self.auth_token, self.params["name"]))
            await super().connect()

    async with TopicCommunicator(Socket.as_asgi(), "/?vsn=2.0.0&name=ada", subprotocols=offered) as client:
        assert await client.connect() == (True, chosen)
        await client.disconnect()
    assert seen == [(token, "ada")]


@pytest.mark.parametrize(
    ("query", "answer"),
    [("?vsn=1.0.0", (False, 403)), ("?vsn=", (False, 403)), ("?vsn=2.1.0", (True, None)), ("", (True, None))],
)
async def test_other_versions_of_the_protocol_are_denied(query: str, answer: Any) -> None:
    async with TopicCommunicator(TopicSocket.as_asgi(), f"/{query}") as client:
        assert await client.connect() == answer
        if not answer[0]:
            assert b"version 2.0.0" in (await client.receive_output())["body"]
        await client.disconnect()


async def test_connect_may_deny_the_client() -> None:
    class Closed(TopicSocket):
        async def connect(self) -> None:
            raise DenyConnection(401)

    async with TopicCommunicator(Closed.as_asgi(topics=[Gate])) as client:
        assert await client.connect() == (False, 401)


async def test_instance_is_an_application() -> None:
    class Socket(TopicSocket):
        topics = [Gate]

    async with TopicCommunicator(Socket()) as client:
        await client.connect()
        assert (await client.join(A)).status == "ok"
        await client.disconnect()


def test_application_knows_its_class() -> None:
    application = TopicSocket.as_asgi(topics=[Gate])
    assert application.consumer_class is TopicSocket
