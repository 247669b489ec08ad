"""The nursery of tasks that outlive a request."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_channels._connection.lasting import current, end_all, lasting


async def test_task_ends_with_the_block() -> None:
    ended: list[str] = []

    async def task(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async with lasting() as this:
        assert current() is this
        this.nursery.start_soon(task, "one")
        await wait_all_tasks_blocked()
        assert (ended, this.ending.is_set()) == ([], False)
    assert (ended, this.ending.is_set()) == (["one"], True)
    assert current() is None


async def test_error_of_the_block_is_raised_bare() -> None:
    async def fail() -> None:
        async with lasting() as this:
            this.nursery.start_soon(trio.sleep_forever)
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        await fail()
    assert current() is None


async def test_latest_of_several_counts_and_all_are_told() -> None:
    async with lasting() as one:
        async with lasting() as two:
            assert current() is two
            end_all()
            assert one.ending.is_set()
            assert two.ending.is_set()
        assert current() is one


async def test_cancellation_leaves_nothing() -> None:
    with trio.CancelScope() as scope:
        async with lasting() as this:
            this.nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert current() is None


def test_there_may_be_none() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        assert current() is None
        end_all()

    trio.run(main)
