"""Channels' communicators for asyncio tests: the application runs on Trio, in the Trio run around the test's loop."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import trio

from .. import testing
from .crossing import call_trio, on_asyncio

C = TypeVar("C", bound=testing.ApplicationCommunicator)


def _for_asyncio(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that asyncio tests can call: with the exception of a timeout that they expect."""

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if not on_asyncio():
            return await method(*args, **kwargs)
        try:
            return await call_trio(method, *args, **kwargs)
        except (trio.TooSlowError, EOFError) as error:  # from an application that has ended, Channels waits in vain
            raise TimeoutError(str(error)) from None

    return call


def _communicator(cls: type[C]) -> type[C]:
    methods = {
        name: _for_asyncio(value)
        for base in reversed(cls.__mro__)
        for name, value in vars(base).items()
        if inspect.iscoroutinefunction(value) and not name.startswith("_")
    }
    return type(cls.__name__, (cls,), {**methods, "__module__": __name__, "__doc__": cls.__doc__})


ApplicationCommunicator = _communicator(testing.ApplicationCommunicator)
HttpCommunicator = _communicator(testing.HttpCommunicator)
WebsocketCommunicator = _communicator(testing.WebsocketCommunicator)
