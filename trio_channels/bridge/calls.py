"""One call from asgiref: with the exception that its caller handles, in a given context, on a given executor."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

import outcome
import trio

from .._threads.context import adopt, take_over
from .._threads.thread import affinity_of_task, lease_of_task

T = TypeVar("T")
P = ParamSpec("P")


def with_exc_info(call: Callable[[], T]) -> Callable[[], T]:
    """The call, with this thread's ``sys.exc_info()`` on its own thread: Django's error handlers read it."""
    error = sys.exc_info()[1]
    if error is None:
        return call

    def inside() -> T:
        traceback = error.__traceback__
        try:
            raise error
        except BaseException:
            return call()
        finally:
            error.__traceback__ = traceback

    return inside


def with_exc_info_async(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """:func:`with_exc_info` for an async function."""
    error = sys.exc_info()[1]
    if error is None:
        return function

    async def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        traceback = error.__traceback__
        try:
            raise error
        except BaseException:
            return await function(*args, **kwargs)
        finally:
            error.__traceback__ = traceback

    return inside


def in_context(context: contextvars.Context, call: Callable[[], T]) -> Callable[[], T]:
    """The call, in a given context. Its calls back into async code still return to the thread that it runs on."""

    def inside() -> T:
        return context.run(_make, lease_of_task.get(), affinity_of_task.get(), call)

    return inside


def _make(lease: Any, affinity: Any, call: Callable[[], T]) -> T:
    take_over()
    before, request_before = lease_of_task.set(lease), affinity_of_task.set(affinity)
    try:
        return call()
    finally:
        affinity_of_task.reset(request_before)
        lease_of_task.reset(before)


async def on_executor(executor: Executor, call: Callable[[], T]) -> T:
    """Make the call on a given executor. Cancellation: withdraws the call if it has not begun, else waits for it."""
    await trio.lowlevel.checkpoint_if_cancelled()
    token, done, context = trio.lowlevel.current_trio_token(), trio.Event(), contextvars.copy_context()

    def run() -> outcome.Outcome[T]:
        take_over()
        return outcome.capture(call)

    future = executor.submit(context.run, run)
    future.add_done_callback(lambda _: token.run_sync_soon(done.set))
    try:
        await done.wait()
    except trio.Cancelled:
        if future.cancel():
            raise
        with trio.CancelScope(shield=True):
            await done.wait()
    adopt(context)
    return future.result().unwrap()
