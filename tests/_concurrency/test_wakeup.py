"""The bell: rings that are kept, waits that are cancelled."""

from __future__ import annotations

import math

import outcome
import pytest
import trio
import trio.testing

from trio_channels._concurrency import wakeup
from trio_channels._concurrency.wakeup import Bell


@pytest.fixture(params=["Trio's message, made once", "Trio's function"], autouse=True)
def way_to_park(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a bell may wait."""
    if request.param == "Trio's function":
        monkeypatch.setattr(wakeup, "_MESSAGE", None)
    else:
        assert wakeup._MESSAGE is not None, (
            "this Trio parks its tasks in a way that trio_channels._concurrency.park does not know"
        )


async def wait(bell: Bell) -> None:
    await bell.wait()


async def test_a_ring_wakes_the_waiter() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, bell)
        await trio.testing.wait_all_tasks_blocked()
        assert bell.waited_for
        bell.ring()
        assert not bell.waited_for


async def test_a_ring_that_nobody_waits_for_is_kept() -> None:
    bell = Bell()
    bell.ring()
    with trio.testing.assert_no_checkpoints():
        await bell.wait()


async def test_rings_do_not_add_up() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.wait()
    with trio.move_on_after(0) as scope:
        await bell.wait()
    assert scope.cancelled_caught


async def test_a_ring_between_waking_and_running_is_kept() -> None:
    bell = Bell()

    async def wait_twice() -> None:
        await bell.wait()
        await bell.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_twice)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        bell.ring()


async def test_a_cancelled_wait_consumes_no_ring() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, bell)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    bell.ring()
    with trio.testing.assert_no_checkpoints():
        await bell.wait()


async def test_a_ring_after_the_cancellation_of_a_wait_is_kept() -> None:
    bell, cancelled = Bell(), trio.Event()

    async def wait() -> None:
        try:
            await bell.wait()
        except trio.Cancelled:
            cancelled.set()
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert not cancelled.is_set()
        assert not bell.waited_for  # although its task has not run yet
        assert not bell.hand_over(outcome.Value("a message"))
        bell.ring()
    assert cancelled.is_set()
    with trio.testing.assert_no_checkpoints():
        await bell.wait()


async def test_who_waits_elsewhere_meanwhile_is_not_woken() -> None:
    bell, other, heard = Bell(), Bell(), []

    async def wait() -> None:
        await bell.wait()
        heard.append("bell")
        with trio.move_on_after(math.inf) as scope:
            scopes.append(scope)
            await bell.wait()
        await other.wait()
        heard.append("other")

    scopes: list[trio.CancelScope] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == ["bell"]
        assert other.waited_for
        other.ring()
    assert heard == ["bell", "other"]


async def test_a_waiter_that_is_rung_and_then_cancelled_has_heard_the_ring() -> None:
    bell, heard = Bell(), trio.Event()

    async def wait() -> None:
        await bell.wait()
        heard.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        bell.ring()
        nursery.cancel_scope.cancel()
    assert heard.is_set()


async def test_a_second_waiter_is_refused() -> None:
    bell = Bell()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, bell)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await bell.wait()
        bell.ring()


async def test_the_repr_tells_the_state() -> None:
    bell = Bell()
    assert repr(bell) == "<Bell quiet>"
    bell.ring()
    assert repr(bell) == "<Bell rung>"
    await bell.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, bell)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(bell) == "<Bell waited for>"
        bell.ring()


async def test_a_waiter_gets_what_is_handed_over() -> None:
    bell, got = Bell(), []

    async def take() -> None:
        got.append(await bell.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert bell.hand_over(outcome.Value("a message"))
    assert got == ["a message"]


async def test_nothing_is_kept_for_nobody() -> None:
    bell = Bell()
    assert not bell.hand_over(outcome.Value("a message"))
    assert repr(bell) == "<Bell quiet>"
