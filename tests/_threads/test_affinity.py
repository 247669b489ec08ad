"""The thread of a request: the care of its connections, and the effect of blocks around and inside a request."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connection, connections
from django.test import override_settings

from trio_channels._threads.affinity import keep_thread
from trio_channels._threads.database import (
    pinned,
    request_thread,
    run_anywhere,
    run_in_thread,
    thread_pool,
    visit_thread,
)
from trio_channels._threads.thread import affinity_of_task
from trio_channels._threads.waiting import remedy
from trio_channels.sync import async_to_sync

THREAD = threading.current_thread


def open_connection() -> Any:
    """Open Django's connection, so old that Django's next check closes it."""
    connection.ensure_connection()
    connection.close_at = 0
    return connection.connection


async def open_in_a_block() -> Any:
    async with pinned():
        return await run_in_thread(lambda: connection.connection)


async def open_in_a_call() -> Any:
    return await run_in_thread(lambda: connection.connection)


@pytest.mark.usefixtures("sqlite_database")
@pytest.mark.parametrize("look", [open_in_a_call, open_in_a_block])
async def test_request_finds_no_connection_that_is_too_old(look: Callable[[], Awaitable[Any]]) -> None:
    async with thread_pool().lease() as lease:
        await lease.run_sync(open_connection)
        with request_thread("inside"):
            assert await look() is not None, "inside a block, connections stay as they are"
    with request_thread("request"):
        assert await look() is None


@pytest.mark.usefixtures("sqlite_database")
async def test_insensitive_call_in_a_block_leaves_the_connection_open() -> None:
    with request_thread("request"):
        async with pinned():
            opened = await run_in_thread(open_connection)
            await sync_to_async(int, thread_sensitive=False)()
            assert await run_in_thread(lambda: connection.connection) is opened


@pytest.mark.usefixtures("sqlite_database")
async def test_thread_sensitive_context_closes_what_is_too_old() -> None:
    async with ThreadSensitiveContext():
        await sync_to_async(open_connection)()
        wrapper = await sync_to_async(connections.__getitem__)("default")
    assert wrapper.connection is None


@pytest.mark.parametrize("call", [run_in_thread, visit_thread])
async def test_request_keeps_the_thread_of_a_block_that_ends_before_it(call: Any) -> None:
    async with AsyncExitStack() as block:
        await block.enter_async_context(pinned())
        with request_thread("request"):
            await call(keep_thread)
            thread = await visit_thread(THREAD)
            await block.aclose()
            assert thread_pool().statistics().held == 1
            assert "(request)" in remedy(thread_pool()._held()), "the log names it"
            async with pinned() as other:
                assert await other.run_sync(THREAD) is thread
            assert await run_in_thread(THREAD) is thread
    assert thread_pool().statistics().leased == 0


async def test_thread_is_given_back_when_the_requests_last_task_is_done(nursery: trio.Nursery) -> None:
    go_on, done = threading.Event(), trio.Event()

    async def outlives() -> None:
        await run_in_thread(go_on.wait)
        await run_in_thread(int)
        done.set()

    with request_thread("request"):
        nursery.start_soon(outlives)
        await trio.testing.wait_all_tasks_blocked()
    assert thread_pool().statistics().leased == 1
    go_on.set()
    await done.wait()
    assert thread_pool().statistics().leased == 0


async def test_request_of_another_run_is_none_of_this_one() -> None:
    async def in_another_run() -> threading.Thread:
        return await run_in_thread(THREAD)

    with request_thread("request"):
        thread = await run_in_thread(THREAD)
        # Trio passes the context on, and the request in it.
        assert await trio.to_thread.run_sync(trio.run, in_another_run) is not thread


async def test_request_keeps_one_thread_when_two_calls_take_one() -> None:
    go_on = threading.Event()
    threads: list[threading.Thread] = []

    def keeps_its_own() -> None:
        go_on.wait()
        async_to_sync(run_in_thread)(keep_thread)
        threads.append(THREAD())

    async def waits_for_one() -> None:
        threads.append(await run_in_thread(THREAD))

    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 2}):
        other = await thread_pool().take()
    with request_thread("request"):
        async with trio.open_nursery() as tasks:
            tasks.start_soon(run_anywhere, keeps_its_own)
            await trio.testing.wait_all_tasks_blocked()
            tasks.start_soon(waits_for_one)
            await trio.testing.wait_all_tasks_blocked()
            assert thread_pool().statistics().waiting == 1
            go_on.set()
            while not threads:
                await trio.lowlevel.checkpoint()
            other.end()
        assert len(set(threads)) == 1
        assert thread_pool().statistics().leased == 1
    assert thread_pool().statistics().leased == 0


@pytest.mark.usefixtures("sqlite_database")
async def test_block_that_gives_its_thread_back_closes_what_is_too_old() -> None:
    with request_thread("request"):
        async with pinned():
            await visit_thread(open_connection)
            wrapper = await visit_thread(connections.__getitem__, "default")
            assert wrapper.connection is not None
        assert wrapper.connection is None
        assert thread_pool().statistics().leased == 0


async def test_request_that_did_not_get_a_thread_can_ask_again() -> None:
    with override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1}):
        other = await thread_pool().take()
    with request_thread("request"):
        with trio.CancelScope() as scope:
            scope.cancel()
            await run_in_thread(THREAD)
        assert scope.cancelled_caught
        other.end()
        assert await run_in_thread(THREAD)


async def test_context_in_a_request_without_a_thread_gives_way_to_it() -> None:
    with override_settings(TRIO_CHANNELS={"THREAD_PER_REQUEST": False}), request_thread("request") as request:
        async with ThreadSensitiveContext():
            inside = affinity_of_task.get()
            assert inside is not None
            assert inside.keeps
        assert affinity_of_task.get() is request
