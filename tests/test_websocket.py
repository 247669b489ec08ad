"""The WebSocket object and @websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_channels import WebSocket, websocket
from trio_channels._limits import Limits
from trio_channels.exceptions import ConnectionClosed, IllegalMessage, ServerProtocolError
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import ScriptedConnection, WebsocketCommunicator

GONE = {"type": "websocket.disconnect", "code": 4001, "reason": "bye"}


async def test_messages_are_yielded_in_order_until_the_client_has_gone() -> None:
    got: list[str | bytes] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        got.extend([message async for message in ws])
        got.append("the end")

    async with WebsocketCommunicator(endpoint, "/") as client:
        assert await client.connect() == (True, None)
        await client.send_to(text_data="a")
        await client.send_to(bytes_data=b"b")
        await client.disconnect()
    assert got == ["a", b"b", "the end"]


async def test_everything_that_came_before_the_disconnect_is_received() -> None:
    got: list[str | bytes] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws:
            await trio.lowlevel.checkpoint()
            got.append(message)

    await ScriptedConnection.websocket(*"abcdefghij").run(endpoint)
    assert got == list("abcdefghij")


async def test_receive_raises_with_the_clients_code_again_and_again() -> None:
    caught: list[tuple[int | None, str]] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        for _ in range(3):
            with pytest.raises(ConnectionClosed) as closed:
                await ws.receive()
            caught.append((closed.value.code, closed.value.reason))
        assert ws.close_code == 4001

    await ScriptedConnection({"type": "websocket"}, [{"type": "websocket.connect"}, GONE]).run(endpoint)
    assert caught == [(4001, "bye")] * 3


async def test_cancelled_receive_loses_nothing() -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ws.receive()
        got.append(await ws.receive())

    got: list[str | bytes] = []
    await ScriptedConnection.websocket("a").run(endpoint)
    assert got == ["a"]


@pytest.mark.parametrize("texts", ["", "a", "abcdefg"])
async def test_what_comes_after_the_loop_always_runs(texts: str) -> None:
    ends = 0

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        nonlocal ends
        await ws.accept()
        assert [message async for message in ws] == list(texts)
        ends += 1

    for _ in range(50):  # Trio schedules in random order
        await ScriptedConnection.websocket(*texts).run(endpoint)
    assert ends == 50


async def test_message_that_two_tasks_reach_for_goes_to_one_of_them() -> None:
    got: list[str | bytes] = []

    async def receive(ws: WebSocket) -> None:
        got.append(await ws.receive())

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        await wait_all_tasks_blocked()  # the message has come
        ws.start_soon(receive, ws)
        ws.start_soon(receive, ws)
        await trio.sleep_forever()

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        await client.send_to(text_data="a")
        await wait_all_tasks_blocked(0.01)
        assert got == ["a"]


async def test_busy_endpoint_is_cancelled_when_the_client_goes() -> None:
    said: list[str] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await trio.sleep_forever()
        finally:
            said.append("finally")

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        await client.disconnect()
    assert said == ["finally"]


async def test_without_cancel_on_disconnect_the_endpoint_may_finish(autojump_clock: MockClock) -> None:
    said: list[str] = []

    @websocket(cancel_on_disconnect=False, limits=Limits(disconnect_timeout=5))
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        await trio.sleep(4)
        said.append("finished")
        await trio.sleep(4)
        said.append("never")

    await ScriptedConnection.websocket().run(endpoint)
    assert said == ["finished"]
    assert trio.current_time() == pytest.approx(5)


async def test_endpoint_gets_what_is_left_but_not_for_ever(autojump_clock: MockClock) -> None:
    got: list[str | bytes] = []

    @websocket(limits=Limits(disconnect_timeout=5))
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws:
            await trio.sleep(2)
            got.append(message)

    await ScriptedConnection.websocket("a", "b", "c").run(endpoint)
    assert got == ["a", "b"]


async def test_returning_closes_with_1000() -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        assert await client.receive_output() == {"type": "websocket.close", "code": 1000}
        await client.wait()


async def test_returning_without_accepting_denies() -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await trio.lowlevel.checkpoint()

    async with WebsocketCommunicator(endpoint, "/") as client:
        assert await client.connect() == (False, 1000)


async def test_exception_closes_with_1011_and_goes_on_bare(autojump_clock: trio.testing.MockClock) -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        raise LookupError("mine")

    server = ScriptedConnection.websocket(path="/chat/", code=None)
    with pytest.raises(LookupError, match="mine") as caught:
        await server.run(endpoint)
    assert server.sent[-1] == {"type": "websocket.close", "code": 1011}
    assert caught.value.__notes__ == ["on websocket /chat/"]


async def test_endpoint_may_close_and_is_told_of_the_confirmation() -> None:
    said: list[Any] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close(4000, "enough")
        await ws.close()
        said.append(ws.close_code)
        said.extend([message async for message in ws])
        said.append("ended")

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        assert await client.receive_output() == {"type": "websocket.close", "code": 4000, "reason": "enough"}
        await client.wait()
    assert said == [4000, "ended"]


async def test_close_that_nobody_confirms_ends_the_endpoint_in_time(autojump_clock: MockClock) -> None:
    @websocket(limits=Limits(close_timeout=3))
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        await ws.close()
        await ws.receive()

    await ScriptedConnection.websocket(code=None).run(endpoint)
    assert trio.current_time() == pytest.approx(6)


async def test_text_and_bytes_are_sent_as_what_they_are() -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept("chat", [(b"x-a", b"b")])
        await ws.send("text")
        await ws.send(b"bytes")
        with pytest.raises(IllegalMessage):
            await ws.send(5)  # type: ignore[arg-type]
        with pytest.raises(IllegalMessage):
            await ws.accept()

    async with WebsocketCommunicator(endpoint, "/", subprotocols=["chat", "mqtt"]) as client:
        assert await client.connect() == (True, "chat")
        assert client.response_headers == [(b"x-a", b"b")]
        assert [await client.receive_from(), await client.receive_from()] == ["text", b"bytes"]


async def test_what_the_endpoint_can_see_of_the_connection() -> None:
    seen: list[Any] = []

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        seen.extend([ws.scope["path"], ws.subprotocols, ws.close_code, repr(ws), ws.nursery])
        await ws.accept()

    async with WebsocketCommunicator(endpoint, "/a/", subprotocols=["chat"]) as client:
        await client.connect()
    assert seen[:3] == ["/a/", ["chat"], None]
    assert seen[3] == "<WebSocket <Connection websocket /a/: connecting, 0 events waiting>>"
    assert isinstance(seen[4], trio.Nursery)


async def test_background_tasks_end_with_the_endpoint() -> None:
    ended = trio.Event()

    async def in_background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        ws.start_soon(in_background, name="in the background")
        await wait_all_tasks_blocked()

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        await client.wait()
    assert ended.is_set()


async def test_documented_chat_works_and_leaves_no_membership() -> None:
    layer = InMemoryChannelLayer()

    @websocket
    async def chat(ws: WebSocket) -> None:
        await ws.accept()
        async with layer.subscribe("room") as events:
            ws.start_soon(ws.send_each, (event["text"] async for event in events))
            async for text in ws:
                await layer.group_send("room", {"type": "chat.message", "text": text})

    async with WebsocketCommunicator(chat, "/") as ada, WebsocketCommunicator(chat, "/") as bob:
        await ada.connect()
        await bob.connect()
        await wait_all_tasks_blocked()
        await ada.send_to(text_data="hello")
        assert [await ada.receive_from(), await bob.receive_from()] == ["hello", "hello"]
        await ada.disconnect()
        assert layer.statistics().memberships == 1
    assert (layer.statistics().channels, layer.statistics().memberships) == (0, 0)


async def test_send_each_closes_its_generator_in_mid_send() -> None:
    closed: list[str] = []

    async def texts() -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            closed.append("closed")

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        ws.start_soon(ws.send_each, texts())
        async for _ in ws:
            pass

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "websocket.send":
            from_client.send_nowait(GONE)
            await trio.sleep_forever()

    from_client, receive = trio.open_memory_channel[dict[str, Any]](2)
    from_client.send_nowait({"type": "websocket.connect"})
    await endpoint({"type": "websocket"}, receive.receive, send)
    assert closed == ["closed"]


async def test_send_each_takes_other_async_iterables_and_leaves_them_open() -> None:
    texts, from_elsewhere = trio.open_memory_channel[str](2)
    texts.send_nowait("a")

    @websocket
    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        ws.start_soon(ws.send_each, from_elsewhere)
        await ws.receive()

    with texts, from_elsewhere:
        async with WebsocketCommunicator(endpoint, "/") as client:
            await client.connect()
            assert await client.receive_from() == "a"
            await client.send_to(text_data="enough")
            await client.receive_output()
            await client.wait()
        texts.send_nowait("b")
        assert from_elsewhere.receive_nowait() == "b"


async def test_another_kind_of_scope_is_refused() -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None: ...

    with pytest.raises(ServerProtocolError, match="expects a 'websocket' scope; got 'http'"):
        await ScriptedConnection({"type": "http"}).run(endpoint)


def test_application_has_the_endpoints_name() -> None:
    @websocket
    async def chat(ws: WebSocket) -> None:
        """Chats."""

    assert (chat.__name__, chat.__doc__) == ("chat", "Chats.")  # type: ignore[attr-defined]


async def test_nursery_deadline_holds_if_accepted_later(
    autojump_clock: MockClock,
) -> None:
    @websocket
    async def endpoint(ws: WebSocket) -> None:
        ws.nursery.cancel_scope.deadline = trio.current_time() + 3600
        await ws.accept()
        async for _ in ws:
            pass

    async with WebsocketCommunicator(endpoint, "/") as client:
        await client.connect()
        output = await client.receive_output(timeout=3700)
    assert output["type"] == "websocket.close"
    assert trio.current_time() == pytest.approx(3600)


async def test_deadline_of_the_nursery_does_not_put_off_the_limits(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    @websocket(limits=Limits(accept_timeout=5, disconnect_timeout=7), cancel_on_disconnect=False)
    async def endpoint(ws: WebSocket) -> None:
        try:
            if ws.scope["path"] == "/accepted":
                await ws.accept()
                await ws.receive()
            ws.nursery.cancel_scope.deadline = trio.current_time() + 3600
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with WebsocketCommunicator(endpoint, "/") as client:
        assert (await client.connect(timeout=60))[0] is False
    async with WebsocketCommunicator(endpoint, "/accepted") as client:
        await client.connect()
        await client.send_to(text_data="a")
        await client.disconnect(timeout=60)
    assert ended == pytest.approx([5, 5 + 7])
