"""Shortcuts past a coroutine that only awaits another one: each open connection would keep it, 200 bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .protocol import Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]


def note_shortcut(application: Any, inner: Application) -> None:
    """Note the function that an application, an async function, does nothing but call and await."""
    application._trio_channels_shortcut = application, inner


def shortcut(application: Application) -> Application:
    """The function to call and await in place of an application: itself, unless it has a shortcut."""
    # functools.wraps copies attributes, so a decorated application seems to have the shortcut, too.
    noted, inner = getattr(application, "_trio_channels_shortcut", (None, application))
    return inner if noted is application else application
