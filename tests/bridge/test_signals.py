"""Signals with receivers of both kinds, sent from Trio."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import django
import pytest
import trio
import trio.testing
from asgiref.sync import sync_to_async
from django.dispatch import Signal

from trio_channels._threads.thread import in_pool_thread
from trio_channels.bridge.parallel import run_parallel
from trio_channels.exceptions import BridgeError

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def signal() -> Signal:
    return Signal()


@pytest.fixture
def connect(signal: Signal) -> Callable[..., Any]:
    """Connects a receiver that lives as long as the signal."""
    return lambda receiver: signal.connect(receiver, weak=False)


async def test_receivers_of_both_kinds_answer(signal: Signal, connect: Callable[..., Any]) -> None:
    @connect
    def plain(**kwargs: Any) -> object:
        return "plain", in_pool_thread()

    @connect
    async def asynchronous(**kwargs: Any) -> object:
        await trio.lowlevel.checkpoint()
        return "asynchronous", in_pool_thread()

    answers = [answer for _receiver, answer in await signal.asend(None)]
    assert answers == [("plain", True), ("asynchronous", False)]


async def test_signal_without_receivers_is_sent(signal: Signal) -> None:
    assert await signal.asend(None) == []
    assert await signal.asend_robust(None) == []


async def test_asynchronous_receivers_run_at_the_same_time(signal: Signal, connect: Callable[..., Any]) -> None:
    events = [trio.Event(), trio.Event()]

    @connect
    async def first(**kwargs: Any) -> None:
        events[0].set()
        await events[1].wait()

    @connect
    async def second(**kwargs: Any) -> None:
        events[1].set()
        await events[0].wait()

    with trio.fail_after(30):
        assert len(await signal.asend(None)) == 2


async def test_what_a_receiver_raises_comes_bare_and_cancels_the_others(
    signal: Signal, connect: Callable[..., Any]
) -> None:
    cancelled = []

    @connect
    async def fail(**kwargs: Any) -> None:
        raise LookupError("no")

    @connect
    async def wait(**kwargs: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.append(True)
            raise

    with pytest.raises(LookupError, match="no"):
        await signal.asend(None)
    assert cancelled == [True]


async def test_several_errors_at_the_same_time_come_in_a_group(signal: Signal, connect: Callable[..., Any]) -> None:
    @connect
    async def fail(**kwargs: Any) -> None:
        raise LookupError

    @connect
    async def fail_too(**kwargs: Any) -> None:
        raise OSError

    with pytest.raises(ExceptionGroup) as caught:
        await signal.asend(None)
    assert {type(error) for error in caught.value.exceptions} == {LookupError, OSError}


async def test_robust_send_collects_the_errors(signal: Signal, connect: Callable[..., Any]) -> None:
    @connect
    async def fail(**kwargs: Any) -> None:
        raise LookupError

    @connect
    def fail_too(**kwargs: Any) -> None:
        raise OSError

    @connect
    async def succeed(**kwargs: Any) -> int:
        return 1

    answers = [answer for _receiver, answer in await signal.asend_robust(None)]
    assert [type(answer) for answer in answers] == [OSError, LookupError, int]


async def test_cancellation_reaches_the_receivers(signal: Signal, connect: Callable[..., Any]) -> None:
    cancelled = []

    async def wait(**kwargs: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    connect(wait)
    connect(lambda **kwargs: None)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(signal.asend, None)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert cancelled == [True]


async def test_synchronous_code_on_a_worker_reaches_asynchronous_receivers(
    signal: Signal, connect: Callable[..., Any]
) -> None:
    @connect
    async def asynchronous(**kwargs: Any) -> object:
        await trio.lowlevel.checkpoint()
        return in_pool_thread()

    assert [answer for _, answer in await sync_to_async(signal.send)(None)] == [False]
    assert [answer for _, answer in await sync_to_async(signal.send_robust)(None)] == [False]


async def test_blocking_send_on_the_trio_thread_is_refused(signal: Signal, connect: Callable[..., Any]) -> None:
    @connect
    async def asynchronous(**kwargs: Any) -> None:
        """Never runs."""

    with pytest.raises(BridgeError, match="Await"):
        signal.send(None)


async def test_receivers_context_changes_follow_django(signal: Signal, connect: Callable[..., Any]) -> None:
    @connect
    async def change(**kwargs: Any) -> None:
        variable.set("changed")

    @connect
    async def leave(**kwargs: Any) -> None:
        assert variable.get() in ("unset", "changed")

    await signal.asend(None)
    assert variable.get() == ("changed" if django.VERSION >= (6, 0) else "unset")


async def test_calls_in_parallel_each_add_what_they_changed_in_the_context() -> None:
    other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="unset")

    async def change(which: contextvars.ContextVar[str]) -> str:
        await trio.lowlevel.checkpoint()
        which.set("changed")
        return which.name

    assert await run_parallel(change(variable), change(other)) == ["variable", "other"]
    assert (variable.get(), other.get()) == ("changed", "changed")
