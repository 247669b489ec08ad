"""The thread of one request: from which calls and blocks it comes, and when it is given back."""

from __future__ import annotations

import threading

import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels._threads.affinity import Affinity, current_affinity, keep_thread
from trio_channels._threads.pool import current_pool
from trio_channels._threads.thread import run_in_trio

REQUEST = "GET /"


def leave_something() -> int:
    """A call that is not neutral; returns its thread."""
    keep_thread()
    return threading.get_ident()


async def test_request_without_a_thread_says_so() -> None:
    with Affinity(current_pool(), REQUEST) as affinity:
        assert repr(affinity) == "<Affinity of GET /: no thread>"


async def test_request_may_end_before_its_block() -> None:
    pool = current_pool()
    with Affinity(pool, REQUEST) as affinity:
        await affinity.run_sync(leave_something)
        assert pool.statistics().leased == 1
        affinity.end()
        assert current_affinity() is None
        assert pool.statistics().leased == 0
    assert affinity.ended


async def test_without_a_request_nothing_is_kept() -> None:
    pool = current_pool()
    await pool.run_sync(leave_something)
    assert pool.statistics().leased == 0


async def test_thread_of_a_block_around_is_kept_beyond_it() -> None:
    pool = current_pool()
    with Affinity(pool, REQUEST) as affinity:
        async with pool.lease():
            thread = await affinity.run_sync(leave_something)
        assert pool.statistics().leased == 1
        assert await affinity.run_sync(threading.get_ident) == thread
    assert pool.statistics().leased == 0


async def test_thread_of_a_part_of_a_lease_is_kept() -> None:
    pool = current_pool()
    with Affinity(pool, REQUEST) as affinity:
        async with pool.lease() as lease:
            with lease.inside():
                thread = await affinity.run_sync(leave_something)
        assert await affinity.run_sync(threading.get_ident) == thread
    assert pool.statistics().leased == 0


async def test_thread_of_a_call_around_is_kept_beyond_it() -> None:
    pool = current_pool()
    affinity = Affinity(pool, REQUEST)
    seen: list[int] = []

    async def request() -> None:
        affinity.__enter__()
        seen.append(await affinity.run_sync(leave_something))

    await pool.run_sync(run_in_trio, request)
    assert pool.statistics().leased == 1
    assert await affinity.run_sync(threading.get_ident) == seen[0]
    affinity.end()
    assert pool.statistics().leased == 0


async def test_thread_that_comes_too_late_is_given_back() -> None:
    """A task waits for the request's thread, and another one has it meanwhile from a block."""
    pool = current_pool(limit=2)
    threads: dict[str, int] = {}
    in_block = trio.Event()
    with Affinity(pool, REQUEST) as affinity:

        async def wait_for_a_thread() -> None:
            threads["waiting"] = await affinity.run_sync(leave_something)

        async def have_one_in_a_block() -> None:
            async with pool.lease():
                in_block.set()
                await wait_all_tasks_blocked()
                assert pool.statistics().waiting == 1
                threads["block"] = await affinity.run_sync(leave_something)
                other.end()

        other = await pool.take()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(have_one_in_a_block)
            await in_block.wait()
            nursery.start_soon(wait_for_a_thread)
        assert threads["waiting"] == threads["block"]
        assert pool.statistics().leased == 1
    assert pool.statistics().leased == 0
