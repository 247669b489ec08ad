"""What the bridge replaces, point by point."""

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
from .._threads.affinity import Affinity, current_affinity
from .._threads.context import adopt
from .._threads.database import refresh_connections, run_anywhere, run_in_worker, worker_pool
from .._threads.neutral import is_neutral
from .._threads.thread import in_worker
from .calls import handling, in_context, on_executor, restoring
from .iteration import iterate_on_one_worker
from .parallel import gather, run_parallel

_MARK = "_trio_channels_bridge"


def in_trio() -> bool:
    """Whether this thread is in a Trio run at this moment; in guest mode that changes from tick to tick."""
    return bool(sniffio.thread_local.name == "trio")


def belongs_to_trio() -> bool:
    """Whether synchronous code in this thread has Trio around it, and no asyncio loop of its own in between."""
    try:
        return sniffio.current_async_library() == "trio"
    except sniffio.AsyncLibraryNotFoundError:
        return in_worker() or sync.in_thread_of_trio()


@dataclass(frozen=True)
class Point:
    """One thing to replace: an attribute of a class or module, and what makes its replacement of the original.

    Args:
        owner: the class or module.
        name: the attribute.
        make: called with the original.
    """

    owner: Any
    name: str
    make: Callable[[Any], Any]

    @property
    def replaced(self) -> bool:
        """Whether the bridge's is there."""
        return hasattr(getattr(self.owner, self.name), _MARK)

    def replace(self) -> None:
        """Put the replacement there, once."""
        if not self.replaced:
            replacement = self.make(getattr(self.owner, self.name))
            setattr(replacement, _MARK, True)
            setattr(self.owner, self.name, replacement)


def _sync_to_async_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """On the worker threads of the Trio run; on the executor that somebody chose, if somebody did."""

    @functools.wraps(original)
    async def __call__(self: SyncToAsync[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if not in_trio():
            return await original(self, *args, **kwargs)
        executor = self._executor
        if executor is None and self._thread_sensitive:
            executor = getattr(SyncToAsync.thread_sensitive_context.get(None), "_executor", None)
        make = _in_worker(self, kwargs) if executor is None else functools.partial(on_executor, executor)
        call = handling(functools.partial(self.func, *args, **kwargs))
        if (context := getattr(self, "context", None)) is None:
            return await make(call)
        before = contextvars.copy_context()
        try:
            return await make(in_context(context, call))
        finally:
            adopt(before)  # what the call changed stays in the chosen context, however deep it called back

    return __call__


def _in_worker(call: SyncToAsync[..., Any], arguments: dict[str, Any]) -> Callable[..., Any]:
    """How the call is made: inside a request, one that may leave something on its thread has the request keep it."""
    if current_affinity() is None:
        return run_in_worker
    if not call._thread_sensitive:
        return run_anywhere
    return functools.partial(run_in_worker, neutral=is_neutral(call.func, arguments))


def _async_to_sync_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """In the Trio task that waits for this thread; an error on the Trio thread itself."""

    @functools.wraps(original)
    def __call__(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if self.force_new_loop or not belongs_to_trio():
            return original(self, *args, **kwargs)
        return sync.async_to_sync(restoring(self.awaitable))(*args, **kwargs)

    return __call__


def _enter_thread_sensitive_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """Calls inside it share one thread, as those of a request do; in a request, they have its thread already."""

    @functools.wraps(original)
    async def __aenter__(self: Any) -> Any:  # noqa: N807
        entered = await original(self)
        own = self.token and getattr(self, "_executor", None) is None
        if own and in_trio() and current_affinity() is None:
            self._trio_thread = Affinity(worker_pool(), "a ThreadSensitiveContext", care=refresh_connections)
            self._trio_thread.__enter__()
        return entered

    return __aenter__


def _leave_thread_sensitive_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """Without asyncio. Only an asyncio loop that ran inside the block can have left an executor to be ended."""

    @functools.wraps(original)
    async def __aexit__(self: Any, *exception: Any) -> None:  # noqa: N807
        thread: Affinity | None = self.__dict__.pop("_trio_thread", None)
        try:
            if thread is not None and thread.lease is not None:
                await thread.run_sync(refresh_connections)
        finally:
            if thread is not None:
                thread.end()
            if in_trio() and self.token and getattr(self, "_executor", None) is None:
                executor = SyncToAsync.context_to_thread_executor.pop(self, None)
                if executor is not None:
                    with trio.CancelScope(shield=True):
                        await run_in_worker(executor.shutdown)
            await original(self, *exception)

    return __aexit__


def _get_running_loop(original: Callable[[], Any]) -> Callable[[], Any]:
    """By which Django tells asynchronous code from synchronous: blocking queries on the Trio thread are refused."""

    # No functools.wraps: the original is a built-in function.
    def get_running_loop() -> Any:
        return trio.lowlevel.current_trio_token() if in_trio() else original()

    return get_running_loop


def _dispatchers_asyncio(original: types.ModuleType) -> types.ModuleType:
    """Django 5.2: the module ``asyncio`` as the dispatcher sees it, of which it uses ``gather``."""
    seen = types.ModuleType(original.__name__, original.__doc__)
    seen.__getattr__ = functools.partial(getattr, original)  # type: ignore[method-assign]
    seen.gather = lambda *calls: gather(*calls) if in_trio() else original.gather(*calls)  # type: ignore[attr-defined]
    return seen


def _run_parallel(original: Callable[..., Any]) -> Callable[..., Any]:
    """Django 6: the dispatcher's own function."""

    @functools.wraps(original)
    async def _run_parallel(*calls: Any) -> Any:
        return await (run_parallel(*calls) if in_trio() else original(*calls))

    return _run_parallel


def _aiterator(original: Callable[..., Any]) -> Callable[..., Any]:
    """A database cursor must not travel between threads, each of which has its own connection."""

    @functools.wraps(original)
    def aiterator(self: Any, chunk_size: int = 2000) -> Any:
        return iterate_on_one_worker(self, chunk_size) if in_trio() else original(self, chunk_size)

    return aiterator


POINTS = (
    Point(SyncToAsync, "__call__", _sync_to_async_call),
    Point(AsyncToSync, "__call__", _async_to_sync_call),
    Point(ThreadSensitiveContext, "__aenter__", _enter_thread_sensitive_context),
    Point(ThreadSensitiveContext, "__aexit__", _leave_thread_sensitive_context),
    Point(django.utils.asyncio, "get_running_loop", _get_running_loop),
    Point(dispatcher, "_run_parallel", _run_parallel)
    if hasattr(dispatcher, "_run_parallel")
    else Point(dispatcher, "asyncio", _dispatchers_asyncio),
    Point(QuerySet, "aiterator", _aiterator),
)
