"""Packages for Channels, unchanged: ``channels`` and ``channels_redis`` import as this package.

:func:`install`, or the setting ``CHANNELS_ALIAS``, makes it so; without one of them nothing changes. The rules:

- ``import channels...`` gives modules with Channels' names, whose objects are those of ``trio_channels``. A name that
  has no counterpart raises an error that says what replaces it.
- A consumer whose class comes from such a module runs on asyncio, in a loop inside of Trio: its package was written for
  that. Its tasks end with its connection. A consumer whose class comes from ``trio_channels`` stays on Trio.
- The layers, the database functions, the log-in functions and the communicators of those modules can be called from
  both.

It needs the extra ``compat``, which is trio-asyncio.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from .._asgi.protocol import ASGIApplication, Receive, Scope, Send
from .._connection.census import AsyncioStatistics, asyncio_statistics
from ..exceptions import ConfigurationError
from . import alias

__all__ = [
    "AsyncioStatistics",
    "asyncio_application",
    "asyncio_statistics",
    "call_asyncio",
    "install",
    "installed",
]

T = TypeVar("T")
P = ParamSpec("P")

_PACKAGES = ("channels", "channels_redis")


def install(*, shadow: bool = False) -> None:
    """Make ``channels`` and ``channels_redis`` import as this package; idempotent.

    Call it before anything imports them: at the top of the settings, or by the setting ``CHANNELS_ALIAS``.

    Args:
        shadow: whether to go on if Channels itself is installed. Its modules are not imported then.

    Raises:
        ConfigurationError: the extra is not installed; or Channels is installed, or imported already.
    """
    if installed():
        return
    for package in _PACKAGES:
        if package in sys.modules:
            raise ConfigurationError(
                f"expected to give the name {package!r} to trio_channels.compat; it is imported already, from "
                f"{getattr(sys.modules[package], '__file__', None)}. Call trio_channels.compat.install() earlier: at "
                f"the top of the settings"
            )
        found = PathFinder.find_spec(package)
        if found is not None and not shadow:
            raise ConfigurationError(
                f"expected to give the name {package!r} to trio_channels.compat; it is installed, in {found.origin}. "
                f"Uninstall it, or hide it: set TRIO_CHANNELS['CHANNELS_ALIAS'] to 'shadow'"
            )
    _crossing()
    sys.meta_path.insert(0, alias.FINDER)


def installed() -> bool:
    """Whether ``channels`` imports as this package."""
    return alias.FINDER in sys.meta_path


async def call_asyncio(function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that is written for asyncio, from a Trio task.

    It runs in the asyncio loop of this Trio run, which all calls and connections share: sessions and pools of a library
    can be kept. The loop is opened by the first call, and ends with the Trio run. :func:`install` is not needed.

    Raises:
        ConfigurationError: the extra ``compat`` is not installed.
        RuntimeError: asyncio code has cancelled the call; or the loop has ended.

    Cancellation: cancels the asyncio function, and waits for its end.
    """
    crossing = _crossing()
    await crossing.enter_loop()
    result: T = await crossing.call_asyncio(function, *args, **kwargs)
    return result


def asyncio_application(application: ASGIApplication) -> ASGIApplication:
    """Make an ASGI application for Trio of one that is written for asyncio; its tasks end with it.

    Raises:
        ConfigurationError: the extra ``compat`` is not installed.
    """
    _crossing()
    from .consumers import run_on_asyncio

    async def run(scope: Scope, receive: Receive, send: Send) -> Any:
        return await run_on_asyncio(application, scope, receive, send)

    return run


def _crossing() -> ModuleType:
    try:
        from . import crossing
    except ImportError as error:
        raise ConfigurationError(
            f"trio_channels.compat needs trio-asyncio: pip install 'trio-channels[compat]' ({error})"
        ) from error
    from . import threads

    threads.patch()
    return crossing
