"""asgiref's ``async_to_sync`` where no Trio run is around: calls that must run on Trio get a Trio run.

- A method of a channel layer, and every other async function of this package: the background run of
  :mod:`trio_channels.sync`.
- An async test of Django's test cases, and an async view or middleware that Django's test client calls: a Trio run of
  their own, in the calling thread. Its synchronous calls use the database connections of that thread, and so the test's
  transaction.

Any other function may be for asyncio, and stays there.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import outcome
import trio
from django.db import connections
from django.http import HttpRequest

from .. import sync
from .._asgi.foreign_calls import explain
from .._threads.context import adopt
from ..layers.base import ChannelLayer
from ..layers.on_demand import on_demand

T = TypeVar("T")


def _inner(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def is_ours(function: Callable[..., Awaitable[object]]) -> bool:
    """Whether an async function is for Trio for certain: a method of a channel layer, or a function of this package."""
    inner = _inner(function)
    owner = getattr(inner, "__self__", None)
    return isinstance(owner, ChannelLayer) or str(getattr(inner, "__module__", "")).startswith("trio_channels.")


def on_trio(function: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> Callable[..., T] | None:
    """A synchronous function that runs an async one on Trio; None if it may as well be for asyncio."""
    if is_ours(function):
        return sync.async_to_sync(function)
    if _is_test_case(getattr(_inner(function), "__self__", None)) or (args and _is_of_test_client(args[0])):
        return functools.partial(_in_own_run, function)
    return None


def _is_test_case(owner: object) -> bool:
    # Without an import of django.test, which a site does not need.
    return "django.test.testcases.SimpleTestCase" in (f"{cls.__module__}.{cls.__name__}" for cls in type(owner).__mro__)


def _is_of_test_client(argument: object) -> bool:
    # The handlers of the test clients set this attribute on each of their requests, and nothing else does.
    return isinstance(argument, HttpRequest) and "_dont_enforce_csrf_checks" in vars(argument)


def _in_own_run(function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
    # Not at the top: it is for tests.
    from ..testing._connections import shared_connections

    async def main() -> tuple[outcome.Outcome[T], contextvars.Context]:
        async with on_demand(), shared_connections({each.alias: each for each in connections.all()}):
            result = await outcome.acapture(function, *args, **kwargs)
        return result, contextvars.copy_context()

    result, context = trio.run(main)
    adopt(context)
    try:
        return result.unwrap()
    except BaseException as error:
        explain(error)
        raise
