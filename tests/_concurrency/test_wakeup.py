"""The auto-reset event: sets that it keeps, and waits that are cancelled."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from trio_channels._concurrency import wakeup as module
from trio_channels._concurrency.wakeup import Wakeup


@pytest.fixture(params=["one trap", "Trio's function"], autouse=True)
def way_to_park(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which a Wakeup may wait."""
    if request.param == "Trio's function":
        monkeypatch.setattr(module, "_TRAP", None)
    else:
        assert module._TRAP is not None, "Wakeup's way to wait does not fit this version of Trio"


async def wait(wakeup: Wakeup) -> None:
    await wakeup.wait()


async def test_set_wakes_the_waiter() -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, wakeup)
        await trio.testing.wait_all_tasks_blocked()
        assert wakeup.waited_for
        wakeup.set()
        assert not wakeup.waited_for


async def test_set_is_kept_for_the_next_wait() -> None:
    wakeup = Wakeup()
    wakeup.set()
    with trio.testing.assert_no_checkpoints():
        await wakeup.wait()


async def test_several_sets_count_as_one() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    await wakeup.wait()
    with trio.move_on_after(0) as scope:
        await wakeup.wait()
    assert scope.cancelled_caught


async def test_set_between_waking_and_running_is_kept() -> None:
    wakeup = Wakeup()

    async def wait_twice() -> None:
        await wakeup.wait()
        await wakeup.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_twice)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        wakeup.set()


async def test_cancelled_wait_consumes_nothing() -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, wakeup)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    wakeup.set()
    with trio.testing.assert_no_checkpoints():
        await wakeup.wait()


async def test_set_after_a_cancellation_is_kept() -> None:
    wakeup, cancelled = Wakeup(), trio.Event()

    async def wait() -> None:
        try:
            await wakeup.wait()
        except trio.Cancelled:
            cancelled.set()
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert not cancelled.is_set()
        assert not wakeup.waited_for  # although its task has not run yet
        assert not wakeup.hand_over(outcome.Value("a message"))
        wakeup.set()
    assert cancelled.is_set()
    with trio.testing.assert_no_checkpoints():
        await wakeup.wait()


async def test_task_that_waits_elsewhere_is_not_woken() -> None:
    wakeup, other, heard = Wakeup(), Wakeup(), []

    async def wait() -> None:
        await wakeup.wait()
        heard.append("wakeup")
        with trio.move_on_after(math.inf) as scope:
            scopes.append(scope)
            await wakeup.wait()
        await other.wait()
        heard.append("other")

    scopes: list[trio.CancelScope] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == ["wakeup"]
        assert other.waited_for
        other.set()
    assert heard == ["wakeup", "other"]


async def test_woken_task_that_is_cancelled_has_been_woken() -> None:
    wakeup, heard = Wakeup(), trio.Event()

    async def wait() -> None:
        await wakeup.wait()
        heard.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
        nursery.cancel_scope.cancel()
    assert heard.is_set()


async def test_second_waiter_is_refused() -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, wakeup)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wakeup.wait()
        wakeup.set()


async def test_repr_tells_the_state() -> None:
    wakeup = Wakeup()
    assert repr(wakeup) == "<Wakeup not set>"
    wakeup.set()
    assert repr(wakeup) == "<Wakeup set>"
    await wakeup.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, wakeup)
        await trio.testing.wait_all_tasks_blocked()
        assert repr(wakeup) == "<Wakeup waited for>"
        wakeup.set()


async def test_waiter_gets_a_result_that_is_handed_over() -> None:
    wakeup, got = Wakeup(), []

    async def take() -> None:
        got.append(await wakeup.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert wakeup.hand_over(outcome.Value("a message"))
    assert got == ["a message"]


async def test_hand_over_keeps_nothing() -> None:
    wakeup = Wakeup()
    assert not wakeup.hand_over(outcome.Value("a message"))
    assert repr(wakeup) == "<Wakeup not set>"


# -- the trap ----------------------------------------------------------------------------------------------------------

Waiting = Generator[Any, Any, Any]


def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


def test_trios_trap_is_known() -> None:
    trap = module.trap_of(give_up)
    assert trap is not None
    assert vars(trap) == {"abort_func": give_up}


def yields_twice(abort: object) -> Waiting:
    answer = yield SimpleNamespace(abort_func=abort)
    yield
    return answer.unwrap()


def does_not_unwrap(abort: object) -> Waiting:
    return (yield SimpleNamespace(abort_func=abort))


def wants_another_answer(abort: object) -> Waiting:
    return (yield SimpleNamespace(abort_func=abort)).value_or_raise()


def yields_more(abort: object) -> Waiting:
    return (yield SimpleNamespace(abort_func=abort, deadline=None)).unwrap()


def yields_what_has_no_fields(abort: object) -> Waiting:
    return (yield (abort,)).unwrap()


@pytest.mark.parametrize(
    "wait_task_rescheduled",
    [yields_twice, does_not_unwrap, wants_another_answer, yields_more, yields_what_has_no_fields],
)
def test_unknown_trap_is_not_used(
    wait_task_rescheduled: Callable[[object], Waiting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.lowlevel, "wait_task_rescheduled", wait_task_rescheduled)
    assert module.trap_of(give_up) is None


async def test_one_outcome_wakes_many_tasks() -> None:
    woken = []

    async def sleep() -> None:
        woken.append(await trio.lowlevel.wait_task_rescheduled(give_up))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        for task in nursery.child_tasks:
            trio.lowlevel.reschedule(task, module.WOKEN)
    assert woken == [None, None]


async def test_outcome_can_be_sent_into_generators() -> None:
    def generator() -> Generator[str, object, None]:
        assert (yield "first") is None
        yield "second"

    async def async_generator() -> Any:
        assert (yield "first") is None
        yield "second"

    plain, asynchronous = generator(), async_generator()
    assert (next(plain), await anext(asynchronous)) == ("first", "first")
    assert module.WOKEN.send(plain) == "second"
    assert await module.WOKEN.asend(asynchronous) == "second"
    await asynchronous.aclose()
    assert isinstance(module.WOKEN, outcome.Outcome)
