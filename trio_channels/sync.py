"""Calls from async to sync code and back, on Trio.

:func:`sync_to_async` runs synchronous code on a thread of the Trio run's pool. :func:`async_to_sync` runs async code

- from a thread of the pool: in the Trio task that waits for the thread;
- from a thread of :func:`trio.to_thread.run_sync`: in the thread's Trio run;
- from any other thread (a management command, Celery, WSGI): in the background Trio run of the process, which has a
  thread of its own, is started on first use and ends at exit. Channel layers need no opening there.

Neither of them starts asyncio.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

import outcome
import sniffio
import trio

from ._threads.background import background
from ._threads.context import adopt, take_over
from ._threads.database import run_in_thread
from ._threads.thread import in_pool_thread, run_in_trio
from .exceptions import BridgeError

__all__ = ["async_to_sync", "sync_to_async"]

T = TypeVar("T")
P = ParamSpec("P")

#: Attributes with which asgiref and inspect mark callables as async. A synchronous wrapper must not inherit them.
_ASYNC_MARKS = ("_is_coroutine", "_is_coroutine_mark", "_is_coroutine_marker")


@overload
def sync_to_async(
    function: Callable[P, T], *, thread_sensitive: bool = ..., executor: None = ...
) -> Callable[P, Coroutine[Any, Any, T]]: ...


@overload
def sync_to_async(
    function: None = None, *, thread_sensitive: bool = ..., executor: None = ...
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]: ...


def sync_to_async(function: Any = None, *, thread_sensitive: bool = True, executor: None = None) -> Any:  # noqa: ARG001
    """Make an async function of a synchronous one; a decorator, with or without arguments, or a call.

    Args:
        function: the synchronous function.
        thread_sensitive: as asgiref's, without effect: every call runs on some thread of the pool. For calls that must
            share a thread see :func:`trio_channels.db.pinned`.
        executor: must be None: the pool's threads manage the database connections.

    Raises:
        TypeError: `function` is async, or cannot be called; or there is an executor.
        BridgeError: from the call: it was made outside a Trio run.
        WorkerPoolBusy: from the call: too many calls already wait for a thread.

    Cancellation of a call: the wait for a thread can be cancelled; a call that has begun is completed.
    """
    if executor is not None:
        raise TypeError(
            f"sync_to_async() runs on the threads of the pool, whose number is WORKER_THREADS; got the executor "
            f"{executor!r}"
        )
    if function is None:
        return sync_to_async
    called = getattr(function, "__call__", None)  # noqa: B004 - the __call__ of an object may be async
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called) or not callable(function):
        raise TypeError(f"sync_to_async() expects a synchronous function; got {function!r}")

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await run_in_thread(functools.partial(function, *args, **kwargs))

    return call


def async_to_sync(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Make a synchronous function of an async one.

    Raises:
        TypeError: `function` cannot be called.
        BridgeError: from the call: it was made on a thread that runs Trio or asyncio, which it would block; or while
            the process is ending.

    A call blocks its thread until the async function has ended. Context variables are passed in and back out. An
    interrupt of the call (Ctrl-C, a signal handler that raises) cancels the async function.
    """
    if not callable(function):
        raise TypeError(f"async_to_sync() expects an async function; got {function!r}")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = functools.partial(function, *args, **kwargs)
        if in_pool_thread():
            return run_in_trio(bound)
        _refuse_event_loop(function)
        return _in_other_thread(bound)

    for mark in _ASYNC_MARKS:
        vars(call).pop(mark, None)
    return call


def _refuse_event_loop(function: object) -> None:
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return
    name = getattr(function, "__qualname__", repr(function))
    raise BridgeError(
        f"async_to_sync({name}) was called on a thread that runs {library}; it would block every task there. "
        f"Await {name}() instead, or call the synchronous code through sync_to_async()"
    )


def _in_other_thread(bound: Callable[[], Awaitable[T]]) -> T:
    """Run an async function in the Trio run that this thread belongs to, else in the background run."""
    context = contextvars.copy_context()

    async def run() -> tuple[outcome.Outcome[T], contextvars.Context]:
        adopt(context)
        take_over()
        result = await outcome.acapture(bound)
        return result, contextvars.copy_context()

    result, after = trio.from_thread.run(run) if in_thread_of_trio() else background.run(run)
    adopt(after)
    return result.unwrap()


def in_thread_of_trio() -> bool:
    """Whether :func:`trio.to_thread.run_sync` runs this thread."""
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True
