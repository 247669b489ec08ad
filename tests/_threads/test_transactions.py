"""``aatomic``: transactions across awaits, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import override_settings
from trio.testing import wait_all_tasks_blocked

from trio_channels._threads.database import thread_pool
from trio_channels._threads.lease import current_lease
from trio_channels.db import aatomic, database_sync_to_async, pinned
from trio_channels.exceptions import TransactionError, TransactionTimeout
from trio_channels.sync import async_to_sync

pytestmark = pytest.mark.usefixtures("database")


class Broken(Exception):
    """Raised in blocks."""


async def wait_for(condition: Callable[[], object]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


async def create(name: str) -> None:
    await User.objects.acreate(username=name)


async def names() -> list[str]:
    return [name async for name in User.objects.order_by("username").values_list("username", flat=True)]


@database_sync_to_async
def thread() -> int:
    return threading.get_ident()


@database_sync_to_async
def in_transaction() -> bool:
    return connection.in_atomic_block


def nothing_is_held() -> bool:
    return current_lease() is None and thread_pool().statistics().leased == 0


# -- commit and rollback ----------------------------------------------------------------------------------------------


async def test_block_commits_at_its_end() -> None:
    async with aatomic():
        await create("ada")
        await create("grace")
        assert await in_transaction()
    assert nothing_is_held()
    assert not await in_transaction()
    assert await names() == ["ada", "grace"]


async def test_block_that_raises_is_rolled_back() -> None:
    with pytest.raises(Broken):
        async with aatomic():
            await create("ada")
            raise Broken
    assert nothing_is_held()
    assert await names() == []


async def test_others_do_not_see_what_is_not_committed() -> None:
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(list(User.objects.values_list("username", flat=True)))
        connection.close()

    async with aatomic():
        await create("ada")
        other = threading.Thread(target=look)  # one of Trio's might have another test's connection
        other.start()
        await trio.to_thread.run_sync(other.join)
    assert seen == [[]]


async def test_block_runs_on_one_thread_even_if_others_are_free() -> None:
    async with aatomic():
        assert len({await thread() for _ in range(5)}) == 1


async def test_error_of_the_database_inside_the_block_rolls_back() -> None:
    await create("ada")
    with pytest.raises(IntegrityError):
        async with aatomic():
            await create("grace")
            await create("ada")
    assert await names() == ["ada"]


async def test_caught_database_error_can_only_be_rolled_back() -> None:
    await create("ada")
    with pytest.raises(transaction.TransactionManagementError):
        async with aatomic():
            try:
                await create("ada")
            except IntegrityError:
                await create("grace")
    assert await names() == ["ada"]
    assert nothing_is_held()


async def test_function_can_be_decorated() -> None:
    @aatomic()
    async def fail_after(name: str) -> None:
        await create(name)
        raise Broken

    with pytest.raises(Broken):
        await fail_after("ada")
    assert await names() == []


# -- cancellation -----------------------------------------------------------------------------------------------------


async def test_block_that_is_cancelled_while_it_waits_is_rolled_back() -> None:
    with trio.CancelScope() as scope:
        async with aatomic():
            await create("ada")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert nothing_is_held()
    assert await names() == []


async def test_block_that_missed_its_cancellation_is_rolled_back() -> None:
    with trio.CancelScope() as scope:
        async with aatomic():
            await create("ada")
            scope.cancel()
    assert scope.cancelled_caught
    assert await names() == []


async def test_cancellation_during_a_call_rolls_back_after_it() -> None:
    scope, begun, go = trio.CancelScope(), threading.Event(), threading.Event()

    @database_sync_to_async
    def slow() -> None:
        User.objects.create(username="ada")
        begun.set()
        assert go.wait(30)

    async def cancel() -> None:
        await trio.to_thread.run_sync(begun.wait)
        scope.cancel()
        go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        with scope:
            async with aatomic():
                await slow()
    assert scope.cancelled_caught
    assert await names() == []


async def test_commit_that_has_begun_is_not_undone_by_a_cancellation() -> None:
    scope, begun, go, committed = trio.CancelScope(), threading.Event(), threading.Event(), []

    def during_commit() -> None:
        begun.set()
        assert go.wait(30)
        committed.append(True)

    async def cancel() -> None:
        await trio.to_thread.run_sync(begun.wait)
        scope.cancel()
        go.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        with scope:
            async with aatomic():
                await create("ada")
                await database_sync_to_async(transaction.on_commit)(during_commit)
    assert committed == [True]
    assert await names() == ["ada"]


@override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1})
async def test_waiting_for_the_executor_thread_can_be_cancelled() -> None:
    scope = trio.CancelScope()

    async def wait() -> None:
        with scope:
            async with aatomic():
                await create("ada")

    async def hold() -> None:
        async with pinned():
            held.set()
            await wait_for(lambda: thread_pool().statistics().waiting)
            scope.cancel()

    held = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await held.wait()
        nursery.start_soon(wait)
    assert scope.cancelled_caught
    assert await names() == []


async def test_block_cancelled_at_any_checkpoint_is_whole_or_absent() -> None:
    steps = 0
    while await cancelled_at(steps):
        assert await names() == []
        assert nothing_is_held()
        assert not await in_transaction()
        steps += 1
    assert await names() == ["ada", "edith", "grace"]
    assert steps >= 7  # a thread, to begin, three objects, a savepoint's begin and end


async def cancelled_at(step: int) -> bool:
    instrument = CancelAt(step)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            instrument.task = trio.lowlevel.current_task()
            async with aatomic():
                await create("ada")
                async with aatomic():
                    await create("grace")
                await create("edith")
    finally:
        instrument.task = None
        trio.lowlevel.remove_instrument(instrument)
    return instrument.scope.cancelled_caught


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the task's step of that number."""

    def __init__(self, number: int) -> None:
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None
        self._left = number

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self._left == 0:
                self.scope.cancel()
            self._left -= 1


# -- savepoints -------------------------------------------------------------------------------------------------------


async def test_block_inside_a_block_is_a_savepoint() -> None:
    async with aatomic():
        await create("ada")
        with pytest.raises(Broken):
            async with aatomic():
                await create("grace")
                raise Broken
        await create("edith")
    assert await names() == ["ada", "edith"]


async def test_inner_block_without_savepoint_rolls_back_the_outer() -> None:
    with pytest.raises(Broken):
        async with aatomic():
            await create("ada")
            async with aatomic(savepoint=False):
                raise Broken
    assert await names() == []


async def test_durable_block_must_be_the_outermost() -> None:
    async with aatomic(durable=True):
        with pytest.raises(RuntimeError, match="durable"):
            async with aatomic(durable=True):
                pass


async def test_block_inside_a_synchronous_transaction_is_its_savepoint() -> None:
    async def inner() -> None:
        async with aatomic():
            await create("grace")
        with pytest.raises(Broken):
            async with aatomic():
                await create("edith")
                raise Broken

    @database_sync_to_async
    def outer() -> None:
        with transaction.atomic():
            User.objects.create(username="ada")
            async_to_sync(inner)()
            assert User.objects.count() == 2
            transaction.set_rollback(True)

    await outer()
    assert await names() == []


async def test_block_may_have_savepoints_in_synchronous_code() -> None:
    @database_sync_to_async
    def inner() -> None:
        with pytest.raises(Broken), transaction.atomic():
            User.objects.create(username="grace")
            raise Broken

    async with aatomic():
        await create("ada")
        await inner()
    assert await names() == ["ada"]


@pytest.mark.parametrize("inside", ["a transaction", "a pinned block", "a call"])
async def test_blocks_of_tasks_beside_each_other_take_turns(inside: str) -> None:
    open_at_once = 0

    async def one(name: str) -> None:
        nonlocal open_at_once
        try:
            async with aatomic():
                open_at_once += 1
                assert open_at_once == 1
                await create(name)
                await trio.lowlevel.checkpoint()
                if name in "bd":
                    raise Broken
                async with aatomic():
                    await create(name + name)
        except Broken:
            pass
        finally:
            open_at_once -= 1

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abcde":
                nursery.start_soon(one, name)

    match inside:
        case "a transaction":
            async with aatomic():
                await all_of_them()
        case "a pinned block":
            async with pinned():
                await all_of_them()
        case "a call":
            await database_sync_to_async(async_to_sync(all_of_them))()
    assert await names() == ["a", "aa", "c", "cc", "e", "ee"]


# -- on_commit --------------------------------------------------------------------------------------------------------


async def test_what_is_to_happen_on_commit_happens_after_it_and_only_then() -> None:
    seen: list[object] = []
    on_commit: Callable[..., Awaitable[None]] = database_sync_to_async(transaction.on_commit)
    async with aatomic():
        await create("ada")
        await on_commit(lambda: seen.append(connection.in_atomic_block))
        with pytest.raises(Broken):
            async with aatomic():
                await on_commit(lambda: seen.append("of the savepoint that was rolled back"))
                raise Broken
        assert seen == []
    assert seen == [False]


async def test_nothing_happens_on_a_commit_that_does_not_take_place() -> None:
    seen: list[object] = []
    with pytest.raises(Broken):
        async with aatomic():
            await database_sync_to_async(transaction.on_commit)(lambda: seen.append(1))
            raise Broken
    assert seen == []


# -- the time limit ---------------------------------------------------------------------------------------------------


async def test_block_that_takes_too_long_is_rolled_back() -> None:
    with pytest.raises(TransactionTimeout, match=r"longer than 0\.05 seconds and was rolled back"):
        async with aatomic(timeout=0.05):
            await create("ada")
            await trio.sleep_forever()
    assert nothing_is_held()
    assert await names() == []


async def test_block_that_missed_its_timeout_is_rolled_back() -> None:
    with pytest.raises(TransactionTimeout):
        async with aatomic(timeout=0.05):
            await create("ada")
            with trio.CancelScope(shield=True):
                await trio.sleep(0.06)
    assert await names() == []


@override_settings(TRIO_CHANNELS={"TRANSACTION_TIMEOUT": 0.05})
async def test_settings_give_the_limit_of_the_outermost_block() -> None:
    with pytest.raises(TransactionTimeout):
        async with aatomic():
            await create("ada")
            async with aatomic():
                await trio.sleep_forever()
    assert await names() == []


async def test_inner_block_may_have_a_limit_of_its_own() -> None:
    async with aatomic():
        await create("ada")
        with pytest.raises(TransactionTimeout):
            async with aatomic(timeout=0.05):
                await create("grace")
                await trio.sleep_forever()
    assert await names() == ["ada"]


# -- tasks that outlive a block ---------------------------------------------------------------------------------------


async def test_task_that_outlives_the_block_has_no_part_in_it() -> None:
    go, seen = trio.Event(), []

    async def outlive() -> None:
        seen.append(await in_transaction())
        await go.wait()
        seen.append(await in_transaction())
        async with aatomic():
            await create("grace")
        go_on.set()

    go_on = trio.Event()
    async with trio.open_nursery() as nursery:
        with pytest.raises(Broken):
            async with aatomic():
                await create("ada")
                nursery.start_soon(outlive)
                await wait_for(lambda: seen)
                raise Broken
        go.set()
        await go_on.wait()
    assert seen == [True, False]
    assert await names() == ["grace"]


@pytest.mark.parametrize("fails", [False, True], ids=["that ends", "that fails"])
async def test_block_that_outlives_the_one_around_it_is_an_error_of_both(fails: bool) -> None:
    opened, go, raised = trio.Event(), trio.Event(), []

    async def outlive() -> None:
        try:
            async with aatomic():
                await create("grace")
                opened.set()
                await go.wait()
                if fails:
                    raise Broken
        except (TransactionError, Broken) as error:
            raised.append(type(error))

    async with trio.open_nursery() as nursery:
        with pytest.raises(TransactionError, match="while a block inside it, of another task, was open"):
            async with aatomic():
                await create("ada")
                nursery.start_soon(outlive)
                await opened.wait()
        go.set()
    assert raised == [Broken if fails else TransactionError]
    assert await names() == []
    assert not await in_transaction()
    assert nothing_is_held()


async def test_block_that_is_entered_too_late_is_an_error() -> None:
    opened, raised = trio.Event(), []

    async def holds_the_turn() -> None:
        with pytest.raises(TransactionError):
            async with aatomic():
                opened.set()
                await ended.wait()

    async def waits_for_its_turn() -> None:
        await opened.wait()
        try:
            async with aatomic():
                await create("grace")
        except TransactionError as error:
            raised.append(str(error))

    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        with pytest.raises(TransactionError):
            async with aatomic():
                nursery.start_soon(holds_the_turn)
                nursery.start_soon(waits_for_its_turn)
                await opened.wait()
                await wait_all_tasks_blocked()
        ended.set()
    assert raised == ["the aatomic() block around this one has ended; nothing of this one is committed"]
    assert await names() == []


# -- pinned -----------------------------------------------------------------------------------------------------------


async def test_pinned_block_has_one_thread_and_one_connection() -> None:
    async with pinned():
        first, same = await thread(), await database_sync_to_async(lambda: id(connection.cursor().db.connection))()
        async with pinned():
            assert await thread() == first
        assert await database_sync_to_async(lambda: id(connection.connection))() == same
    assert nothing_is_held()


async def test_children_of_a_pinned_block_share_its_thread() -> None:
    threads = []

    async def child() -> None:
        threads.append(await thread())

    async with pinned(), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(child)
    assert len(set(threads)) == 1


async def test_pinned_block_is_no_transaction() -> None:
    with pytest.raises(Broken):
        async with pinned():
            await create("ada")
            raise Broken
    assert await names() == ["ada"]
