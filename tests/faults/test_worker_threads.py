"""Every worker thread taken, and the queue for them full: callers wait or are refused, and the loop lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from django.test import override_settings

from trio_channels._threads.database import thread_pool
from trio_channels.exceptions import WorkerPoolBusy
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.sync import sync_to_async
from trio_channels.testing import WebsocketCommunicator

pytestmark = pytest.mark.faults

THREADS = 10
QUEUE = 100
#: Seconds after which a thread that waits for its release gives up: only a broken program gets there.
PATIENCE = 30

small_pool = override_settings(TRIO_CHANNELS={"WORKER_THREADS": THREADS, "WORKER_QUEUE": QUEUE})


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data)


@contextmanager
def sleepers() -> Iterator[tuple[threading.Event, list[int]]]:
    """An event that sleeping calls wait for, set at the latest at the end, and where they write that they ran."""
    release = threading.Event()
    try:
        yield release, []
    finally:
        release.set()


async def until_seen(leased: int, waiting: int) -> None:
    while (thread_pool().statistics().leased, thread_pool().statistics().waiting) != (leased, waiting):
        await trio.lowlevel.checkpoint()


@small_pool
async def test_callers_queue_then_are_refused_while_an_echo_goes_on() -> None:
    refused: list[WorkerPoolBusy] = []
    with sleepers() as (release, ran):

        def sleep(number: int) -> None:
            assert release.wait(PATIENCE)
            ran.append(number)

        async def call(number: int) -> None:
            try:
                await sync_to_async(sleep)(number)
            except WorkerPoolBusy as error:
                refused.append(error)

        async with WebsocketCommunicator(Echo.as_asgi(), "/") as ws, trio.open_nursery() as nursery:
            await ws.connect()
            for number in range(THREADS + QUEUE + 50):
                nursery.start_soon(call, number)
            await until_seen(THREADS, QUEUE)
            for number in range(200):
                await ws.send_to(text_data=str(number))
                assert await ws.receive_from(timeout=PATIENCE) == str(number)
            assert ran == []
            assert len(refused) == 50
            assert "WORKER_THREADS" in str(refused[0])
            release.set()
    assert len(ran) == THREADS + QUEUE
    await until_seen(0, 0)


@small_pool
async def test_callers_in_the_queue_can_be_cancelled_and_never_run() -> None:
    with sleepers() as (release, ran):

        def sleep(number: int) -> None:
            assert release.wait(PATIENCE)
            ran.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(THREADS):
                nursery.start_soon(sync_to_async(sleep), number)
            await until_seen(THREADS, 0)
            async with trio.open_nursery() as queued:
                for number in range(THREADS, THREADS + QUEUE):
                    queued.start_soon(sync_to_async(sleep), number)
                await until_seen(THREADS, QUEUE)
                queued.cancel_scope.cancel()
            await until_seen(THREADS, 0)  # although no thread has come free
            release.set()
    assert sorted(ran) == list(range(THREADS))
    await until_seen(0, 0)


class Slow(WebsocketConsumer):
    """Sleeps in ``connect`` where the scope has something to wait for."""

    def connect(self) -> None:
        if "release" in self.scope:
            assert self.scope["release"].wait(PATIENCE)
        self.accept()

    def disconnect(self, code: int) -> None:
        self.scope["codes"].append(code)


@small_pool
async def test_synchronous_consumer_beyond_the_queue_fails_alone() -> None:
    errors: list[BaseException] = []
    codes: list[int] = []
    ended: list[int] = []
    with sleepers() as (release, _):

        async def client(number: int) -> None:
            ws = WebsocketCommunicator(Slow.as_asgi(), f"/{number}/")
            ws.scope.update(release=release, codes=codes)
            try:
                async with ws:
                    assert await ws.connect(timeout=PATIENCE) == (True, None)
                    await ws.disconnect(timeout=PATIENCE)
                    ended.append(number)
            except* WorkerPoolBusy as group:
                errors.append(group)

        async with WebsocketCommunicator(Echo.as_asgi(), "/") as echo, trio.open_nursery() as nursery:
            await echo.connect()
            for number in range(THREADS + QUEUE):
                nursery.start_soon(client, number)
            await until_seen(THREADS, QUEUE)
            nursery.start_soon(client, THREADS + QUEUE)
            await until_seen(THREADS, QUEUE + 1)  # its connect was refused, but not its disconnect
            await echo.send_to(text_data="alive")
            assert await echo.receive_from(timeout=PATIENCE) == "alive"
            release.set()
    assert len(ended) == THREADS + QUEUE
    assert len(errors) == 1
    assert sorted(codes) == [1000] * (THREADS + QUEUE) + [1011]
    await until_seen(0, 0)


@small_pool
async def test_sync_disconnect_waits_for_a_thread_beyond_the_queue() -> None:
    codes: list[int] = []
    with sleepers() as (release, _):

        async def call() -> None:
            await sync_to_async(release.wait)(PATIENCE)

        ws = WebsocketCommunicator(Slow.as_asgi(), "/")
        ws.scope["codes"] = codes
        async with ws, trio.open_nursery() as nursery:
            assert await ws.connect(timeout=PATIENCE) == (True, None)
            await until_seen(0, 0)  # accept() was read before connect() had returned and given its thread back
            for _ in range(THREADS + QUEUE):
                nursery.start_soon(call)
            await until_seen(THREADS, QUEUE)
            await ws.send_input({"type": "websocket.disconnect", "code": 1001})
            await trio.testing.wait_all_tasks_blocked()
            release.set()
            await ws.wait(timeout=PATIENCE)
    assert codes == [1001]
