"""One connection: reading ahead, sending, and every way out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._asgi.protocol import ASGIApplication, Message
from trio_channels._connection.connection import Connection
from trio_channels._connection.supervisor import supervise
from trio_channels._limits import Limits
from trio_channels.exceptions import ConnectionClosed, IllegalMessage, ServerProtocolError, StopConsumer
from trio_channels.testing import ScriptedConnection

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
LEFT = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}
SCOPE = {"type": "websocket", "path": "/chat/", "client": ("192.0.2.7", 4711), "headers": []}

Body = Callable[[Connection], Awaitable[Message | None]]


#: For a server whose send raises when the client has gone: the specification wants that from this version on.
OUTSPOKEN = SCOPE | {"asgi": {"version": "3.0", "spec_version": "2.4"}}


def text(number: int) -> Message:
    return {"type": "websocket.receive", "text": str(number)}


class Server(ScriptedConnection):
    """Counts the events that were read. A test's `on_send` runs before each send."""

    def __init__(self, *events: Any, scope: dict[str, Any] = SCOPE) -> None:
        super().__init__(dict(scope), events)
        self.read = 0
        self.on_send: Callable[[Message], Awaitable[object]] | None = None
        self.leave_after_close = False

    async def receive(self) -> Message:
        while self.leave_after_close and self.read == 1 and self.sent[-1:] != [self.closing]:
            await trio.lowlevel.checkpoint()
        event = await super().receive()
        self.read += 1
        return event

    async def send(self, message: Message) -> None:
        if self.on_send is not None:
            await self.on_send(message)
        self.sent.append(message)

    @property
    def closing(self) -> Message | None:
        return next((message for message in self.sent if message["type"] == "websocket.close"), None)


class Endings:
    """Records the calls of an ending."""

    def __init__(self) -> None:
        self.events: list[Message] = []

    async def __call__(self, event: Message) -> None:
        self.events.append(event)

    @property
    def codes(self) -> list[int]:
        return [event["code"] for event in self.events]


def application(
    body: Body,
    ending: Callable[[Message], Awaitable[object]] | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> ASGIApplication:
    async def run(scope: Any, receive: Any, send: Any) -> None:
        connection = Connection(scope, receive, send, limits, **options)
        await supervise(connection, functools.partial(body, connection), ending)

    return run


async def accept_and_wait(connection: Connection) -> Message:
    """Accept and wait for the disconnect, as an application without handlers does."""
    await connection.send(ACCEPT)
    return await until_left(connection)


async def until_left(connection: Connection) -> Message:
    while True:
        event = connection.events.take()
        if event is None:
            await connection.wakeup.wait()
        elif event["type"].endswith(".disconnect"):
            return event


# -- reading ----------------------------------------------------------------------------------------------------------


async def test_events_are_read_ahead_up_to_a_bound(nursery: trio.Nursery) -> None:
    server = Server(CONNECT, *map(text, range(100)))

    async def body(connection: Connection) -> None:
        await trio.sleep_forever()

    nursery.start_soon(server.run, application(body, limits=Limits(read_ahead=16)))
    await wait_all_tasks_blocked()
    assert server.read == 17  # 16 in the queue, and the one that the pump holds
    nursery.cancel_scope.cancel()


async def test_taking_an_event_lets_one_more_be_read(nursery: trio.Nursery) -> None:
    server = Server(CONNECT, *map(text, range(100)))
    taken = []

    async def body(connection: Connection) -> None:
        await wait_all_tasks_blocked()
        taken.append(connection.events.take())
        await trio.sleep_forever()

    nursery.start_soon(server.run, application(body, limits=Limits(read_ahead=2)))
    await wait_all_tasks_blocked(0.01)
    assert taken == [CONNECT]
    assert server.read == 4
    nursery.cancel_scope.cancel()


async def test_no_event_is_lost_or_reordered_by_the_bound() -> None:
    server = Server(CONNECT, *map(text, range(50)), LEFT)
    seen: list[Message] = []

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        while not seen or seen[-1] != LEFT:
            if event := connection.events.take():
                seen.append(event)
            else:
                await connection.wakeup.wait()
        return seen[-1]

    await server.run(application(body, limits=Limits(read_ahead=1)))
    assert seen == [CONNECT, *map(text, range(50)), LEFT]


async def test_what_comes_after_the_end_is_read_and_forgotten(autojump_clock: MockClock) -> None:
    server = Server(CONNECT, *map(text, range(100)), LEFT)

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)

    await server.run(application(body, limits=Limits(read_ahead=2)))
    assert server.read == 102


async def test_unknown_asgi_event_ends_with_1011() -> None:
    server = Server(CONNECT, {"type": "websocket.rubbish"})
    ending = Endings()
    with pytest.raises(ServerProtocolError, match=r"websocket\.rubbish") as caught:
        await server.run(application(accept_and_wait, ending))
    assert server.sent[-1] == {"type": "websocket.close", "code": 1011}
    assert ending.codes == [1011]
    assert caught.value.__notes__ == ["on websocket /chat/ from 192.0.2.7:4711"]


# -- sending ----------------------------------------------------------------------------------------------------------


async def test_send_loop_after_a_disconnect_lets_others_run() -> None:
    server = Server(CONNECT, LEFT)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.disconnected.wait()
        connection.start_soon(tick)
        for _ in range(100):
            with pytest.raises(ConnectionClosed):
                await connection.send({"type": "websocket.send", "text": "is anybody there?"})
        return await until_left(connection)

    await server.run(application(body))
    assert ticks >= 90  # about once a send


async def test_send_loop_without_checkpoints_lets_others_run() -> None:
    class LeavesInTheMiddle(Server):
        async def receive(self) -> Message:
            while self.read == 1 and len(self.sent) < 50:
                await trio.lowlevel.checkpoint()
            return await super().receive()

    server = LeavesInTheMiddle(CONNECT, LEFT)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        connection.start_soon(tick)
        try:
            while True:
                await connection.send({"type": "websocket.send", "text": "flood"})
        except ConnectionClosed:
            return await until_left(connection)

    await server.run(application(body))
    assert ticks >= 1  # and the disconnect has ended the loop


async def test_send_after_the_disconnect_raises_with_its_code_and_reason() -> None:
    server = Server(CONNECT, LEFT)
    caught: list[ConnectionClosed] = []

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.disconnected.wait()
        try:
            await connection.send({"type": "websocket.send", "text": "too late"})
        except ConnectionClosed as closed:
            caught.append(closed)
        return await until_left(connection)

    sent = await server.run(application(body))
    assert [(closed.code, closed.reason) for closed in caught] == [(4001, "bye")]
    assert str(caught[0]) == "the connection is closed (code 4001, bye)"
    assert sent == [ACCEPT]


async def test_malformed_message_raises_and_changes_nothing() -> None:
    server = Server(CONNECT, LEFT)

    async def body(connection: Connection) -> Message:
        with pytest.raises(IllegalMessage):
            await connection.send({"type": "websocket.send", "text": "before it is accepted"})
        await connection.send(ACCEPT)
        with pytest.raises(IllegalMessage):
            await connection.send({"type": "websocket.send", "text": 5})
        await connection.send({"type": "websocket.send", "text": "well"})
        return await until_left(connection)

    assert (await server.run(application(body)))[1:] == [{"type": "websocket.send", "text": "well"}]


@pytest.mark.parametrize("broken", [BrokenPipeError(), trio.BrokenResourceError(), trio.ClosedResourceError()])
async def test_server_that_cannot_write_means_that_the_client_has_gone(
    broken: Exception, autojump_clock: MockClock
) -> None:
    server = Server(CONNECT, scope=OUTSPOKEN)  # sends no disconnect event
    ending = Endings()

    async def refuse(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise broken

    server.on_send = refuse

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        with pytest.raises(ConnectionClosed) as caught:
            await connection.send({"type": "websocket.send", "text": "hello"})
        assert caught.value.__cause__ is broken
        return await until_left(connection)

    await server.run(application(body, ending, Limits(close_timeout=3)))
    assert ending.codes == [1006]
    assert trio.current_time() <= 6  # the wait for the disconnect has a limit


async def test_cancelled_send_does_not_reach_the_server() -> None:
    server = Server(CONNECT, LEFT, scope=OUTSPOKEN)

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.send({"type": "websocket.send", "text": "never"})
        return await until_left(connection)

    assert await server.run(application(body)) == [ACCEPT]


async def test_message_checked_before_a_close_is_not_sent_after_it(
    autojump_clock: MockClock,
) -> None:
    server = Server(CONNECT)
    late = {"type": "websocket.send", "text": "late"}

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        connection.check(late)
        connection.start_soon(connection.close)
        await wait_all_tasks_blocked()  # the server is slow with the close
        with pytest.raises(ConnectionClosed):
            await connection.send_checked(late)

    async def slowly(message: Message) -> None:
        if message["type"] == "websocket.close":
            await trio.sleep(1)

    server.on_send = slowly
    await server.run(application(body))
    assert late not in server.sent


async def test_close_under_way_makes_a_send_elsewhere_a_normal_end(autojump_clock: MockClock) -> None:
    server = Server(CONNECT)
    ending = Endings()

    async def slowly(message: Message) -> None:
        if message["type"] == "websocket.close":
            await trio.sleep(1)

    server.on_send = slowly

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        connection.start_soon(connection.close, 4000)
        await trio.sleep(0.5)
        await connection.send({"type": "websocket.send", "text": "too late"})

    await server.run(application(body, ending))
    assert len(ending.events) == 1


# -- the ways out -----------------------------------------------------------------------------------------------------


async def test_client_leaves_and_the_ending_gets_the_servers_event() -> None:
    ending = Endings()
    await Server(CONNECT, LEFT).run(application(accept_and_wait, ending))
    assert ending.events == [LEFT]


async def test_ending_still_has_the_nursery_when_the_client_has_left() -> None:
    ran = trio.Event()

    async def in_background() -> None:
        ran.set()

    connections: list[Connection] = []

    async def body(connection: Connection) -> Message:
        connections.append(connection)
        return await accept_and_wait(connection)

    async def ending(event: Message) -> None:
        connections[0].start_soon(in_background)
        await ran.wait()

    await Server(CONNECT, LEFT).run(application(body, ending))
    assert ran.is_set()


async def test_failing_body_closes_with_1011_and_raises_bare() -> None:
    server, ending, error = Server(CONNECT, LEFT), Endings(), KeyError("mine")

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        raise error

    with pytest.raises(KeyError) as caught:
        await server.run(application(body, ending))
    assert caught.value is error
    assert error.__notes__ == ["on websocket /chat/ from 192.0.2.7:4711"]
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1011}]
    assert ending.codes == [1011]


async def test_failing_background_task_is_raised_bare_with_its_name() -> None:
    server, ending = Server(CONNECT), Endings()

    async def failing() -> None:
        raise KeyError("mine")

    async def body(connection: Connection) -> Message:
        connection.start_soon(failing)
        return await accept_and_wait(connection)

    with pytest.raises(KeyError) as caught:
        await server.run(application(body, ending, Limits(close_timeout=0.001)))
    assert "failing" in caught.value.__notes__[0]
    assert ending.codes == [1011]


async def test_several_failures_stay_a_group() -> None:
    async def failing(error: Exception) -> None:
        raise error

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        for error in (KeyError("a"), ValueError("b")):
            connection.start_soon(failing, error)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup, match=r"several tasks of websocket /chat/") as caught:
        await Server(CONNECT, LEFT).run(application(body))
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ValueError}


async def test_failing_body_and_a_failing_ending_are_both_reported() -> None:
    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        raise KeyError("body")

    async def ending(event: Message) -> None:
        raise ValueError("ending")

    with pytest.raises(ExceptionGroup) as caught:
        await Server(CONNECT, LEFT).run(application(body, ending))
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


async def test_server_that_fails_to_close_still_runs_the_ending() -> None:
    server, ending = Server(CONNECT, LEFT), Endings()

    async def fail(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise RuntimeError("the server's own")

    server.on_send = fail

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)

    with pytest.raises(RuntimeError, match="the server's own"):
        await server.run(application(body, ending))
    assert len(ending.events) == 1


async def test_client_that_goes_while_it_is_told_goodbye_is_a_normal_end(autojump_clock: MockClock) -> None:
    server, ending = Server(CONNECT), Endings()

    async def fail(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise BrokenPipeError

    server.on_send = fail

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)

    await server.run(application(body, ending))
    assert ending.codes == [1006]


async def test_cancellation_while_draining_does_not_hide_what_went_wrong(autojump_clock: MockClock) -> None:
    server = Server(CONNECT)  # never confirms the close

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        raise KeyError("mine")

    with pytest.raises(KeyError), trio.move_on_after(1):
        await server.run(application(body, limits=Limits(close_timeout=10)))


async def test_cancellation_while_draining_is_a_cancellation(autojump_clock: MockClock) -> None:
    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)

    with trio.move_on_after(1) as scope:
        await Server(CONNECT).run(application(body, limits=Limits(close_timeout=10)))
    assert scope.cancelled_caught


@pytest.mark.parametrize("normal", [StopConsumer(), ConnectionClosed(1001)])
async def test_normal_ends_raise_nothing(normal: Exception) -> None:
    ending = Endings()

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        await connection.disconnected.wait()
        raise normal

    await Server(CONNECT, LEFT).run(application(body, ending))
    assert ending.codes == [4001]


async def test_connection_closed_of_something_else_is_an_error() -> None:
    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        raise ConnectionClosed(1000, "of another connection")

    with pytest.raises(ConnectionClosed, match="of another connection"):
        await Server(CONNECT).run(application(body, limits=Limits(close_timeout=0.001)))


async def test_connection_closed_in_a_background_task_ends_only_the_task() -> None:
    ending = Endings()

    async def send_on(connection: Connection) -> None:
        await connection.disconnected.wait()
        await connection.send({"type": "websocket.send", "text": "too late"})

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        connection.start_soon(send_on, connection)
        await wait_all_tasks_blocked()
        return await until_left(connection)

    await Server(CONNECT, LEFT).run(application(body, ending))
    assert ending.events == [LEFT]


async def test_connection_closed_in_a_background_task_is_an_error() -> None:
    async def failing() -> None:
        raise ConnectionClosed(1000, "of another connection")

    async def body(connection: Connection) -> Message:
        connection.start_soon(failing)
        return await accept_and_wait(connection)

    with pytest.raises(ConnectionClosed, match="of another connection"):
        await Server(CONNECT).run(application(body, limits=Limits(close_timeout=0.001)))


async def test_our_own_close_ends_when_the_server_confirms_it() -> None:
    ending = Endings()

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.close(4000, "enough")
        await connection.close()  # does nothing
        return await until_left(connection)

    sent = await Server(CONNECT, {**LEFT, "code": 4000}).run(application(body, ending))
    assert sent[1:] == [{"type": "websocket.close", "code": 4000, "reason": "enough"}]
    assert ending.codes == [4000]


async def test_overtaken_close_keeps_the_clients_code() -> None:
    server, ending, left = Server(CONNECT), Endings(), trio.Event()

    async def slowly(message: Message) -> None:
        if message["type"] == "websocket.close":
            left.set()
            await wait_all_tasks_blocked()

    server.on_send = slowly

    async def receive() -> Message:
        if server.read:
            await left.wait()
            return LEFT
        return await Server.receive(server)

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.close(4000)
        return await until_left(connection)

    await application(body, ending)(server.scope, receive, server.send)
    assert ending.codes == [4001]


async def test_own_close_ends_after_the_close_timeout(autojump_clock: MockClock) -> None:
    ending = Endings()

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.close(4000, "enough")
        return await until_left(connection)

    await Server(CONNECT).run(application(body, ending, Limits(close_timeout=3)))
    assert ending.events == [{"type": "websocket.disconnect", "code": 4000, "reason": "enough"}]
    assert trio.current_time() == pytest.approx(6)  # close_timeout twice: for the disconnect, then to drain


async def test_server_cancellation_sends_1012_and_runs_the_ending() -> None:
    server, ending = Server(CONNECT), Endings()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, application(accept_and_wait, ending))
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert server.sent[1:] == [{"type": "websocket.close", "code": 1012}]
    assert ending.codes == [1012]


async def test_ending_is_shielded_from_the_servers_cancellation() -> None:
    finished = False

    async def ending(event: Message) -> None:
        nonlocal finished
        await trio.lowlevel.checkpoint()
        finished = True

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Server(CONNECT).run, application(accept_and_wait, ending))
            await wait_all_tasks_blocked()
            scope.cancel()
    assert finished


async def test_error_of_the_ending_after_a_cancellation_is_raised() -> None:
    async def ending(event: Message) -> None:
        raise ValueError("ending")

    with pytest.raises(ValueError, match="ending"), trio.move_on_after(0):
        await Server(CONNECT).run(application(accept_and_wait, ending))


@pytest.mark.parametrize("leaves", [True, False])
async def test_ending_that_hangs_is_cut_at_its_deadline_and_logged(
    leaves: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(connection: Connection) -> Message | None:
        await connection.send(ACCEPT)
        return await until_left(connection) if leaves else None

    async def ending(event: Message) -> None:
        await trio.sleep_forever()

    await Server(CONNECT, LEFT).run(application(body, ending, Limits(disconnect_timeout=7)))
    assert trio.current_time() == pytest.approx(7)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "took longer than 7 seconds (DISCONNECT_TIMEOUT)" in record.getMessage()
    assert "/chat/ from 192.0.2.7:4711" in record.getMessage()


@pytest.mark.parametrize("normal", [StopConsumer(), ConnectionClosed()])
async def test_ending_may_end_as_a_handler_does(normal: Exception) -> None:
    async def ending(event: Message) -> None:
        raise normal

    await Server(CONNECT, LEFT).run(application(accept_and_wait, ending))


async def test_unanswered_handshake_is_denied_in_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    server, ending = Server(CONNECT), Endings()
    await server.run(application(until_left, ending, Limits(accept_timeout=5, close_timeout=1)))
    assert server.sent == [{"type": "websocket.close", "code": 1000}]
    assert ending.codes == [1000]
    assert 5 <= trio.current_time() <= 6  # and at most close_timeout for the server to confirm
    assert "neither accepted nor denied within 5 seconds" in caplog.text
    assert "no handler was running" in caplog.text


async def test_accepted_connection_has_no_deadline(autojump_clock: MockClock) -> None:
    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        await trio.sleep(10_000)

    await Server(CONNECT).run(application(body, limits=Limits(accept_timeout=5, close_timeout=1)))
    assert trio.current_time() == pytest.approx(10_001)


async def test_failed_handshake_is_left_to_the_server_at_once(autojump_clock: MockClock) -> None:
    server, ending = Server(CONNECT), Endings()

    async def body(connection: Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await server.run(application(body, ending))
    assert server.sent == []
    assert ending.codes == [1011]
    assert trio.current_time() == 0  # the server says nothing more before the application has returned


async def test_client_that_leaves_before_the_answer_cannot_be_accepted() -> None:
    ending = Endings()

    async def body(connection: Connection) -> Message:
        await connection.disconnected.wait()
        with pytest.raises(ConnectionClosed):
            await connection.send(ACCEPT)
        return await until_left(connection)

    assert await Server(CONNECT, LEFT).run(application(body, ending)) == []
    assert ending.codes == [4001]


async def test_accept_that_the_disconnect_overtakes_keeps_the_deadline(autojump_clock: MockClock) -> None:
    server = Server(CONNECT, LEFT)

    async def slowly(message: Message) -> None:
        await trio.sleep(1)

    server.on_send = slowly

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        await trio.sleep_forever()

    await server.run(application(body, limits=Limits(disconnect_timeout=4)))
    assert trio.current_time() == pytest.approx(4)


async def test_application_has_its_time_after_the_client_has_left(autojump_clock: MockClock) -> None:
    finished = False

    async def body(connection: Connection) -> Message:
        nonlocal finished
        await connection.send(ACCEPT)
        await connection.disconnected.wait()
        await trio.sleep(4)
        finished = True
        return await until_left(connection)

    await Server(CONNECT, LEFT).run(application(body, limits=Limits(disconnect_timeout=5)))
    assert finished


async def test_application_is_cancelled_after_the_disconnect_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ending = Endings()

    async def body(connection: Connection) -> None:
        connection.activity = "chat.message"
        await connection.send(ACCEPT)
        await trio.sleep_forever()

    await Server(CONNECT, LEFT).run(application(body, ending, Limits(disconnect_timeout=5)))
    assert trio.current_time() == pytest.approx(5)
    assert ending.events == [LEFT]
    assert "the handler of 'chat.message' on websocket /chat/" in caplog.text


async def test_cancel_on_disconnect_cancels_what_runs_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ending = Endings()

    async def body(connection: Connection) -> None:
        connection.activity = "chat.message"
        await connection.send(ACCEPT)
        await trio.sleep_forever()

    await Server(CONNECT, LEFT).run(application(body, ending, cancel_on_disconnect=True))
    assert trio.current_time() == 0
    assert ending.codes == [4001]
    assert caplog.records == []  # cancel_on_disconnect asks for the cancellation


async def test_cancel_on_disconnect_spares_a_waiting_handler() -> None:
    ending = Endings()
    await Server(CONNECT, LEFT).run(application(accept_and_wait, ending, cancel_on_disconnect=True))
    assert ending.events == [LEFT]


async def test_connection_that_is_cut_tells_the_client_why(autojump_clock: MockClock) -> None:
    server, ending = Server(CONNECT), Endings()

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        connection.cut(4008, "house rules", after=2)
        await trio.sleep_forever()

    await server.run(application(body, ending, Limits(close_timeout=1)))
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4008, "reason": "house rules"}]
    assert ending.codes == [4008]
    assert trio.current_time() == pytest.approx(3)


@pytest.mark.parametrize("event_first", [True, False])
async def test_cut_in_mid_write_ends_with_the_code_of_the_cut(event_first: bool, autojump_clock: MockClock) -> None:
    """A server that has written a part of a message can only reset the connection, and says so by 1006 or an error."""
    server, ending, reset = Server(CONNECT), Endings(), trio.Event()

    async def receive() -> Message:
        if server.read:
            await reset.wait()
            return {"type": "websocket.disconnect", "code": 1006}
        return await server.receive()

    async def send(message: Message) -> None:
        if message["type"] == "websocket.close":
            raise OSError("reset")
        if message["type"] == "websocket.send":
            try:
                await trio.sleep_forever()
            finally:
                if event_first:
                    reset.set()
                    with trio.CancelScope(shield=True):
                        await wait_all_tasks_blocked()

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)
        connection.cut(1013, "too slow", after=2)
        await connection.send({"type": "websocket.send", "text": "which the client does not read"})

    await application(body, ending, Limits(close_timeout=1))(server.scope, receive, send)
    assert [(event["code"], event["reason"]) for event in ending.events] == [(1013, "too slow")]


async def test_accept_does_not_lift_the_deadline_of_a_cut(autojump_clock: MockClock) -> None:
    server = Server(CONNECT)

    async def body(connection: Connection) -> None:
        connection.cut(4008, "house rules", after=2)
        await connection.send(ACCEPT)
        await trio.sleep_forever()

    await server.run(application(body, limits=Limits(close_timeout=1)))
    assert server.sent[-1]["code"] == 4008


async def test_client_that_does_not_take_the_close_does_not_hold_the_end(autojump_clock: MockClock) -> None:
    server, ending = Server(CONNECT), Endings()

    async def stuck(message: Message) -> None:
        if message["type"] == "websocket.close":
            await trio.sleep_forever()

    server.on_send = stuck

    async def body(connection: Connection) -> None:
        await connection.send(ACCEPT)

    await server.run(application(body, ending, Limits(close_timeout=2)))
    assert ending.codes == [1000]
    assert trio.current_time() == pytest.approx(4)


async def test_denial_with_a_response_closes_the_connection() -> None:
    ending = Endings()
    server = Server(CONNECT, LEFT, scope={**SCOPE, "extensions": {"websocket.http.response": {}}})

    async def body(connection: Connection) -> Message:
        await connection.send({"type": "websocket.http.response.start", "status": 402, "headers": []})
        await connection.send({"type": "websocket.http.response.body", "body": b"pay", "more_body": True})
        assert not connection.over
        await connection.send({"type": "websocket.http.response.body", "body": b" first"})
        assert connection.over
        return await until_left(connection)

    await server.run(application(body, ending))
    assert len(ending.events) == 1


# -- other scopes, and reprs ------------------------------------------------------------------------------------------


async def test_http_body_that_nobody_read_is_read_to_its_end() -> None:
    parts = [{"type": "http.request", "body": b"x", "more_body": True}] * 40
    server = Server(*parts, {"type": "http.request", "body": b""}, {"type": "http.disconnect"}, scope={"type": "http"})

    async def body(connection: Connection) -> None:
        await connection.send({"type": "http.response.start", "status": 413})
        await connection.send({"type": "http.response.body", "body": b"too much"})
        await wait_all_tasks_blocked()

    await server.run(application(body))
    assert server.read == 42


async def test_http_request_that_has_been_read_is_not_waited_for(autojump_clock: MockClock) -> None:
    server = Server({"type": "http.request"}, scope={"type": "http", "path": "/"})

    async def body(connection: Connection) -> None:
        await wait_all_tasks_blocked()
        await connection.send({"type": "http.response.start", "status": 200})
        await connection.send({"type": "http.response.body", "body": b"ok", "more_body": True})
        await connection.send({"type": "http.response.body"})

    await server.run(application(body))
    assert trio.current_time() == 0


async def test_there_is_no_nursery_before_and_after_the_run() -> None:
    server = Server(CONNECT, LEFT)
    connection = Connection(server.scope, server.receive, server.send)
    with pytest.raises(RuntimeError, match="not been started, or has ended"):
        connection.start_soon(trio.sleep_forever)
    await supervise(connection, functools.partial(accept_and_wait, connection))
    with pytest.raises(RuntimeError, match="not been started, or has ended"):
        _ = connection.nursery


async def test_a_repr_tells_the_state() -> None:
    shown: list[str] = []

    async def body(connection: Connection) -> Message:
        shown.append(repr(connection))
        event = await accept_and_wait(connection)
        shown.append(repr(connection))
        return event

    await Server(CONNECT, LEFT).run(application(body))
    assert shown[0] == "<Connection websocket /chat/ from 192.0.2.7:4711: connecting, 0 events waiting>"
    assert shown[1].endswith("open, 0 events waiting, the connection is closed (code 4001, bye)>")


async def test_own_closes_confirmation_cancels_nothing() -> None:
    server = Server(CONNECT, LEFT)
    finished: list[int | None] = []

    async def body(connection: Connection) -> Message:
        await connection.send(ACCEPT)
        await connection.close(4002, "enough")
        await connection.disconnected.wait()
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        finished.append(connection.closed.code if connection.closed else None)
        return await until_left(connection)

    ending = Endings()
    server.leave_after_close = True
    await server.run(application(body, ending, cancel_on_disconnect=True))
    assert finished == [4002]
    assert ending.codes == [4002]
