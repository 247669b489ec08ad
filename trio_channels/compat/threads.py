"""Synchronous code for asyncio code inside of Trio: on the threads of the pool, and back to where it came from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import django.utils.asyncio
import trio
from asgiref.sync import AsyncToSync, SyncToAsync

from .. import bridge, db
from .._threads.thread import in_pool_thread
from ..bridge.outside import is_ours
from ..bridge.patches import Patch
from ..sync import async_to_sync
from .crossing import call_asyncio, call_trio, from_asyncio, on_asyncio, two_flavoured

aclose_old_connections = two_flavoured(db.aclose_old_connections)


def database_sync_to_async(function: Any = None, **options: Any) -> Any:
    """See :func:`trio_channels.db.database_sync_to_async`."""
    if function is None:
        return functools.partial(database_sync_to_async, **options)
    return two_flavoured(db.database_sync_to_async(function, **options))


def _sync_to_async_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """asgiref's, called by asyncio code: trio-asyncio's loop takes no executor but its own, so that Trio calls it."""

    @functools.wraps(original)
    async def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if on_asyncio():
            return await call_trio(original, self, *args, **kwargs)
        return await original(self, *args, **kwargs)

    return __call__


def _async_to_sync_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """asgiref's, on a thread that asyncio code waits for: a function that is not ours runs on asyncio."""

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if in_pool_thread() and from_asyncio.get() and not is_ours(self.awaitable):
            return async_to_sync(functools.partial(call_asyncio, self.awaitable))(*args, **kwargs)
        return original(self, *args, **kwargs)

    return __call__


def _get_running_loop(original: Callable[[], Any]) -> Callable[[], Any]:
    """Django's check for a running loop, which refuses blocking queries: in asyncio code inside of Trio, too."""

    def get_running_loop() -> Any:
        return trio.lowlevel.current_trio_token() if on_asyncio() else original()

    vars(get_running_loop).update(vars(original))  # the bridge's mark
    return get_running_loop


_PATCHES = (
    Patch(SyncToAsync, "__call__", _sync_to_async_call),
    Patch(AsyncToSync, "__call__", _async_to_sync_call),
    Patch(django.utils.asyncio, "get_running_loop", _get_running_loop),
)


@functools.cache
def patch() -> None:
    """Replace the three functions, over the bridge; idempotent."""
    bridge.install()
    for each in _PATCHES:
        setattr(each.owner, each.name, each.make(getattr(each.owner, each.name)))
