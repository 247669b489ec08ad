"""The functions of asgiref, Django and asyncio that the bridge replaces."""

from __future__ import annotations

import contextvars
import functools
import sys
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
from .._asgi.foreign_calls import explain
from .._threads.affinity import Affinity, current_affinity
from .._threads.context import adopt
from .._threads.database import refresh_connections, run_anywhere, run_in_thread, thread_pool
from .._threads.neutral import is_neutral
from .._threads.thread import in_pool_thread
from ..exceptions import BridgeError
from .calls import in_context, on_executor, with_exc_info, with_exc_info_async
from .iteration import iterate_on_one_thread
from .outside import on_trio
from .parallel import gather, run_parallel

_MARK = "_trio_channels_bridge"

#: asgiref has imported it.
_asyncio: Any = sys.modules["asyncio"]


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
    """The replacement of one attribute of a class or module; `make` makes it from the original."""

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
        make = _in_thread(self, kwargs) if executor is None else functools.partial(on_executor, executor)
        call = with_exc_info(functools.partial(self.func, *args, **kwargs))
        if (context := getattr(self, "context", None)) is None:
            return await make(call)
        before = contextvars.copy_context()
        try:
            return await make(in_context(context, call))
        finally:
            adopt(before)  # changes stay in the given context, also those of calls back into async code

    return __call__


def _in_thread(call: SyncToAsync[..., Any], arguments: dict[str, Any]) -> Callable[..., Any]:
    """The way to a thread. A call that may leave state on its thread makes the request keep that thread."""
    if current_affinity() is None:
        return run_in_thread
    if not call._thread_sensitive:
        return run_anywhere
    return functools.partial(run_in_thread, neutral=is_neutral(call.func, arguments))


def _async_to_sync_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Run the coroutine in the Trio task that waits for this thread. On the Trio thread itself this is an error.

    Where no event loop is around, our own functions and tests run on Trio, and all others on asyncio.
    """

    @functools.wraps(original)
    def __call__(self: AsyncToSync[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if self.force_new_loop:
            return original(self, *args, **kwargs)
        if belongs_to_trio():
            return sync.async_to_sync(with_exc_info_async(self.awaitable))(*args, **kwargs)
        if not _in_asyncio() and (call := on_trio(self.awaitable, args)) is not None:
            return call(*args, **kwargs)
        try:
            return original(self, *args, **kwargs)
        except Exception as error:
            explain(error, on_trio=False)
            raise

    return __call__


def _in_asyncio() -> bool:
    try:
        _asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _enter_thread_sensitive_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """Calls inside it share one thread, as those of a request do; in a request, they have its thread already."""

    @functools.wraps(original)
    async def __aenter__(self: Any) -> Any:  # noqa: N807
        entered = await original(self)
        own = self.token and getattr(self, "_executor", None) is None
        if own and in_trio() and current_affinity() is None:
            self._trio_thread = Affinity(thread_pool(), "a ThreadSensitiveContext", care=refresh_connections)
            self._trio_thread.__enter__()
        return entered

    return __aenter__


def _leave_thread_sensitive_context(original: Callable[..., Any]) -> Callable[..., Any]:
    """Leave the block without asyncio. Only an asyncio loop inside the block can have left an executor to shut down."""

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


def _get_event_loop(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make no asyncio loop in a Trio task: nothing would ever run the tasks that are started in it."""

    @functools.wraps(original)
    def get_event_loop(self: Any) -> Any:
        if in_trio():
            raise BridgeError("there is no current event loop of asyncio in a Trio task")
        return original(self)

    return get_event_loop


def _run_of_asyncio(original: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse ``asyncio.run()`` on the Trio thread. Elsewhere note it on the exception of code that needs Trio."""

    @functools.wraps(original)
    def run(self: Any, coroutine: Any, **kwargs: Any) -> Any:
        if in_trio():
            coroutine.close()
            raise BridgeError(
                "asyncio.run() was called on a thread that runs trio; it would block every task there. Await the "
                "function, or, if it needs asyncio, call asyncio.run() through trio_channels.sync.sync_to_async()"
            )
        try:
            return original(self, coroutine, **kwargs)
        except Exception as error:
            explain(error, on_trio=False)
            raise

    return run


def explain_to_django(**_kwargs: object) -> None:
    """A receiver of Django's ``got_request_exception``: adds a remedy to an exception of the wrong event loop."""
    error = sys.exc_info()[1]
    if error is not None:
        explain(error, on_trio=belongs_to_trio())


#: The base of all policies; from Python 3.14 on it makes no loop, and has another name.
_POLICY = getattr(_asyncio.events, "BaseDefaultEventLoopPolicy", None)

PATCHES = (
    Patch(SyncToAsync, "__call__", _sync_to_async_call),
    Patch(AsyncToSync, "__call__", _async_to_sync_call),
    Patch(ThreadSensitiveContext, "__aenter__", _enter_thread_sensitive_context),
    Patch(ThreadSensitiveContext, "__aexit__", _leave_thread_sensitive_context),
    Patch(django.utils.asyncio, "get_running_loop", _get_running_loop),
    Patch(dispatcher, "_run_parallel", _run_parallel)
    if hasattr(dispatcher, "_run_parallel")
    else Patch(dispatcher, "asyncio", _dispatchers_asyncio),
    Patch(QuerySet, "aiterator", _aiterator),
    Patch(_asyncio.Runner, "run", _run_of_asyncio),
    *([Patch(_POLICY, "get_event_loop", _get_event_loop)] if _POLICY else []),
)
