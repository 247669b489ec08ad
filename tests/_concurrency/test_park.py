"""What a parked task tells Trio: taken from Trio, once it has been seen to be what it is taken for."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from trio_channels._concurrency import park

Waiting = Generator[Any, Any, Any]


def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED


def test_trios_message_is_known() -> None:
    message = park.message(give_up)
    assert message is not None
    assert vars(message) == {"abort_func": give_up}


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
def test_a_message_that_is_not_known_is_not_used(
    wait_task_rescheduled: Callable[[object], Waiting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio.lowlevel, "wait_task_rescheduled", wait_task_rescheduled)
    assert park.message(give_up) is None


async def test_what_wakes_says_nothing_however_often_it_is_used() -> None:
    woken = []

    async def sleep() -> None:
        woken.append(await trio.lowlevel.wait_task_rescheduled(give_up))

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        for task in nursery.child_tasks:
            trio.lowlevel.reschedule(task, park.WOKEN)
    assert woken == [None, None]


async def test_what_wakes_can_be_sent_into_generators() -> None:
    def generator() -> Generator[str, object, None]:
        assert (yield "first") is None
        yield "second"

    async def async_generator() -> Any:
        assert (yield "first") is None
        yield "second"

    plain, asynchronous = generator(), async_generator()
    assert (next(plain), await anext(asynchronous)) == ("first", "first")
    assert park.WOKEN.send(plain) == "second"
    assert await park.WOKEN.asend(asynchronous) == "second"
    await asynchronous.aclose()
    assert isinstance(park.WOKEN, outcome.Outcome)
