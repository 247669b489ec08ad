"""Asyncio code that Trio code calls: functions of libraries, and applications."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sniffio
import trio

from trio_channels._asgi.foreign_calls import explain
from trio_channels.compat import asyncio_application, call_asyncio
from trio_channels.testing import WebsocketCommunicator

SNIPPET = Path(__file__).parents[3] / "docs" / "snippets" / "asyncio_library.py"


@pytest.mark.parametrize("consumer", ["Inside", "InThread"])
async def test_consumer_of_the_documentation(consumer: str) -> None:
    spec = importlib.util.spec_from_file_location("asyncio_library", SNIPPET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with WebsocketCommunicator(getattr(module, consumer).as_asgi(), "/") as client:
        await client.connect()
        await client.send_to("word")
        assert await client.receive_from() == "WORD"


@pytest.mark.parametrize(
    ("call", "way"),
    [
        (lambda coroutine: asyncio.ensure_future(coroutine), "asyncio.ensure_future does not work in a Trio task"),
        (lambda coroutine: asyncio.run(coroutine), "await function(): Trio runs already"),
        (lambda coroutine: asyncio.get_running_loop(), "asyncio does not work in a Trio task"),
    ],
)
async def test_asyncio_in_a_trio_task_names_the_way(call: Callable[[Any], Any], way: str) -> None:
    async def function() -> None: ...

    coroutine = function()
    with pytest.raises((RuntimeError, AttributeError)) as failed:
        call(coroutine)
    coroutine.close()
    explain(failed.value)
    [note] = failed.value.__notes__
    assert way in note


async def test_calls_share_one_loop() -> None:
    async def loop() -> Any:
        return asyncio.get_running_loop()

    assert await call_asyncio(loop) is await call_asyncio(loop)


async def test_cancelled_call_cancels_the_function() -> None:
    seen = []

    async def wait(started: trio.Event) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async with trio.open_nursery() as nursery:
        started = trio.Event()
        nursery.start_soon(call_asyncio, wait, started)
        await started.wait()
        nursery.cancel_scope.cancel()
    assert seen == ["cancelled"]


async def test_error_of_the_function_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        await call_asyncio(fail)


async def test_application_for_asyncio() -> None:
    ended = []

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("background")

    async def application(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.ensure_future(background())
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": sniffio.current_async_library()})
        await receive()
        assert not task.done()

    async with WebsocketCommunicator(asyncio_application(application), "/") as client:
        await client.connect()
        assert await client.receive_from() == "asyncio"
        await client.disconnect()
    assert ended == ["background"]
