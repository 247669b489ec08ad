"""A cancellation at each step of a user's task: nothing is left behind, and the socket is of use."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.client import ClientSocket, connect
from trio_channels.exceptions import NotConnected

from ..clients.application import make_application
from ..clients.trio_client import at_once
from ..server.clients import OURS, serving
from .scripted import connected, wait_until

ROOM = "room:lobby"


class CancelAt(trio.abc.Instrument):
    """Cancels a scope after so many steps of a task."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


async def at_each_step(use: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]]) -> int:
    """Cancel `use` after its first step, its second one, and so on; returns how many there are."""
    for steps in range(1, 1_000):
        canceller = CancelAt(steps)
        trio.lowlevel.add_instrument(canceller)
        try:
            with canceller.scope:
                await use()
        finally:
            trio.lowlevel.remove_instrument(canceller)
        await check()
        if not canceller.scope.cancelled_caught:
            return steps
    raise AssertionError


@asynccontextmanager
async def client() -> AsyncIterator[ClientSocket]:
    async with (
        serving(OURS, make_application()) as server,
        connect(f"ws://127.0.0.1:{server.port}/socket", back_off=at_once) as socket,
    ):
        yield socket


async def works(socket: ClientSocket) -> None:
    assert socket.statistics()[3:] == (0, 0)
    async with socket.join(ROOM) as room:
        assert await room.push("echo", 1) == 1


async def test_cancelled_join_push_and_leave() -> None:
    async with client() as socket:

        async def use() -> None:
            async with socket.join(ROOM) as room:
                assert await room.push("echo", {"n": 1}) == {"n": 1}

        assert await at_each_step(use, lambda: works(socket)) >= 4


async def test_cancelled_stream() -> None:
    async with client() as socket:

        async def use() -> None:
            async with socket.join(ROOM) as room, room.stream("count", 3) as replies:
                assert [reply["n"] async for reply in replies] == [0, 1, 2]

        assert await at_each_step(use, lambda: works(socket)) >= 4


async def test_cancelled_iteration_loses_no_message() -> None:
    async with client() as socket, socket.join("room:a") as room:
        numbers: list[Any] = []
        sent = 0

        async def use() -> None:
            for _ in range(3):
                message = await room.__anext__()
                numbers.append(message.payload)

        async def push() -> None:
            nonlocal sent
            sent += 3
            for number in range(sent - 3, sent):
                await room.push("push", number)

        for steps in range(1, 8):
            canceller = CancelAt(steps)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(push)
                trio.lowlevel.add_instrument(canceller)
                with canceller.scope:
                    await use()
                trio.lowlevel.remove_instrument(canceller)
        while len(numbers) < sent:
            await use()
        assert numbers == list(range(sent))


async def test_cancelled_connect() -> None:
    opened = ended = 0
    inner = make_application()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal opened, ended
        if scope["type"] == "websocket":
            opened += 1
        try:
            await inner(scope, receive, send)
        finally:
            ended += scope["type"] == "websocket"

    async with serving(OURS, application) as server:

        async def use() -> None:
            async with connect(f"ws://127.0.0.1:{server.port}/socket") as socket, socket.join(ROOM):
                pass

        async def check() -> None:
            await wait_until(lambda: opened == ended)

        assert await at_each_step(use, check) >= 5


async def test_cancelled_push_that_waits_is_not_sent() -> None:
    async with connected() as (server, peer, socket), trio.open_nursery() as nursery:
        pushed: list[bool] = []

        async def use() -> None:
            async with socket.join("room:a") as room:
                await peer.cut()
                await wait_until(lambda: not socket.statistics().connected or socket.statistics().connections > 1)
                with contextlib.suppress(NotConnected):
                    await room.push("echo", wait=False)
                with trio.move_on_after(0.01):
                    await room.push("never")
                pushed.append(True)
                assert await room.push("alive") == {}

        nursery.start_soon(use)
        await peer.accept_join()
        again = await server.peer()
        join = await again.receive()
        await wait_until(lambda: bool(pushed))
        await again.reply(join)
        push = await again.receive()
        assert push[3] == "alive"
        await again.reply(push)
        await again.accept_leave()


@pytest.mark.parametrize("end", [trio.CancelScope.cancel, None])
async def test_block_that_ends_leaves_no_task(end: Any) -> None:
    async with serving(OURS, make_application()) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.CancelScope() as scope:
            async with connect(f"ws://127.0.0.1:{server.port}/socket") as socket, socket.join(ROOM) as room:
                await room.push("echo")
                if end is not None:
                    end(scope)
                    await trio.lowlevel.checkpoint()
        await wait_until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)
