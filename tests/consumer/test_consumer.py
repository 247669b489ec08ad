"""Consumers: dispatch, the channel layer's side, worker threads, and every way out of a connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels._limits import Limits
from trio_channels._threads.pool import current_pool
from trio_channels.consumer import AsyncConsumer, SyncConsumer
from trio_channels.exceptions import (
    BridgeError,
    ConfigurationError,
    ConnectionClosed,
    IllegalMessage,
    StopConsumer,
    UnhandledMessage,
)
from trio_channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer
from trio_channels.layers import Gap, InMemoryChannelLayer
from trio_channels.testing import ApplicationCommunicator, ScriptedConnection, WebsocketCommunicator

PATIENCE = 20
SCOPE = {"type": "websocket", "path": "/", "client": ("192.0.2.7", 4711)}
SEND = {"type": "websocket.send", "text": "x"}


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(capacity=5)


class Recorder(AsyncWebsocketConsumer):
    """Joins "room", and logs texts, messages and the disconnect."""

    groups = ("room",)

    def __init__(self, layer: InMemoryChannelLayer, log: list[Any]) -> None:
        self.channel_layer = layer
        self.log = log

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.log.append(text_data)

    async def chat_message(self, event: dict[str, Any]) -> None:
        self.log.append(event["text"])

    async def disconnect(self, code: int) -> None:
        assert self.channel_layer is not None
        self.log.append(("disconnect", code, self.channel_layer.statistics().memberships))


def empty(layer: InMemoryChannelLayer) -> bool:
    seen = layer.statistics()
    return (seen.channels, seen.groups, seen.memberships, seen.waiting) == (0, 0, 0, 0)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


# -- an application ---------------------------------------------------------------------------------------------------


async def test_each_connection_has_its_own_instance(layer: InMemoryChannelLayer) -> None:
    logs: list[list[Any]] = [[], []]
    for log in logs:
        application = Recorder.as_asgi(layer=layer, log=log)
        await ScriptedConnection.websocket("a").run(application)
    assert logs == [["a", ("disconnect", 1000, 1)]] * 2
    assert application.consumer_class is Recorder
    assert application.consumer_initkwargs == {"layer": layer, "log": logs[1]}
    assert application.__name__ == "Recorder"  # type: ignore[attr-defined]
    assert application.__doc__ == Recorder.__doc__


async def test_instance_is_an_application_too(layer: InMemoryChannelLayer) -> None:
    log: list[Any] = []
    await ScriptedConnection.websocket("a").run(Recorder(layer, log))
    assert log[0] == "a"


async def test_handler_sees_scope_channel_name_and_layer(layer: InMemoryChannelLayer) -> None:
    seen: list[Any] = []

    class Consumer(AsyncWebsocketConsumer):
        channel_layer = layer

        async def connect(self) -> None:
            seen.extend([self.scope["path"], self.channel_name, self.channel_layer, repr(self)])
            await self.accept()

    async with WebsocketCommunicator(Consumer.as_asgi(), "/a/") as client:
        await client.connect()
    assert seen[0] == "/a/"
    assert "!" in seen[1]
    assert seen[2] is layer
    assert seen[3] == "<Consumer <Connection websocket /a/: connecting, 0 events waiting>>"
    assert repr(Consumer()) == "<Consumer None>"


async def test_layer_is_the_one_of_the_alias(settings: Any) -> None:
    seen: list[Any] = []

    class Consumer(AsyncWebsocketConsumer):
        channel_layer_alias = "missing"

        async def connect(self) -> None:
            seen.extend([self.channel_layer, hasattr(self, "channel_name")])
            await self.accept()

    await ScriptedConnection.websocket().run(Consumer.as_asgi())
    assert seen == [None, False]


@pytest.mark.parametrize("wrong", [0, "2"])
def test_concurrency_below_one_is_refused(wrong: object) -> None:
    expected = rf"Wrong\.handler_concurrency must be an int of at least 1; got {wrong!r}"
    with pytest.raises(ConfigurationError, match=expected):
        type("Wrong", (AsyncConsumer,), {"handler_concurrency": wrong})


def test_unknown_overflow_rule_is_refused_at_class_creation() -> None:
    expected = r"Wrong\.mailbox_overflow must be None or one of \('close', .*\); got 'drop'"
    with pytest.raises(ConfigurationError, match=expected):
        type("Wrong", (AsyncConsumer,), {"mailbox_overflow": "drop"})


@pytest.mark.parametrize("base", [AsyncConsumer, SyncConsumer, AsyncWebsocketConsumer, WebsocketConsumer])
def test_unused_class_arguments_are_refused_at_routing(base: type[AsyncConsumer]) -> None:
    class Plain(base):  # type: ignore[misc, valid-type]
        pass

    with pytest.raises(ConfigurationError, match="room"):
        Plain.as_asgi(room="lobby")
    Plain.as_asgi()


def test_unknown_class_arguments_are_refused_at_routing() -> None:
    class Needs(WebsocketConsumer):
        def __init__(self, room: str) -> None:
            super().__init__()
            self.room = room

    class Inherits(Needs):
        pass

    for consumer in Needs, Inherits:
        with pytest.raises(ConfigurationError, match=rf"{consumer.__name__} cannot .*'room'"):
            consumer.as_asgi()
        with pytest.raises(ConfigurationError, match=rf"{consumer.__name__} cannot .*'rooom'"):
            consumer.as_asgi(room="lobby", rooom="lobby")
        assert consumer.as_asgi(room="lobby").consumer_initkwargs == {"room": "lobby"}


async def is_async(*_args: Any) -> None:
    raise AssertionError("not called")


@pytest.mark.parametrize(
    ("base", "method"),
    [
        (WebsocketConsumer, {"receive": is_async}),
        (WebsocketConsumer, {"websocket_connect": is_async}),
        (JsonWebsocketConsumer, {"receive_json": is_async}),
        (JsonWebsocketConsumer, {"decode_json": classmethod(is_async)}),
        (SyncConsumer, {"dispatch": is_async}),
    ],
)
def test_async_method_of_a_sync_consumer_is_refused(base: type, method: dict[str, Any]) -> None:
    (name,) = method
    with pytest.raises(ConfigurationError, match=rf"Wrong\.{name} is async, .* is synchronous"):
        type("Wrong", (base,), method)


def test_synchronous_consumer_may_have_async_methods_of_its_own() -> None:
    type("Right", (WebsocketConsumer,), {"for_async_to_sync": is_async})


# -- order and concurrency --------------------------------------------------------------------------------------------


async def test_handlers_of_one_connection_run_one_at_a_time_in_order() -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(f"+{text_data}")
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            log.append(f"-{text_data}")

    await ScriptedConnection.websocket(*"abcde").run(Consumer.as_asgi())
    assert log == [f"{sign}{text}" for text in "abcde" for sign in "+-"]


async def test_client_and_the_layer_take_turns(layer: InMemoryChannelLayer) -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        channel_layer = layer

        async def connect(self) -> None:
            await self.accept()
            for text in "123":
                await layer.send(self.channel_name, {"type": "chat.message", "text": text})
            await wait_all_tasks_blocked()  # the client's messages have come, too

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(str(text_data))

        async def chat_message(self, event: dict[str, Any]) -> None:
            log.append(event["text"])

    await ScriptedConnection.websocket(*"abc").run(Consumer.as_asgi())
    assert log in (list("1a2b3c"), list("a1b2c3"))


async def test_several_handlers_run_at_a_time_up_to_handler_concurrency() -> None:
    most = running = 0

    class Consumer(AsyncWebsocketConsumer):
        handler_concurrency = 3

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            nonlocal most, running
            running += 1
            most = max(most, running)
            await wait_all_tasks_blocked()
            running -= 1

    await ScriptedConnection.websocket(*"abcdefgh").run(Consumer.as_asgi())
    assert (most, running) == (3, 0)


async def test_handshake_is_finished_before_concurrent_handlers_begin() -> None:
    log: list[str | None] = []

    class Consumer(AsyncWebsocketConsumer):
        handler_concurrency = 3

        async def connect(self) -> None:
            await wait_all_tasks_blocked()
            await self.accept()
            log.append("connected")

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(text_data)

    async with ApplicationCommunicator(Consumer.as_asgi(), dict(SCOPE)) as client:
        await client.send_input({"type": "websocket.connect"})
        await client.send_input({"type": "websocket.receive", "text": "a"})
        await client.receive_output()
        await wait_all_tasks_blocked()
    assert log == ["connected", "a"]


async def test_concurrent_handlers_may_finish_before_disconnect_runs() -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        handler_concurrency = 3

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await wait_all_tasks_blocked()
            log.append("finished")

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    await ScriptedConnection.websocket("a", "b").run(Consumer.as_asgi())
    assert log == ["finished", "finished", "disconnect"]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_cancel_on_disconnect_cancels_running_handlers_at_once(
    concurrency: int, autojump_clock: MockClock
) -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        handler_concurrency = concurrency
        cancel_on_disconnect = True

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            started.set()
            try:
                await trio.sleep_forever()
            finally:
                log.append("cancelled")

        async def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    started = trio.Event()
    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="a")
        await started.wait()
        await client.disconnect(4001)
    assert log == ["cancelled", "disconnect 4001"]
    assert trio.current_time() == 0


async def test_running_handler_may_finish_for_disconnect_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        limits = Limits(disconnect_timeout=5)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await trio.sleep(4)
            log.append("finished")
            await trio.sleep(4)
            log.append("never")

        async def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    await ScriptedConnection.websocket("a", code=4001).run(Consumer.as_asgi())
    assert log == ["finished", "disconnect 4001"]
    assert "the handler of 'websocket.receive' on websocket / was cancelled" in caplog.text


async def test_messages_before_the_disconnect_are_handled() -> None:
    log: list[str | None] = []

    class Consumer(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            await wait_all_tasks_blocked()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(text_data)
            await self.send(text_data=text_data)
            log.append("never")

        async def disconnect(self, code: int) -> None:
            log.append("disconnect")

    await ScriptedConnection.websocket("a", "b").run(Consumer.as_asgi())
    assert log == ["a", "b", "disconnect"]


async def test_dispatch_can_wrap_every_handler() -> None:
    log: list[str] = []

    class Consumer(AsyncWebsocketConsumer):
        async def dispatch(self, message: dict[str, Any]) -> None:
            log.append(message["type"])
            await super().dispatch(message)

    await ScriptedConnection.websocket("a").run(Consumer.as_asgi())
    assert log == ["websocket.connect", "websocket.receive", "websocket.disconnect"]


# -- which messages reach which methods -------------------------------------------------------------------------------

FORGED = [
    "close",
    "send",
    "accept",
    "receive",
    "disconnect",
    "connect",
    "dispatch",
    "start_soon",
    "as_asgi",
    "_private",
    "__init__",
    "_x",
    "websocket.receive",
    "websocket.disconnect",
    "websocket.connect",
    "class.method",
    "prop",
    "",
    "no such",
]


@pytest.mark.parametrize("kind", FORGED)
async def test_layer_message_reaches_handlers_only(
    kind: str, layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []

    class Consumer(Recorder):
        async def _x(self, event: dict[str, Any]) -> None:
            log.append("private")

        async def close(self, *args: Any, **kwargs: Any) -> None:
            log.append("close")

        @classmethod
        async def class_method(cls, event: dict[str, Any]) -> None:
            log.append("class method")

        @property
        def prop(self) -> None:
            log.append("property")

    async with WebsocketCommunicator(Consumer.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        await layer.group_send("room", {"type": kind, "text": "forged", "code": 1})
        await layer.group_send("room", {"type": "chat.message", "text": "genuine"})
        await wait_all_tasks_blocked()
        await client.disconnect()
    assert log == ["genuine", ("disconnect", 1000, 1)]
    assert f"ignores a channel layer message of type {kind!r}" in caplog.text


async def test_unknown_messages_of_the_layer_are_logged_once_and_counted(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []
    consumers: list[Recorder] = []

    class Consumer(Recorder):
        async def connect(self) -> None:
            consumers.append(self)
            await super().connect()

    async with WebsocketCommunicator(Consumer.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        for _ in range(4):
            await layer.group_send("room", {"type": "no.such.thing"})
            await wait_all_tasks_blocked()
        await layer.group_send("room", {"no": "type"})
        await wait_all_tasks_blocked()
        assert consumers[0]._unhandled_layer_messages == 5
        await client.disconnect()
    [record] = caplog.records
    assert "Consumer has no method no_such_thing(self, event)" in record.getMessage()


async def test_unknown_event_of_the_server_is_an_error() -> None:
    class Consumer(AsyncConsumer):
        async def websocket_connect(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.accept"})

    with pytest.raises(
        UnhandledMessage, match=r"the server delivered 'websocket\.receive', but Consumer has no method"
    ):
        await ScriptedConnection.websocket("a").run(Consumer.as_asgi())


async def test_consumer_without_a_disconnect_handler_ends_quietly() -> None:
    class Consumer(AsyncConsumer):
        async def websocket_connect(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.accept"})

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        assert (await client.connect())[0]
        await client.disconnect()


async def test_gap_reaches_the_consumer_that_wants_to_know(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []

    class Wants(Recorder):
        mailbox_overflow = "drop_oldest"

        async def connect(self) -> None:
            await super().connect()
            for number in range(8):
                await layer.group_send("room", {"type": "chat.message", "text": number})

        async def channel_layer_gap(self, event: dict[str, Any]) -> None:
            self.log.append(Gap(event["lost"], event["reason"]))

    async with WebsocketCommunicator(Wants.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        await wait_all_tasks_blocked()
        await client.disconnect()
    assert log[:2] == [Gap(3, "overflow"), 3]


async def test_gap_does_not_trouble_a_consumer_that_does_not_ask(
    layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []
    async with WebsocketCommunicator(Recorder.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        await layer.flush()
        await wait_all_tasks_blocked()
        await client.disconnect()
    assert log == [("disconnect", 1000, 0)]
    assert caplog.records == []


# -- the ways out: disconnect runs once, memberships end after it -----------------------------------------------------


class Ways(Recorder):
    """Ends in the way that the client's text names; never accepts on ``/silent/``."""

    async def connect(self) -> None:
        if self.scope["path"] != "/silent/":
            await super().connect()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        match text_data:
            case "raise":
                raise LookupError("mine")
            case "background":
                self.start_soon(self.fail)
            case "stop":
                raise StopConsumer
            case "close":
                await self.close(4000)

    async def fail(self) -> None:
        raise LookupError("mine")


@pytest.mark.parametrize(
    ("text", "leaves", "code", "error"),
    [
        ("nothing", 1001, 1001, None),
        ("raise", None, 1011, LookupError),
        ("background", None, 1011, LookupError),
        ("stop", None, 1000, None),
        ("close", None, 4000, None),
        ("close", 4000, 4000, None),
    ],
)
async def test_disconnect_runs_once_and_memberships_end_after_it(
    layer: InMemoryChannelLayer,
    text: str,
    leaves: int | None,
    code: int,
    error: type[Exception] | None,
    autojump_clock: MockClock,
) -> None:
    log: list[Any] = []
    server = ScriptedConnection.websocket(text, code=leaves, path="/chat/")
    server.scope["client"] = ("192.0.2.7", 4711)
    application = Ways.as_asgi(layer=layer, log=log)
    if error is None:
        await server.run(application)
    else:
        with pytest.raises(error) as caught:
            await server.run(application)
        assert "on websocket /chat/ from 192.0.2.7:4711" in caught.value.__notes__
        assert server.sent[-1] == {"type": "websocket.close", "code": 1011}
    assert log == [("disconnect", code, 1)]
    assert empty(layer)


async def test_note_names_the_handler_that_failed(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(LookupError) as caught:
        await ScriptedConnection.websocket("raise").run(Ways.as_asgi(layer=layer, log=[]))
    assert caught.value.__notes__ == ["in the handler of 'websocket.receive'", "on websocket /"]


async def test_note_names_the_background_task_that_failed(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    with pytest.raises(LookupError) as caught:
        await ScriptedConnection.websocket("background").run(Ways.as_asgi(layer=layer, log=[]))
    assert caught.value.__notes__[0].startswith("in the background task Ways.fail")


async def test_connection_closed_of_another_connection_is_an_error(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    class Confused(Recorder):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise ConnectionClosed(1000, "another one")

    log: list[Any] = []
    with pytest.raises(ConnectionClosed, match="another one"):
        await ScriptedConnection.websocket("a", code=None).run(Confused.as_asgi(layer=layer, log=log))
    assert log == [("disconnect", 1011, 1)]


async def test_disconnect_runs_when_the_server_cancels(layer: InMemoryChannelLayer) -> None:
    log: list[Any] = []
    async with WebsocketCommunicator(Ways.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        client.stop()
        await wait_all_tasks_blocked()
    assert log == [("disconnect", 1012, 1)]
    assert empty(layer)


async def test_disconnect_runs_when_nobody_accepted_in_time(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[Any] = []
    server = ScriptedConnection.websocket(code=None, path="/silent/")
    await server.run(Ways.as_asgi(layer=layer, log=log))
    assert server.sent == [{"type": "websocket.close", "code": 1000}]
    assert log == [("disconnect", 1000, 1)]
    assert empty(layer)
    assert "(ACCEPT_TIMEOUT)" in caplog.text


async def test_full_mailbox_closes_with_1013(layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    read_on = trio.Event()

    class Slow(Recorder):
        async def chat_message(self, event: dict[str, Any]) -> None:
            await read_on.wait()
            await super().chat_message(event)

    async with (
        WebsocketCommunicator(Slow.as_asgi(layer=layer, log=log), "/") as slow,
        WebsocketCommunicator(Recorder.as_asgi(layer=layer, log=[]), "/") as other,
    ):
        await slow.connect()
        await other.connect()
        for number in range(7):  # one in its handler, five in the mailbox, one too many
            await layer.group_send("room", {"type": "chat.message", "text": number})
            await wait_all_tasks_blocked()
        read_on.set()
        closed = await slow.receive_output()
        assert (closed["code"], closed["reason"]) == (1013, "too slow for its groups")
        await slow.wait()
        assert log == [0, ("disconnect", 1013, 2)]
        assert layer.statistics().memberships == 1  # the other's
        await other.disconnect()
    assert layer.statistics().dropped == 1
    assert empty(layer)


async def test_stuck_handler_with_a_full_mailbox_is_cut_with_1013(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    log: list[Any] = []

    class Stuck(Recorder):
        limits = Limits(disconnect_timeout=5)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for _ in range(6):
                await layer.group_send("room", {"type": "chat.message", "text": "flood"})
            await trio.sleep_forever()

    async with WebsocketCommunicator(Stuck.as_asgi(layer=layer, log=log), "/") as client:
        await client.connect()
        await client.send_to(text_data="a")
        closed = await client.receive_output(timeout=10)
        assert closed["code"] == 1013
        await client.wait()
    assert log == [("disconnect", 1013, 1)]
    assert trio.current_time() == pytest.approx(5)


async def test_stop_consumer_ends_concurrent_handlers() -> None:
    log: list[str | None] = []

    class Consumer(AsyncWebsocketConsumer):
        handler_concurrency = 2
        limits = Limits(close_timeout=0.001)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(text_data)
            await wait_all_tasks_blocked()
            raise StopConsumer

    await ScriptedConnection.websocket(*"abcdefghijklmnopqrst", code=None).run(Consumer.as_asgi())
    assert set(log) == {"a", "b"}


@pytest.mark.parametrize("error", [StopConsumer, LookupError])
@pytest.mark.parametrize("where", ["handler", "background task"])
async def test_end_by_an_exception_is_not_logged_as_a_lack_of_time(
    error: type[Exception], where: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class Consumer(AsyncWebsocketConsumer):
        limits = Limits(close_timeout=1)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.start_soon(trio.sleep_forever)
            if where == "handler":
                raise error
            self.start_soon(self.fail)
            await trio.sleep_forever()

        async def fail(self) -> None:
            await trio.sleep(0.1)
            raise error

    with suppress(LookupError):
        await ScriptedConnection.websocket("go", code=None).run(Consumer.as_asgi())
    assert "was cancelled" not in caplog.text


async def test_failing_disconnect_is_reported_with_the_handlers_error(
    layer: InMemoryChannelLayer, autojump_clock: MockClock
) -> None:
    class Consumer(Ways):
        async def disconnect(self, code: int) -> None:
            raise OSError("disk")

    with pytest.raises(ExceptionGroup) as caught:
        await ScriptedConnection.websocket("raise", code=None).run(Consumer.as_asgi(layer=layer, log=[]))
    assert {type(error) for error in caught.value.exceptions} == {LookupError, OSError}
    assert empty(layer)


async def test_disconnect_handler_that_hangs_is_cut_and_logged(
    layer: InMemoryChannelLayer, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Consumer(Recorder):
        limits = Limits(disconnect_timeout=5)

        async def disconnect(self, code: int) -> None:
            await trio.sleep_forever()

    await ScriptedConnection.websocket().run(Consumer.as_asgi(layer=layer, log=[]))
    assert trio.current_time() == pytest.approx(5)
    assert "(DISCONNECT_TIMEOUT)" in caplog.text
    assert empty(layer)


# -- cancelled anywhere -----------------------------------------------------------------------------------------------


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self.left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


async def cancelled_at(steps: int, function: Callable[[], Any]) -> bool:
    """Run a function, cancelled at its n-th step; whether it came that far."""
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            await function()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.left <= 0


class Patient(ScriptedConnection):
    """A client that waits before each event until the application has nothing to do."""

    async def receive(self) -> dict[str, Any]:
        await wait_all_tasks_blocked()
        return await super().receive()


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("cancelling", [False, True])
@pytest.mark.parametrize("server", [ScriptedConnection, Patient])
async def test_consumer_can_be_cancelled_at_every_step(
    layer: InMemoryChannelLayer, concurrency: int, cancelling: bool, server: type[ScriptedConnection]
) -> None:
    class Consumer(AsyncWebsocketConsumer):
        channel_layer = layer
        groups = ("room", "other.room")
        handler_concurrency = concurrency
        cancel_on_disconnect = cancelling

        async def connect(self) -> None:
            log.append("connect")
            self.start_soon(self.tick)
            await self.accept()

        async def tick(self) -> None:
            for _ in range(3):
                await layer.group_send("room", {"type": "chat.message"})

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data)

        async def chat_message(self, event: dict[str, Any]) -> None:
            await self.send(text_data="event")

        async def disconnect(self, code: int) -> None:
            await trio.lowlevel.checkpoint()
            log.append("disconnect")

    step = 0
    reached = True
    while reached:
        step += 1
        log: list[str] = []
        reached = await cancelled_at(step, partial(server.websocket("a", "b").run, Consumer.as_asgi()))
        assert empty(layer), f"cancelled at step {step}"
        assert log.count("disconnect") == 1 or "connect" not in log, f"cancelled at step {step}"
    assert step > 10


@pytest.mark.time_limit(60)
async def test_sync_consumer_can_be_cancelled_at_every_step(layer: InMemoryChannelLayer) -> None:
    class Consumer(WebsocketConsumer):
        channel_layer = layer
        groups = ("room",)

        def connect(self) -> None:
            log.append("connect")
            self.accept()
            self.start_soon(int)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data)

        def disconnect(self, code: int) -> None:
            log.append("disconnect")

    pool = current_pool(2)
    for step in range(1, 120):  # how many steps there are depends on the threads
        log: list[str] = []
        await cancelled_at(step, partial(ScriptedConnection.websocket("a", "b").run, Consumer.as_asgi()))
        assert empty(layer), f"cancelled at step {step}"
        assert log.count("disconnect") == 1 or "connect" not in log, f"cancelled at step {step}"
        assert (pool.statistics().leased, pool.statistics().waiting) == (0, 0), f"cancelled at step {step}"


# -- synchronous consumers --------------------------------------------------------------------------------------------


async def test_handlers_of_four_connections_really_overlap() -> None:
    barrier = threading.Barrier(4)

    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            barrier.wait(PATIENCE)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ScriptedConnection.websocket("a").run, Consumer.as_asgi())
    assert not barrier.broken


async def test_handlers_of_one_sync_connection_run_one_at_a_time_in_order() -> None:
    log: list[str] = []

    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            log.append(f"+{text_data}")
            log.append(f"-{text_data}")

    await ScriptedConnection.websocket(*"abcde").run(Consumer.as_asgi())
    assert log == [f"{sign}{text}" for text in "abcde" for sign in "+-"]


async def test_what_a_sync_handler_sends_goes_out_in_order() -> None:
    class Consumer(WebsocketConsumer):
        limits = Limits(outbox=4)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for number in range(50):
                self.send(text_data=str(number))
            self.close(4000)

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="go")
        assert [await client.receive_from() for _ in range(50)] == [str(number) for number in range(50)]
        assert (await client.receive_output())["code"] == 4000
        await client.wait()


async def test_what_was_sent_before_a_sync_handler_failed_is_sent() -> None:
    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data="before")
            raise LookupError

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="a")
        assert await client.receive_output() == {"type": "websocket.send", "text": "before"}
        assert await client.receive_output() == {"type": "websocket.close", "code": 1011}
        with pytest.raises(LookupError):
            await client.wait()


async def test_malformed_message_raises_in_the_thread_that_made_it() -> None:
    caught: list[tuple[bool, bool]] = []

    class Consumer(SyncConsumer):
        def websocket_connect(self, event: dict[str, Any]) -> None:
            try:
                self.send({"type": "websocket.send", "text": "too early"})
            except IllegalMessage:
                caught.append((True, threading.current_thread() is not threading.main_thread()))
            self.send({"type": "websocket.accept"})

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        assert (await client.connect())[0]
    assert caught == [(True, True)]


async def test_sync_consumer_sends_from_its_workers_only() -> None:
    class Consumer(SyncConsumer):
        def websocket_connect(self, event: dict[str, Any]) -> None:
            def elsewhere() -> None:
                with pytest.raises(BridgeError, match="can send only in its handlers"):
                    self.send({"type": "websocket.accept"})
                refused.append(True)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join(PATIENCE)
            self.send({"type": "websocket.accept"})

    refused: list[bool] = []
    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        assert (await client.connect())[0]
    assert refused == [True]


async def test_send_in_a_thread_raises_once_the_client_has_gone() -> None:
    log: list[str] = []

    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            entered.set()
            assert gone.wait(PATIENCE)
            log.append("gone")
            self.send(text_data="too late")
            log.append("never")

        def disconnect(self, code: int) -> None:
            log.append(f"disconnect {code}")

    entered, gone = threading.Event(), threading.Event()
    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="a")
        await until(entered.is_set)
        await client.send_input({"type": "websocket.disconnect", "code": 4001})
        await wait_all_tasks_blocked()
        gone.set()
        await client.wait()
    assert log == ["gone", "disconnect 4001"]


class SlowClient(ScriptedConnection):
    """A server whose client takes the handshake and nothing more, until it is told to; it confirms a close."""

    def __init__(self, *texts: str) -> None:
        events = [{"type": "websocket.connect"}, *({"type": "websocket.receive", "text": text} for text in texts)]
        super().__init__(dict(SCOPE), events)
        self.reads = trio.Event()
        self._to_come = len(events)
        self._closed = trio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._to_come:
            self._to_come -= 1
            return await super().receive()
        await self._closed.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await self.reads.wait()
        await super().send(message)
        if message["type"] == "websocket.close":
            self._closed.set()


@pytest.fixture
def flood() -> Iterator[type[WebsocketConsumer]]:
    """A sync consumer that sends as many messages as the client's text says; its outbox holds four."""

    class Flood(WebsocketConsumer):
        limits = Limits(outbox=4, send_timeout=PATIENCE)
        codes: list[int] = []
        sent = 0

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for _ in range(int(text_data or 0)):
                self.send(text_data="x")
                type(self).sent += 1

        def disconnect(self, code: int) -> None:
            self.codes.append(code)

    return Flood


async def test_slow_clients_hold_no_threads(flood: type[Any], nursery: trio.Nursery) -> None:
    pool = current_pool(2)
    for _ in range(10):  # five clients a thread; an outbox holds the three messages for one text
        nursery.start_soon(SlowClient("3", "3").run, flood.as_asgi())
    await until(lambda: flood.sent == 30)
    await until(lambda: not pool.statistics().leased)
    await wait_all_tasks_blocked()
    assert flood.sent == 30  # no second text is read before the outbox is half empty
    assert await pool.run_sync(int) == 0
    nursery.cancel_scope.cancel()


async def test_client_that_reads_on_gets_everything(flood: type[Any], nursery: trio.Nursery) -> None:
    client = SlowClient("10", "10")
    nursery.start_soon(client.run, flood.as_asgi())
    await until(lambda: flood.sent == 4)
    client.reads.set()
    await until(lambda: len(client.sent) == 21)
    nursery.cancel_scope.cancel()


async def test_full_outbox_blocks_and_then_closes_as_slow(flood: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    flood.limits = Limits(outbox=4, send_timeout=0.01)
    for _ in range(20):  # the writer and the handler race for the end
        client = SlowClient("10")
        await client.run(flood.as_asgi())
        assert client.sent[-1] == {
            "type": "websocket.close",
            "code": 1013,
            "reason": "the client reads too slowly",
        }
    assert flood.codes == [1013] * 20
    assert "the client took none of 4 messages for 0.01 seconds (SEND_TIMEOUT)" in caplog.text
    assert current_pool().statistics().leased == 0


async def test_close_for_which_the_outbox_has_no_room_is_one_with_1013() -> None:
    class Closes(WebsocketConsumer):
        limits = Limits(outbox=1, send_timeout=0.01)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data="x")
            self.close(4000)

    client = SlowClient("10")
    await client.run(Closes.as_asgi())
    assert client.sent[-1].get("code") == 1013


async def test_handler_that_waits_for_room_is_woken_by_cancellation(flood: type[Any], nursery: trio.Nursery) -> None:
    flood.limits = Limits(outbox=4, send_timeout=10 * PATIENCE)
    nursery.start_soon(SlowClient("10").run, flood.as_asgi())
    await until(lambda: flood.sent == 4)
    nursery.cancel_scope.cancel()  # ends the thread's wait long before send_timeout
    with trio.fail_after(PATIENCE, shield=True):
        await until(lambda: not current_pool().statistics().leased)
    assert flood.sent == 4


async def test_nothing_can_be_sent_any_more_when_the_writer_has_ended(nursery: trio.Nursery) -> None:
    raised: list[ConnectionClosed] = []

    class Stubborn(WebsocketConsumer):
        limits = Limits(outbox=4, send_timeout=PATIENCE)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            full.set()
            while len(raised) < 3:
                try:
                    self.send(text_data="x")
                except ConnectionClosed as closed:
                    raised.append(closed)

    full = threading.Event()
    nursery.start_soon(SlowClient("go").run, Stubborn.as_asgi())
    await until(full.is_set)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await until(lambda: not current_pool().statistics().leased)
    assert len(raised) == 3


async def test_handler_that_waits_for_room_is_woken_when_the_client_goes(flood: type[Any]) -> None:
    client = SlowClient("10")
    receive = client.receive

    async def receive_and_leave() -> dict[str, Any]:
        if client.sent and flood.sent == 4:
            return {"type": "websocket.disconnect", "code": 4001}
        with trio.move_on_after(0.01):
            return await receive()
        await until(lambda: flood.sent == 4)
        return {"type": "websocket.disconnect", "code": 4001}

    # disconnect_timeout limits the wait for this server's send, which goes on when the client has gone.
    flood.limits = Limits(outbox=4, send_timeout=PATIENCE, disconnect_timeout=0.5)
    client.receive = receive_and_leave  # type: ignore[method-assign]
    await client.run(flood.as_asgi())
    assert flood.codes == [4001]
    assert flood.sent == 4


async def test_server_that_fails_in_the_writer_ends_the_connection(flood: type[Any]) -> None:
    flood.limits = Limits(outbox=4, send_timeout=PATIENCE, close_timeout=0.001)  # this server confirms no close
    server = ScriptedConnection.websocket("10", code=None)
    send = server.send

    async def fail(message: dict[str, Any]) -> None:
        if message["type"] == "websocket.send":
            await until(lambda: flood.sent == 4)
            raise ZeroDivisionError
        await send(message)

    server.send = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await server.run(flood.as_asgi())
    assert flood.codes == [1011]
    assert current_pool().statistics().leased == 0


async def test_full_mailbox_closes_a_sync_consumer(
    layer: InMemoryChannelLayer,
) -> None:
    class Consumer(WebsocketConsumer):
        channel_layer = layer
        groups = ("room",)
        limits = Limits(outbox=100)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            for _ in range(20):
                self.send(text_data="x")
            entered.set()
            assert full.wait(PATIENCE)

    entered, full = threading.Event(), threading.Event()
    client = SlowClient("go")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run, Consumer.as_asgi())
        await until(entered.is_set)
        for _ in range(6):
            await layer.group_send("room", {"type": "chat.message"})
        full.set()
        await until(lambda: client.sent[-1]["type"] == "websocket.close")
        client.reads.set()
    kinds = [message["type"] for message in client.sent]
    assert kinds.count("websocket.send") <= 1  # the one that the server had taken before
    assert client.sent[kinds.index("websocket.close")]["code"] == 1013
    assert empty(layer)


async def test_background_function_runs_beside_its_handler() -> None:
    ran_beside: list[bool] = []

    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            ran = threading.Event()
            self.start_soon(ran.set)
            ran_beside.append(ran.wait(PATIENCE))

    await ScriptedConnection.websocket("a").run(Consumer.as_asgi())
    assert ran_beside == [True]


async def test_background_functions_exception_closes_and_names_it() -> None:
    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.start_soon(self.fail, text_data)

        def fail(self, text: str) -> None:
            raise LookupError(text)

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="mine")
        assert (await client.receive_output())["code"] == 1011
        with pytest.raises(LookupError, match="mine") as caught:
            await client.wait()
    assert "Consumer.fail" in caught.value.__notes__[0]


async def test_async_background_function_of_a_sync_consumer_is_refused() -> None:
    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.start_soon(is_async)

    with pytest.raises(TypeError, match=r"expects a plain function; got <function is_async"):
        await ScriptedConnection.websocket("a").run(Consumer.as_asgi())


async def test_background_function_may_send() -> None:
    class Consumer(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.start_soon(self.send, text_data)

    async with WebsocketCommunicator(Consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="hello")
        assert await client.receive_from() == "hello"
        await client.disconnect()


async def test_sync_dispatch_can_wrap_every_handler() -> None:
    log: list[str] = []

    class Consumer(WebsocketConsumer):
        def dispatch(self, message: dict[str, Any]) -> None:
            log.append(message["type"])
            super().dispatch(message)

    await ScriptedConnection.websocket("a").run(Consumer.as_asgi())
    assert log == ["websocket.connect", "websocket.receive", "websocket.disconnect"]


async def test_outbox_shows_how_full_it_is(flood: type[Any], nursery: trio.Nursery) -> None:
    consumers: list[Any] = []

    class Consumer(flood):  # type: ignore[misc]
        def connect(self) -> None:
            consumers.append(self)
            super().connect()

    nursery.start_soon(SlowClient("3").run, Consumer.as_asgi())
    await until(lambda: Consumer.sent == 3)
    await wait_all_tasks_blocked()
    assert repr(consumers[0]._outbox) == "<Outbox 3/4 waiting>"
    nursery.cancel_scope.cancel()


# -- other scopes -----------------------------------------------------------------------------------------------------


async def test_scope_of_another_kind_is_served_by_its_types() -> None:
    log: list[Any] = []

    class Consumer(AsyncConsumer):
        async def thumbnails_make(self, event: dict[str, Any]) -> None:
            log.append(event["id"])
            await self.send({"type": "whatever", "the": "server understands"})
            raise StopConsumer

        async def channel_disconnect(self, event: dict[str, Any]) -> None:
            log.append("end")

    async with ApplicationCommunicator(Consumer.as_asgi(), {"type": "channel", "channel": "thumbnails"}) as worker:
        await worker.send_input({"type": "thumbnails.make", "id": 5})
        assert (await worker.receive_output())["the"] == "server understands"
        await worker.wait()
    assert log == [5, "end"]


async def test_normal_life_logs_nothing(layer: InMemoryChannelLayer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await ScriptedConnection.websocket("a").run(Recorder.as_asgi(layer=layer, log=[]))
    assert caplog.records == []


async def test_instance_may_be_called_again_while_it_ends() -> None:
    ending, gone = trio.Event(), trio.Event()

    class Consumer(AsyncConsumer):
        async def websocket_connect(self, event: dict[str, Any]) -> None:
            await self.send({"type": "websocket.accept"})

        async def websocket_disconnect(self, event: dict[str, Any]) -> None:
            ending.set()
            await gone.wait()

    instance = Consumer()

    async def first() -> None:
        await ScriptedConnection.websocket().run(instance)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await ending.wait()
        second = WebsocketCommunicator(instance, "/")  # type: ignore[arg-type]
        async with second:
            assert (await second.connect())[0]
            gone.set()
