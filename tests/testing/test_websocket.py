"""A WebSocket client for tests."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.exceptions import DenyConnection
from trio_channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.testing import WebsocketCommunicator


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if text_data == "crash":
            raise LookupError("asked to")
        if text_data == "close":
            await self.close(4001, "bye")
        else:
            await self.send(text_data=text_data, bytes_data=bytes_data)


async def test_text_and_bytes_go_both_ways() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
        assert await ws.connect() == (True, None)
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "hello"
        await ws.send_to(bytes_data=b"\0")
        assert await ws.receive_from() == b"\0"
        await ws.disconnect()


async def test_path_may_be_written_as_people_read_it() -> None:
    ws = WebsocketCommunicator(Echo.as_asgi(), "/café/")
    assert (ws.scope["path"], ws.scope["raw_path"]) == ("/café/", b"/caf%C3%A9/")


async def test_empty_messages_are_messages() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
        await ws.connect()
        await ws.send_to(text_data="")
        assert await ws.receive_from() == ""
        await ws.send_to(bytes_data=b"")
        assert await ws.receive_from() == b""


async def test_synchronous_consumer_is_talked_to_in_the_same_way() -> None:
    class SyncEcho(WebsocketConsumer):
        def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            self.send(text_data=text_data)

    async with WebsocketCommunicator(SyncEcho.as_asgi(), "/ws/") as ws:
        assert await ws.connect() == (True, None)
        await ws.send_to(text_data="hello")
        assert await ws.receive_from() == "hello"
        await ws.disconnect()


async def test_json_goes_both_ways() -> None:
    class JsonEcho(AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any) -> None:
            await self.send_json({"got": content})

    async with WebsocketCommunicator(JsonEcho.as_asgi(), "/ws/") as ws:
        await ws.connect()
        await ws.send_json_to(["ä", 1, None])
        assert await ws.receive_json_from() == {"got": ["ä", 1, None]}


async def test_json_in_a_binary_message_is_a_failure_of_the_test() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/ws/") as ws:
        await ws.connect()
        await ws.send_to(bytes_data=b"{}")
        with pytest.raises(AssertionError, match="expected JSON in a text message; got bytes"):
            await ws.receive_json_from()


async def test_scope_is_that_of_a_handshake() -> None:
    ws = WebsocketCommunicator(
        Echo.as_asgi(), "/caf%C3%A9/?a=1&b=%20", [(b"x-mine", b"1")], subprotocols=["chat"], spec_version="2.4"
    )
    assert ws.scope["type"] == "websocket"
    assert (ws.scope["path"], ws.scope["raw_path"]) == ("/café/", b"/caf%C3%A9/")
    assert ws.scope["query_string"] == b"a=1&b=%20"
    assert ws.scope["headers"] == [(b"x-mine", b"1")]
    assert ws.scope["subprotocols"] == ["chat"]
    assert ws.scope["spec_version"] == "2.4"


async def test_accept_reports_subprotocol_and_headers() -> None:
    class Chooses(Echo):
        async def connect(self) -> None:
            await self.accept("two", headers=[(b"x-a", b"1")])

    async with WebsocketCommunicator(Chooses.as_asgi(), "/", subprotocols=["one", "two"]) as ws:
        assert ws.response_headers is None
        assert await ws.connect() == (True, "two")
        assert ws.response_headers == [(b"x-a", b"1")]


async def test_denial_is_told_with_its_code() -> None:
    class Denies(Echo):
        async def connect(self) -> None:
            await self.close()

    async with WebsocketCommunicator(Denies.as_asgi(), "/") as ws:
        assert await ws.connect() == (False, 1000)
        await ws.wait()


async def test_denial_with_a_response_is_told_with_its_status() -> None:
    class Denies(Echo):
        async def connect(self) -> None:
            raise DenyConnection(429, [(b"retry-after", b"5")], b"slowly")

    async with WebsocketCommunicator(Denies.as_asgi(), "/") as ws:
        assert await ws.connect() == (False, 429)
        assert (await ws.receive_output())["body"] == b"slowly"
        await ws.wait()


async def test_close_by_the_application_is_confirmed_as_a_server_does_it() -> None:
    codes: list[int] = []

    class Closes(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with WebsocketCommunicator(Closes.as_asgi(), "/") as ws:
        await ws.connect()
        await ws.send_to(text_data="close")
        assert await ws.receive_output() == {"type": "websocket.close", "code": 4001, "reason": "bye"}
        await ws.wait()
    assert codes == [4001]


async def test_disconnecting_tells_the_code_and_waits() -> None:
    codes: list[int] = []

    class Notes(Echo):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    async with WebsocketCommunicator(Notes.as_asgi(), "/") as ws:
        await ws.connect()
        await ws.disconnect(code=1001)
        assert codes == [1001]


async def test_disconnecting_twice_is_once() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/") as ws:
        await ws.connect()
        await ws.disconnect()
        await ws.disconnect()


async def test_handlers_exception_is_raised_at_the_expected_answer() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/") as ws:
        await ws.connect()
        await ws.send_to(text_data="crash")
        with pytest.raises(LookupError, match="asked to"):
            await ws.receive_from()


async def test_exception_in_connect_is_raised_by_connect() -> None:
    class Fails(Echo):
        async def connect(self) -> None:
            raise LookupError("in connect")

    async with WebsocketCommunicator(Fails.as_asgi(), "/") as ws:
        with pytest.raises(LookupError, match="in connect"):
            await ws.connect()


async def test_unexpected_message_fails_the_test_that_shows_it() -> None:
    async with WebsocketCommunicator(Echo.as_asgi(), "/") as ws:
        await ws.connect()
        await ws.send_to(text_data="close")
        with pytest.raises(AssertionError, match=r"expected a message of type 'websocket.send' .* got .*4001"):
            await ws.receive_from()


async def test_connect_gives_up_after_its_time(autojump_clock: trio.testing.MockClock) -> None:
    class Ponders(Echo):
        async def connect(self) -> None:
            await trio.sleep(3)
            await self.accept()

    async with WebsocketCommunicator(Ponders.as_asgi(), "/") as ws:
        with pytest.raises(trio.TooSlowError):
            await ws.connect(timeout=1)
        assert (await ws.receive_output(timeout=3))["type"] == "websocket.accept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"text_data": "a", "bytes_data": b"a"}, "exactly one"),
        ({"text_data": b"a"}, "text_data must be a str"),
        ({"bytes_data": "a"}, "bytes_data must be bytes"),
    ],
)
async def test_wrong_argument_is_the_tests_own_error(arguments: Any, message: str) -> None:
    ws = WebsocketCommunicator(Echo.as_asgi(), "/")
    with pytest.raises(TypeError, match=message):
        await ws.send_to(**arguments)


async def test_path_that_is_no_str_is_the_tests_own_error() -> None:
    with pytest.raises(TypeError, match="path must be a str; got bytes"):
        WebsocketCommunicator(Echo.as_asgi(), b"/")  # type: ignore[arg-type]


async def test_close_after_the_client_left_is_no_second_disconnect() -> None:
    events: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        events.append((await receive())["type"])
        await send({"type": "websocket.close"})
        with trio.move_on_after(0):
            events.append((await receive())["type"])

    async with WebsocketCommunicator(application, "/") as client:
        await client.connect()
        await client.disconnect()
    assert events == ["websocket.disconnect"]
