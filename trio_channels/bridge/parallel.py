"""The receivers of one signal, run concurrently in a nursery."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable
from typing import Any

import trio

from .._concurrency.exception_groups import split_cancelled
from .._threads.context import adopt_changes


async def gather(*calls: Awaitable[Any]) -> list[Any]:
    """Await all calls concurrently; returns their results, in order. The failure of one call cancels the others."""
    results, _contexts = await _all(calls)
    return results


async def run_parallel(*calls: Awaitable[Any]) -> list[Any]:
    """As :func:`gather`; changes to context variables return to the caller, as in Django 6."""
    before = contextvars.copy_context()
    results, contexts = await _all(calls)
    for context in contexts:
        adopt_changes(context, before)
    return results


async def _all(calls: tuple[Awaitable[Any], ...]) -> tuple[list[Any], list[contextvars.Context]]:
    results: list[Any] = [None] * len(calls)
    contexts: list[contextvars.Context] = []

    async def one(number: int, call: Awaitable[Any]) -> None:
        results[number] = await call
        contexts.append(contextvars.copy_context())

    try:
        async with trio.open_nursery() as nursery:
            for number, call in enumerate(calls):
                nursery.start_soon(one, number, call)
    except BaseExceptionGroup as group:
        cancelled, failed = split_cancelled(group)
        raised = failed or cancelled
        if isinstance(raised, BaseExceptionGroup) and len(raised.exceptions) == 1:
            raise raised.exceptions[0] from None  # no further: a group inside it is a receiver's own
        raise (failed or group) from None
    return results, contexts
