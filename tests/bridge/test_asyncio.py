"""Asyncio in a process with the bridge: beside a Trio run, inside a worker's call, and around one (guest mode)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import outcome
import pytest
import trio
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections
from django.dispatch import Signal

from trio_channels import bridge
from trio_channels._threads.database import run_in_thread
from trio_channels._threads.thread import in_pool_thread

THREAD = sync_to_async(threading.current_thread)


def test_bridge_is_installed_by_the_application() -> None:
    assert bridge.installed()


def forget_database() -> None:
    """On asgiref's one thread, which would keep a test's database for the next one."""
    connections["default"].close()
    del connections["default"]


def run_guest(main: Callable[[], Awaitable[Any]], beside: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    """Run `main` in Trio as a guest of asyncio, which runs `beside` at the same time on the same thread."""

    async def host() -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[outcome.Outcome[Any]] = loop.create_future()
        trio.lowlevel.start_guest_run(
            main, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        of_asyncio = await beside()
        return (await done).unwrap(), of_asyncio

    return asyncio.run(host())


# -- asyncio alone ----------------------------------------------------------------------------------------------------


def test_asyncio_calls_synchronous_code_on_its_own_thread() -> None:
    async def main() -> list[threading.Thread]:
        return [await THREAD(), await THREAD()]

    first, second = asyncio.run(main())
    assert first is second
    assert not first.name.startswith("trio-channels")


def test_plain_thread_calls_asyncio_code_in_asyncio() -> None:
    async def main() -> str:
        await asyncio.sleep(0)
        return type(asyncio.get_running_loop()).__name__

    assert "Loop" in async_to_sync(main)()


def test_asyncio_refuses_to_block_its_thread() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="cannot use AsyncToSync in the same thread"):
            async_to_sync(asyncio.sleep)(0)

    asyncio.run(main())


@pytest.mark.usefixtures("sqlite_database")
def test_asyncio_refuses_a_blocking_query() -> None:
    async def main() -> None:
        with pytest.raises(SynchronousOnlyOperation):
            User.objects.count()

    asyncio.run(main())


@pytest.mark.usefixtures("sqlite_database")
def test_asyncio_uses_the_asynchronous_orm() -> None:
    async def main() -> list[str]:
        try:
            await User.objects.acreate(username="ada")
            return [user.username async for user in User.objects.aiterator(chunk_size=1)]
        finally:
            await sync_to_async(forget_database)()

    assert asyncio.run(main()) == ["ada"]


def test_asyncio_sends_signals() -> None:
    signal = Signal()

    async def receiver(**kwargs: Any) -> str:
        await asyncio.sleep(0)
        return "asyncio"

    signal.connect(receiver)
    assert [answer for _, answer in asyncio.run(signal.asend(None))] == ["asyncio"]
    assert [answer for _, answer in signal.send(None)] == ["asyncio"]


def test_asyncio_leaves_a_thread_sensitive_context() -> None:
    async def main() -> bool:
        async with ThreadSensitiveContext():
            first = await THREAD()
            same = await THREAD() is first
        return same and not first.is_alive()

    assert asyncio.run(main())


# -- inside a worker's call -------------------------------------------------------------------------------------------


async def test_asyncio_inside_a_workers_call_is_asyncio() -> None:
    async def main() -> tuple[bool, bool]:
        await asyncio.sleep(0)

        def call() -> bool:
            return in_pool_thread() or async_to_sync(asyncio.sleep)(0, False)

        async with ThreadSensitiveContext():
            return in_pool_thread(), await sync_to_async(call)()

    def call() -> tuple[bool, bool]:
        return asyncio.run(main())

    assert await run_in_thread(call) == (True, False)


async def test_asyncio_loop_inside_a_call_must_not_be_blocked() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="cannot use AsyncToSync in the same thread"):
            async_to_sync(asyncio.sleep)(0)

    await run_in_thread(asyncio.run, main())


async def test_loop_that_is_asked_for_by_name_is_made() -> None:
    async def main() -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().is_running()

    assert await run_in_thread(async_to_sync(main, force_new_loop=True))


async def test_thread_sensitive_context_ends_asyncios_executor() -> None:
    threads: list[threading.Thread] = []

    async def main() -> None:
        threads.append(await THREAD())

    async with ThreadSensitiveContext():
        await run_in_thread(lambda: asyncio.run(main()))
        assert threads[0].is_alive()
    assert not threads[0].is_alive()


# -- around a Trio run ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("sqlite_database")
def test_trio_as_a_guest_and_its_host_each_use_their_own_threads() -> None:
    turns = 20

    async def guest() -> set[bool]:
        found = set()
        for _ in range(turns):
            found.add(await sync_to_async(in_pool_thread)())
            await User.objects.acount()
            await trio.lowlevel.checkpoint()
        return found

    async def host() -> set[bool]:
        found = set()
        for _ in range(turns):
            found.add(await sync_to_async(in_pool_thread)())
            await asyncio.sleep(0)
        return found

    assert run_guest(guest, host) == ({True}, {False})


def test_each_of_guest_and_host_sends_signals_in_its_own_way() -> None:
    of_trio, of_asyncio = Signal(), Signal()

    async def trio_receiver(**kwargs: Any) -> str:
        await trio.lowlevel.checkpoint()
        return "trio"

    async def asyncio_receiver(**kwargs: Any) -> str:
        await asyncio.sleep(0)
        return "asyncio"

    of_trio.connect(trio_receiver)
    of_asyncio.connect(asyncio_receiver)

    async def guest() -> list[object]:
        return [answer for _, answer in await of_trio.asend(None)]

    async def host() -> list[object]:
        return [answer for _, answer in await of_asyncio.asend(None)]

    assert run_guest(guest, host) == (["trio"], ["asyncio"])


def test_guests_worker_calls_back_into_the_guest() -> None:
    async def inner() -> str:
        await trio.lowlevel.checkpoint()
        return "trio"

    async def guest() -> str:
        return await sync_to_async(async_to_sync(inner))()

    async def host() -> str:
        async def inner() -> str:
            await asyncio.sleep(0)
            return "asyncio"

        return await sync_to_async(async_to_sync(inner))()

    assert run_guest(guest, host) == ("trio", "asyncio")


@pytest.mark.usefixtures("sqlite_database")
def test_blocking_query_is_refused_in_guest_and_host() -> None:
    async def query() -> bool:
        with pytest.raises(SynchronousOnlyOperation):
            User.objects.count()
        return True

    assert run_guest(query, query) == (True, True)


def test_executor_that_was_chosen_is_used_in_both() -> None:
    with ThreadPoolExecutor(1, "mine") as executor:
        call = sync_to_async(threading.current_thread, thread_sensitive=False, executor=executor)
        of_trio, of_asyncio = run_guest(call, call)
    assert of_trio is of_asyncio
    assert of_trio.name.startswith("mine")
