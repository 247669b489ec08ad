"""The functions of asgiref and Django that the bridge replaces."""

from __future__ import annotations

import contextvars
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import django.utils.asyncio
import sniffio
import trio
from asgiref.sync import AsyncToSync, SyncToAsync, ThreadSensitiveContext
from django.db.models import QuerySet
from django.dispatch import dispatcher

from .. import sync
from .._threads.affinity import current_affinity
from .._threads.context import adopt
from .._threads.database import run_anywhere, run_in_thread
from .._threads.neutral import is_neutral
from .._threads.thread import in_pool_thread
from .calls import in_context, on_executor, with_exc_info, with_exc_info_async
from .iteration import iterate_on_one_thread
from .parallel import gather, run_parallel

_MARK = "_trio_channels_bridge"


def in_trio() -> bool:
    """Whether this thread is in a Trio run at this moment. In guest mode the answer changes from tick to tick."""
    return bool(sniffio.thread_local.name == "trio")


def belongs_to_trio() -> bool:
    """Whether the innermost event loop around this synchronous code is Trio's."""
    try:
        return sniffio.current_async_library() == "trio"
    except sniffio.AsyncLibraryNotFoundError:
        return in_pool_thread() or sync.in_thread_of_trio()


@dataclass(frozen=True)
class Patch:
    """The replacement of one attribute of a class or module.

    Args:
        owner: the class or module.
        name: the attribute's name.
        make: a function that is called with the original, and returns the replacement.
    """

    owner: Any
    name: str
    make: Callable[[Any], Any]

    @property
    def applied(self) -> bool:
        """Whether the attribute is replaced."""
        return hasattr(getattr(self.owner, self.name), _MARK)

    def apply(self) -> None:
        """Replace the attribute. Idempotent."""
        if not self.applied:
            replacement = self.make(getattr(self.owner, self.name))
            setattr(replacement, _MARK, True)
            setattr(self.owner, self.name, replacement)


def _sync_to_async_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Run the function on a thread of the Trio run's pool, or on the executor of the call, if it has one."""

    @functools.wraps(original)
    async def __call__(self: SyncToAsync[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if not in_trio():
            return await original(self, *args, **kwargs)
        executor = self._executor
        if executor is None and self._thread_sensitive:
            executor = getattr(SyncToAsync.thread_sensitive_context.get(None), "_executor", None)
        make = _in_thread(self) if executor is None else functools.partial(on_executor, executor)
        call = with_exc_info(functools.partial(self.func, *args, **kwargs))
        if (context := getattr(self, "context", None)) is None:
            return await make(call)
        before = contextvars.copy_context()
        try:
            return await make(in_context(context, call))
        finally:
            adopt(before)  # changes stay in the given context, also those of calls back into async code

    return __call__


def _in_thread(call: SyncToAsync[..., Any]) -> Callable[..., Any]:
    """The way to a thread. A call that may leave state on its thread makes the request keep that thread."""
    if current_affinity() is None:
        return run_in_thread
    if not call._thread_sensitive:
        return run_anywhere
    return functools.partial(run_in_thread, neutral=is_neutral(call.func))


def _async_to_sync_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Run the coroutine in the Trio task that waits for this thread. On the Trio thread itself this is an error."""

    @functools.wraps(original)
    def __call__(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if self.force_new_loop or not belongs_to_trio():
            return original(self, *args, **kwargs)
        return sync.async_to_sync(with_exc_info_async(self.awaitable))(*args, **kwargs)

    return __call__


def _leave_thread_sensitive_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """Leave the block without asyncio. Only an asyncio loop inside the block can have left an executor to shut down."""

    @functools.wraps(original)
    async def __aexit__(self: ThreadSensitiveContext, *exception: Any) -> None:  # noqa: N807
        if in_trio() and self.token and getattr(self, "_executor", None) is None:
            executor = SyncToAsync.context_to_thread_executor.pop(self, None)
            if executor is not None:
                with trio.CancelScope(shield=True):
                    await run_in_thread(executor.shutdown)
        await original(self, *exception)

    return __aexit__


def _get_running_loop(original: Callable[[], Any]) -> Callable[[], Any]:
    """Report a running loop on the Trio thread, so that Django refuses blocking queries there."""

    # No functools.wraps: the original is a built-in function.
    def get_running_loop() -> Any:
        return trio.lowlevel.current_trio_token() if in_trio() else original()

    return get_running_loop


def _dispatchers_asyncio(original: types.ModuleType) -> types.ModuleType:
    """Django 5.2: the dispatcher's reference to the module ``asyncio``, of which it uses ``gather``."""
    seen = types.ModuleType(original.__name__, original.__doc__)
    seen.__getattr__ = functools.partial(getattr, original)  # type: ignore[method-assign]
    seen.gather = lambda *calls: gather(*calls) if in_trio() else original.gather(*calls)  # type: ignore[attr-defined]
    return seen


def _run_parallel(original: Callable[..., Any]) -> Callable[..., Any]:
    """Django 6: the dispatcher's function for concurrent receivers."""

    @functools.wraps(original)
    async def _run_parallel(*calls: Any) -> Any:
        return await (run_parallel(*calls) if in_trio() else original(*calls))

    return _run_parallel


def _aiterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a database cursor on one thread: each thread has a connection of its own."""

    @functools.wraps(original)
    def aiterator(self: Any, chunk_size: int = 2000) -> Any:
        return iterate_on_one_thread(self, chunk_size) if in_trio() else original(self, chunk_size)

    return aiterator


PATCHES = (
    Patch(SyncToAsync, "__call__", _sync_to_async_call),
    Patch(AsyncToSync, "__call__", _async_to_sync_call),
    Patch(ThreadSensitiveContext, "__aexit__", _leave_thread_sensitive_context),
    Patch(django.utils.asyncio, "get_running_loop", _get_running_loop),
    Patch(dispatcher, "_run_parallel", _run_parallel)
    if hasattr(dispatcher, "_run_parallel")
    else Patch(dispatcher, "asyncio", _dispatchers_asyncio),
    Patch(QuerySet, "aiterator", _aiterator),
)
