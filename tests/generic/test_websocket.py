"""WebSocket consumers, with async and with plain methods: one behaviour, two ways to write it."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_channels._limits import Limits
from trio_channels.consumer import AsyncConsumer
from trio_channels.exceptions import (
    AcceptConnection,
    ConnectionClosed,
    DenyConnection,
    IllegalMessage,
    InvalidChannelLayerError,
)
from trio_channels.generic._websocket_protocol import WebsocketProtocol
from trio_channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
    _blocking,
)
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.sync import async_to_sync
from trio_channels.testing import ApplicationCommunicator, ScriptedConnection, WebsocketCommunicator

Consumer = type[Any]


def both(asynchronous: Consumer, synchronous: Consumer) -> Callable[[Callable[..., Any]], Any]:
    return pytest.mark.parametrize("consumer", [asynchronous, synchronous], ids=["async", "sync"])


def plain(name: str, base: Consumer, **methods: Any) -> Consumer:
    """A sync consumer class."""
    return type(name, (base,), methods)


def awaiting(method: Callable[..., Any]) -> Callable[..., Any]:
    """An async method of a plain one whose calls of `self` are to be awaited: there is one such call, the last."""

    @functools.wraps(method)
    async def call(self: Any, *args: Any, **kwargs: Any) -> None:
        result = method(self, *args, **kwargs)
        if result is not None:
            await result

    return call


def pair(json_too: bool = False, **methods: Callable[..., Any]) -> Any:
    """Parametrize with an async and a sync consumer of the same methods, each of which ends with its one call."""
    bases = (
        (AsyncJsonWebsocketConsumer, JsonWebsocketConsumer) if json_too else (AsyncWebsocketConsumer, WebsocketConsumer)
    )
    return both(
        plain("Async", bases[0], **{name: awaiting(method) for name, method in methods.items()}),
        plain("Sync", bases[1], **methods),
    )


@asynccontextmanager
async def connected(consumer: Consumer, path: str = "/", **kwargs: Any) -> AsyncIterator[WebsocketCommunicator]:
    async with WebsocketCommunicator(consumer.as_asgi(), path, **kwargs) as client:
        assert (await client.connect())[0]
        yield client


def raises(error: Callable[[], Exception]) -> Callable[[Any], None]:
    def connect(self: Any) -> None:
        raise error()

    return connect


# -- the handshake ----------------------------------------------------------------------------------------------------


@both(AsyncWebsocketConsumer, WebsocketConsumer)
async def test_connection_is_accepted_by_default(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/", subprotocols=["chat"]) as client:
        assert await client.connect() == (True, None)
        await client.disconnect()


class AsyncOfKeywords(AsyncWebsocketConsumer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greeting = kwargs["greeting"]

    async def connect(self) -> None:
        await self.accept(self.greeting)


class SyncOfKeywords(WebsocketConsumer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.greeting = kwargs["greeting"]

    def connect(self) -> None:
        self.accept(self.greeting)


@both(AsyncOfKeywords, SyncOfKeywords)
async def test_what_a_class_is_made_with_may_be_passed_on_to_the_base(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(greeting="hi"), "/", subprotocols=["hi"]) as client:
        assert await client.connect() == (True, "hi")


@pair(connect=lambda self: self.accept("chat", [(b"x-a", b"b")]))
async def test_acceptance_has_a_subprotocol_and_headers(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/", subprotocols=["mqtt", "chat"]) as client:
        assert await client.connect() == (True, "chat")
        assert client.response_headers == [(b"x-a", b"b")]


@pair(connect=raises(lambda: AcceptConnection("chat")))
async def test_accept_connection_accepts(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/", subprotocols=["chat"]) as client:
        assert await client.connect() == (True, "chat")


@pair(connect=lambda self: self.close(4003))
async def test_close_in_connect_denies(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        assert await client.connect() == (False, 4003)
        await client.wait()


@pair(connect=raises(DenyConnection))
async def test_deny_connection_denies(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        assert await client.connect() == (False, 1000)
        await client.wait()


DENIED = raises(lambda: DenyConnection(402, [(b"x-a", b"b")], b"pay first"))


@pair(connect=DENIED)
async def test_denial_may_have_a_response(consumer: Consumer) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.send_input({"type": "websocket.connect"})
        assert await client.receive_output() == {
            "type": "websocket.http.response.start",
            "status": 402,
            "headers": [(b"x-a", b"b")],
        }
        assert await client.receive_output() == {"type": "websocket.http.response.body", "body": b"pay first"}
        await client.wait()


@pytest.mark.parametrize("extensions", [None, {}, "missing"])
@pair(connect=DENIED)
async def test_denial_without_the_servers_extension_is_a_close(consumer: Consumer, extensions: Any) -> None:
    scope = {"type": "websocket", "path": "/", "extensions": extensions}
    if extensions == "missing":
        del scope["extensions"]
    async with ApplicationCommunicator(consumer.as_asgi(), scope) as client:
        await client.send_input({"type": "websocket.connect"})
        assert await client.receive_output() == {"type": "websocket.close"}


# -- messages ---------------------------------------------------------------------------------------------------------


@pair(receive=lambda self, text_data=None, bytes_data=None: self.send(text_data=text_data, bytes_data=bytes_data))
async def test_text_and_bytes_are_echoed(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="grüß")
        await client.send_to(bytes_data=b"\0\xff")
        await client.send_to(text_data="")
        assert [await client.receive_from() for _ in range(3)] == ["grüß", b"\0\xff", ""]
        await client.disconnect()


class AsyncShouts(AsyncWebsocketConsumer):
    async def websocket_receive(self, message: dict[str, Any]) -> None:
        await super().websocket_receive({**message, "text": message["text"].upper()})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)


class SyncShouts(WebsocketConsumer):
    def websocket_receive(self, message: dict[str, Any]) -> None:
        super().websocket_receive({**message, "text": message["text"].upper()})

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data)


@both(AsyncShouts, SyncShouts)
async def test_handler_of_the_servers_event_may_be_overridden(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="quiet")
        assert await client.receive_from() == "QUIET"
        await client.disconnect()


@both(AsyncWebsocketConsumer, WebsocketConsumer)
async def test_messages_are_ignored_by_default(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="hello")
        await client.disconnect()


@pair(receive=lambda self, text_data=None, bytes_data=None: self.send(text_data="bye", close=json.loads(text_data)))
@pytest.mark.parametrize(("close", "code"), [("true", 1000), ("4001", 4001)])
async def test_send_may_close_afterwards(consumer: Consumer, close: str, code: int) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data=close)
        assert await client.receive_from() == "bye"
        assert (await client.receive_output()).get("code", 1000) == code
        await client.wait()


@pair(receive=lambda self, text_data=None, bytes_data=None: self.send(text_data="on", close=json.loads(text_data)))
@pytest.mark.parametrize("close", ["false", "null", "0"])
async def test_send_that_is_not_told_to_close_does_not(consumer: Consumer, close: str) -> None:
    async with connected(consumer) as client:
        for _ in range(2):
            await client.send_to(text_data=close)
            assert await client.receive_from() == "on"
        await client.disconnect()


@pair(receive=lambda self, text_data=None, bytes_data=None: self.close(4001, "enough"))
async def test_close_has_a_code_and_a_reason_and_later_ones_do_nothing(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="a")
        await client.send_to(text_data="b")
        assert await client.receive_output() == {"type": "websocket.close", "code": 4001, "reason": "enough"}
        await client.wait()
        with pytest.raises(EOFError):
            await client.receive_output()


@pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 5000, "1000", 1.5])
async def test_code_that_must_not_be_sent_is_refused(code: Any) -> None:
    class Closes(AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            with pytest.raises(IllegalMessage, match="code must be a WebSocket close code"):
                await self.close(code)
            await self.send(text_data="still there")

    async with connected(Closes) as client:
        await client.send_to(text_data="a")
        assert await client.receive_from() == "still there"


@pair(receive=lambda self, text_data=None, bytes_data=None: self.send())
async def test_message_of_nothing_is_an_error(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="a")
        assert (await client.receive_output())["code"] == 1011
        with pytest.raises(IllegalMessage, match="exactly one of 'text' and 'bytes'"):
            await client.wait()


@pytest.mark.parametrize(("event", "code"), [({"code": 4001}, 4001), ({}, 1005), ({"code": None}, 1005)])
async def test_disconnect_gets_the_code_or_1005(event: dict[str, Any], code: int) -> None:
    codes: list[int] = []

    class Records(AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", **event}]
    await ScriptedConnection({"type": "websocket"}, events).run(Records.as_asgi())
    assert codes == [code]


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_disconnect_of_the_base_takes_its_code_by_name(base: Consumer) -> None:
    class Passes(base):  # type: ignore[misc]
        def disconnect(self, close_code: int) -> Any:
            return super().disconnect(code=close_code)

    await ScriptedConnection.websocket(code=4001).run(Passes.as_asgi())


async def test_send_after_a_close_of_its_own_raises() -> None:
    raised: list[int | None] = []

    class Closes(WebsocketConsumer):
        limits = Limits(close_timeout=0.001)

        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.close()
            try:
                self.send(text_data="too late")
            except ConnectionClosed as closed:
                raised.append(closed.code)
                raise

    server = ScriptedConnection.websocket("a", code=None)
    await server.run(Closes.as_asgi())
    assert raised == [1000]
    assert server.sent[1:] == [{"type": "websocket.close"}]


def test_sync_consumers_coroutines_must_not_suspend() -> None:
    class Wrong:
        @_blocking
        async def method(self) -> None:
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"Wrong\.method suspended in a synchronous consumer"):
            Wrong().method()

    trio.run(main)


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


class AsyncRoom(AsyncWebsocketConsumer):
    groups = ("room", "lobby")

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert self.channel_layer is not None
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class SyncRoom(WebsocketConsumer):
    groups = ("room", "lobby")

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert self.channel_layer is not None
        async_to_sync(self.channel_layer.group_send)("room", {"type": "chat.message", "text": text_data})

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])


@both(AsyncRoom, SyncRoom)
async def test_groups_are_joined_before_connect_and_left_after_disconnect(
    consumer: Consumer, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "channel_layer", layer)
    async with connected(consumer) as ada, connected(consumer) as bob:
        assert layer.statistics().memberships == 4
        await ada.send_to(text_data="hello")
        assert [await ada.receive_from(), await bob.receive_from()] == ["hello", "hello"]
        await ada.disconnect()
        await bob.disconnect()
    assert (layer.statistics().memberships, layer.statistics().channels) == (0, 0)


@both(AsyncRoom, SyncRoom)
async def test_groups_without_a_channel_layer_are_an_error(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "channel_layer_alias", "missing")
    with pytest.raises(InvalidChannelLayerError, match=r"Room\.groups needs a channel layer"):
        await ScriptedConnection.websocket(code=None).run(consumer.as_asgi())


@both(AsyncRoom, SyncRoom)
async def test_joining_without_a_layer_does_nothing(consumer: Consumer) -> None:
    result = consumer()._join("room")
    if result is not None:
        await result


class AsyncNoGroups(AsyncWebsocketConsumer):
    groups = None


class SyncNoGroups(WebsocketConsumer):
    groups = None


@both(AsyncNoGroups, SyncNoGroups)
async def test_groups_may_be_none(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.disconnect()


def append_to_groups(self: Any) -> None:
    type(self).__mro__[1].__init__(self)
    self.groups.append("room")


@both(
    plain("Async", AsyncRoom, groups=None, __init__=append_to_groups),
    plain("Sync", SyncRoom, groups=None, __init__=append_to_groups),
)
async def test_instance_may_add_to_its_groups(
    consumer: Consumer, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "channel_layer", layer)
    async with connected(consumer) as ada, connected(consumer) as bob:
        await ada.send_to(text_data="hello")
        assert [await ada.receive_from(), await bob.receive_from()] == ["hello", "hello"]
        assert layer.statistics().memberships == 2


@both(plain("Async", AsyncRoom, groups=["room"]), plain("Sync", SyncRoom, groups=["room"]))
def test_what_an_instance_adds_to_its_groups_is_its_own(consumer: Consumer) -> None:
    consumer().groups.append("lobby")
    assert consumer().groups == consumer.groups == ["room"]


def rooms_of_the_path(self: Any) -> list[str]:
    return [self.scope["path"].strip("/")]


@both(
    plain("Async", AsyncRoom, groups=property(rooms_of_the_path)),
    plain("Sync", SyncRoom, groups=property(rooms_of_the_path)),
)
async def test_groups_may_depend_on_the_scope(
    consumer: Consumer, layer: InMemoryChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "channel_layer", layer)
    async with connected(consumer, "/room/") as ada, connected(consumer, "/lobby/") as bob:
        await ada.send_to(text_data="hello")
        assert await ada.receive_from() == "hello"
        assert await bob.receive_nothing()


# -- JSON -------------------------------------------------------------------------------------------------------------

ECHO_JSON = pair(json_too=True, receive_json=lambda self, content: self.send_json(content))


@ECHO_JSON
async def test_json_is_echoed(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        for value in ({"a": [1, None, "grüß"]}, "text", 5, None, [], "\ud800"):
            await client.send_json_to(value)
            assert await client.receive_json_from() == value
        await client.disconnect()


@ECHO_JSON
async def test_json_is_sent_as_text_that_people_can_read(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_json_to("grüß")
        assert await client.receive_from() == '"grüß"'


@ECHO_JSON
@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, "1" * 5_000, "{'a': 1}"])
async def test_text_that_is_not_json_closes_with_1007(consumer: Consumer, text: str) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data=text)
        closed = await client.receive_output()
        assert (closed["code"], closed["reason"]) == (1007, "expected JSON")
        await client.wait()


@ECHO_JSON
async def test_binary_message_closes_with_1003(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(bytes_data=b"{}")
        assert (await client.receive_output())["code"] == 1003
        await client.wait()


@both(AsyncJsonWebsocketConsumer, JsonWebsocketConsumer)
async def test_json_is_ignored_by_default(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_json_to({"a": 1})
        await client.disconnect()


@pair(json_too=True, receive_invalid_json=lambda self, text_data, error: self.send(text_data=type(error).__name__))
async def test_consumer_may_be_more_patient_with_what_is_not_json(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="{")
        assert await client.receive_from() == "JSONDecodeError"


@pair(json_too=True, receive_json=lambda self, content: self.send_json({"not": object()}))
async def test_what_cannot_be_encoded_is_the_applications_error(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_json_to(1)
        assert (await client.receive_output())["code"] == 1011
        with pytest.raises(TypeError, match="not JSON serializable"):
            await client.wait()


def _raise_value_error(self: Any, content: Any) -> None:
    raise ValueError("the application's own")


@pair(json_too=True, receive_json=_raise_value_error)
async def test_value_error_of_the_application_is_not_taken_for_bad_json(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_json_to(1)
        assert (await client.receive_output())["code"] == 1011
        with pytest.raises(ValueError, match="the application's own"):
            await client.wait()


class AsyncCodec(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json(content, close=4000)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        return text_data.upper()

    @classmethod
    async def encode_json(cls, content: Any) -> str:
        return f"<{content}>"


class SyncCodec(JsonWebsocketConsumer):
    def receive_json(self, content: Any) -> None:
        self.send_json(content, close=4000)

    @classmethod
    def decode_json(cls, text_data: str) -> Any:
        return text_data.upper()

    @classmethod
    def encode_json(cls, content: Any) -> str:
        return f"<{content}>"


@both(AsyncCodec, SyncCodec)
async def test_decoder_and_encoder_can_be_replaced(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_to(text_data="abc")
        assert await client.receive_from() == "<ABC>"
        assert (await client.receive_output())["code"] == 4000
        await client.wait()


class AsyncTagged(AsyncJsonWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        await super().receive(text_data, bytes_data, tag="a", **kwargs)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json([content, kwargs])


class SyncTagged(JsonWebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: Any) -> None:
        super().receive(text_data, bytes_data, tag="a", **kwargs)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        self.send_json([content, kwargs])


@both(AsyncTagged, SyncTagged)
async def test_what_receive_is_given_more_goes_on_to_receive_json(consumer: Consumer) -> None:
    async with connected(consumer) as client:
        await client.send_json_to(1)
        assert await client.receive_json_from() == [1, {"tag": "a"}]


class Echo(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await self.send_json(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | JSON.map(json.dumps) | JSON.map(json.dumps).map(lambda text: text[:-1]))
async def test_whatever_a_client_sends_is_decoded_or_closed_with_1007(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    async with connected(Echo) as client:
        await client.send_to(text_data=text)
        answer = await client.receive_output()
        try:
            expected = json.loads(text)
        except ValueError:
            assert (answer["type"], answer["code"]) == ("websocket.close", 1007)
        else:
            # Compared as text, as a NaN is not equal to itself.
            assert json.dumps(json.loads(answer["text"])) == json.dumps(expected)
        await client.disconnect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_tasks_of_a_consumer_end_with_it() -> None:
    ended = trio.Event()

    class Ticks(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            self.start_soon(self.tick, name="tick")

        async def tick(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

    async with connected(Ticks) as client:
        await wait_all_tasks_blocked()
        await client.disconnect()
    assert ended.is_set()


class OfAnotherKind(WebsocketProtocol, AsyncConsumer):
    """A third way to write consumers, on the same behaviour."""

    async def _emit(self, message: dict[str, Any]) -> None:
        await self._connection.send(message)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send("on")
        await self.send("last", close=4001)


async def test_shared_behaviour_sends_by_itself() -> None:
    async with connected(OfAnotherKind) as client:
        await client.send_to("any")
        assert [await client.receive_from() for _ in range(2)] == ["on", "last"]
        assert (await client.receive_output())["code"] == 4001
