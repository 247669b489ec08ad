"""Consumers that come from ``channels``: handlers on asyncio, a connection of Trio."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import channels.consumer
import channels.generic.http
import channels.generic.websocket
import pytest
import sniffio
import trio

from trio_channels import compat
from trio_channels._limits import Limits
from trio_channels.compat import crossing
from trio_channels.generic import websocket
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.testing import HttpCommunicator, WebsocketCommunicator


class Echo(channels.generic.websocket.AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any) -> None:
        await asyncio.sleep(0)
        await self.send_json([content, sniffio.current_async_library()])


async def test_handlers_run_on_asyncio_and_the_connection_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    name = f"{__name__}.Echo"
    before = compat.asyncio_statistics().opened.get(name, 0)
    for _ in range(2):
        async with WebsocketCommunicator(Echo.as_asgi(), "/") as client:
            await client.connect()
            await client.send_json_to("hello")
            assert await client.receive_json_from() == ["hello", "asyncio"]
            assert compat.asyncio_statistics().open[name] == 1
            await client.disconnect()
    assert compat.asyncio_statistics().opened[name] == before + 2
    assert name not in compat.asyncio_statistics().open
    assert sum(f"{name} runs on asyncio" in line for line in caplog.messages) == (not before)


async def test_native_consumer_stays_native() -> None:
    class Native(websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(sniffio.current_async_library())

    async with WebsocketCommunicator(Native.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("")
        assert await client.receive_from() == "trio"
        assert not any("Native" in name for name in compat.asyncio_statistics().opened)


async def test_tasks_end_with_their_connection() -> None:
    ended = []

    class Background(channels.generic.websocket.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            self.task = asyncio.create_task(self.forever(), name="outer")
            await asyncio.sleep(0)

        async def forever(self) -> None:
            inner = asyncio.create_task(asyncio.sleep(3600))
            try:
                await inner
            finally:
                ended.append("forever")

    async with WebsocketCommunicator(Background.as_asgi(), "/") as client:
        await client.connect()
        await client.disconnect()
    assert ended == ["forever"]


async def test_cancelled_connection_cancels_its_handler() -> None:
    seen = []

    class Waiting(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            try:
                await self.send("waiting")
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        async def disconnect(self, code: int) -> None:
            await asyncio.sleep(0)
            seen.append("disconnect")

    async with WebsocketCommunicator(Waiting.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("")
        assert await client.receive_from() == "waiting"
    assert seen == ["cancelled", "disconnect"]


async def test_task_that_ignores_its_cancellation_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    released = []

    class Stubborn(channels.generic.websocket.AsyncWebsocketConsumer):
        limits = Limits(disconnect_timeout=0.05)

        async def connect(self) -> None:
            await self.accept()
            self.task = asyncio.create_task(self.stay(), name="stubborn")
            await asyncio.sleep(0)

        async def stay(self) -> None:
            future = asyncio.get_running_loop().create_future()
            released.append(future)
            while not future.done():
                try:
                    await asyncio.shield(future)
                except asyncio.CancelledError:
                    continue

    async with WebsocketCommunicator(Stubborn.as_asgi(), "/") as client:
        await client.connect()
        await client.disconnect()
    assert "1 asyncio tasks of" in caplog.text
    assert "ignored their cancellation for 0.05 seconds (DISCONNECT_TIMEOUT): stubborn" in caplog.text
    released[0].set_result(None)
    await trio.testing.wait_all_tasks_blocked()


async def test_task_that_begins_after_its_connection_ends_at_once() -> None:
    begun: list[str] = []
    contexts: list[contextvars.Context] = []

    class Late(channels.generic.websocket.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            contexts.append(contextvars.copy_context())  # as call_later() keeps it

    async def work() -> None:
        begun.append("work")

    async def start() -> None:
        task = contexts[0].run(asyncio.create_task, work())
        await asyncio.wait([task])
        assert task.cancelled()

    async with WebsocketCommunicator(Late.as_asgi(), "/") as client:
        await client.connect()
        await client.disconnect()
    await compat.call_asyncio(start)
    assert not begun


async def test_error_of_a_handler_ends_the_connection() -> None:
    class Failing(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            raise ValueError(text_data)

    client = WebsocketCommunicator(Failing.as_asgi(), "/")
    await client.connect()
    await client.send_to("broken")
    with pytest.raises(ValueError, match="broken") as raised:
        await client.wait()
    assert "in the handler of 'websocket.receive'" in raised.value.__notes__


async def test_error_of_a_background_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            asyncio.get_running_loop().call_soon(self.fail)
            await asyncio.sleep(0)
            await self.send("still here")

        def fail(self) -> None:
            raise ValueError("in the background")

    async with WebsocketCommunicator(Failing.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("")
        assert await client.receive_from() == "still here"
    assert "ValueError: in the background" in caplog.text


async def test_handler_that_asyncio_cancels_fails() -> None:
    class Cancelling(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)

    client = WebsocketCommunicator(Cancelling.as_asgi(), "/")
    await client.connect()
    await client.send_to("")
    with pytest.raises(RuntimeError, match=r"^asyncio code cancelled "):
        await client.wait()


async def test_start_soon_starts_an_asyncio_function() -> None:
    class Starting(channels.generic.websocket.AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept()
            self.start_soon(self.work, "done")

        async def work(self, text: str) -> None:
            await asyncio.sleep(0)
            await self.send(text)

    async with WebsocketCommunicator(Starting.as_asgi(), "/") as client:
        await client.connect()
        assert await client.receive_from() == "done"


async def test_messages_of_the_layer_reach_the_handlers() -> None:
    class Member(channels.generic.websocket.AsyncWebsocketConsumer):
        channel_layer = InMemoryChannelLayer()
        groups = ["tea"]

        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.channel_layer.group_send("tea", {"type": "said", "text": text_data})

        async def said(self, event: Any) -> None:
            await self.send(f"{event['text']} {sniffio.current_async_library()}")

    async with WebsocketCommunicator(Member.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("hello")
        assert await client.receive_from() == "hello asyncio"


async def test_http_consumer_handles_on_asyncio() -> None:
    class Page(channels.generic.http.AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await asyncio.sleep(0)
            await self.send_response(200, sniffio.current_async_library().encode())

    async with HttpCommunicator(Page.as_asgi(), "GET", "/") as client:
        assert (await client.get_response())["body"] == b"asyncio"


class Wrapping(Echo):
    """As channelsmultiplexer: the application is asyncio code, and calls the consumer's in a task."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        incoming: asyncio.Queue[Any] = asyncio.Queue()

        async def pass_on() -> None:
            while True:
                await incoming.put(await receive())

        async def answer(message: Any) -> None:
            await send(message)

        reading = asyncio.create_task(pass_on())
        try:
            await asyncio.create_task(super().__call__(scope, incoming.get, answer))
        finally:
            reading.cancel()


class Passing(Echo):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class Outer(Echo):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await Passing()(scope, receive, send)


@pytest.mark.parametrize("consumer", [Wrapping, Passing, Outer])
async def test_application_of_a_subclass_runs_on_asyncio(consumer: Any) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_json_to("hello")
        assert await client.receive_json_from() == ["hello", "asyncio"]
        await client.disconnect()


async def test_all_connections_share_one_loop() -> None:
    class Loop(channels.generic.websocket.AsyncWebsocketConsumer):
        async def receive(self, text_data: Any = None, bytes_data: Any = None) -> None:
            await self.send(str(id(asyncio.get_event_loop())))

    async with (
        WebsocketCommunicator(Loop.as_asgi(), "/") as one,
        WebsocketCommunicator(Loop.as_asgi(), "/") as two,
    ):
        for client in (one, two):
            await client.connect()
            await client.send_to("")
        assert await one.receive_from() == await two.receive_from()


def test_sync_consumers_are_those_of_trio() -> None:
    assert channels.consumer.SyncConsumer.__module__ == "trio_channels.consumer"


async def test_call_after_the_end_of_the_loop_is_an_error() -> None:
    loop = await crossing.enter_loop()
    loop.stop()
    await loop.wait_stopped()
    with pytest.raises(RuntimeError, match=r"the asyncio loop of .*sleep has ended"):
        await crossing.call_asyncio(asyncio.sleep, 0)


def test_log_has_the_level_warning() -> None:
    assert logging.getLogger("trio_channels.compat").isEnabledFor(logging.WARNING)
