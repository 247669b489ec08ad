"""Shortcuts past a coroutine that only awaits another one: each open connection would keep it, 200 to 300 bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from .protocol import Receive, Scope, Send

Application = Callable[[Scope, Receive, Send], Awaitable[Any]]

_ATTRIBUTE = "_trio_channels_shortcut"


class _Noted(NamedTuple):
    noted: object
    inner: Callable[..., Awaitable[Any]]


def note_shortcut(application: Any, inner: Callable[..., Awaitable[Any]]) -> None:
    """Note the function that an async function does nothing but call and await.

    The async function is an application, or the ``__call__`` of a class of applications; then `inner` is a method.
    """
    setattr(application, _ATTRIBUTE, _Noted(application, inner))


def shortcut(application: Application) -> Application:
    """The function to call and await in place of an application: itself, unless it has a shortcut."""
    # functools.wraps copies attributes, so a decorated application seems to have the shortcut, too.
    found = getattr(application, _ATTRIBUTE, None)
    if isinstance(found, _Noted) and found.noted is application:
        return found.inner
    method = type(application).__call__  # a subclass may have one of its own, which does more
    found = getattr(method, _ATTRIBUTE, None)
    if isinstance(found, _Noted) and found.noted is method:
        return partial(found.inner, application)
    return application
