"""Which methods of a consumer class handle which messages; worked out once, when the class is created.

The rules:

- The handler of type ``chat.message`` is the method ``chat_message``: a dot becomes an underscore.
- A handler is a public method that takes one argument; a class, ``partial`` or other callable that is kept in the
  consumer's class is no method. Of an async consumer it is async; a plain function is not one.
- The framework's own methods are not handlers, however a subclass overrides them: a message ``{"type": "close"}`` does
  not reach ``close()``. The exceptions are the methods that the framework marks with :func:`handles_client_event`.
- Those, in turn, and whatever else handles an event of ASGI, are for the server only: nobody who can send to a channel
  can forge a ``websocket.receive``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from .._asgi.protocol import CLIENT_EVENTS

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_trio_channels_client_event"


def handles_client_event(function: F) -> F:
    """Mark a framework method as the handler of an event that only the server may deliver."""
    setattr(function, _MARK, True)
    return function


def handler_name(kind: object) -> str:
    """The name of the method that handles a message type; no method's name for what is not a str."""
    return _method_name(kind) if isinstance(kind, str) else ""


@functools.lru_cache(maxsize=1_024)
def _method_name(kind: str) -> str:
    # Always the same object, so that the interpreter's cache of methods knows it.
    return sys.intern(kind.replace(".", "_"))


def find_handlers(
    cls: type, framework: tuple[type, ...], *, must_be_async: bool
) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the handlers of a consumer class: (of the server's events, of the channel layer's messages).

    Args:
        cls: the consumer class.
        framework: the framework's classes among its bases, whose other public names are reserved.
        must_be_async: whether a plain function cannot be a handler.
    """
    own_names = {name for base in framework for name in vars(base)}
    marked = {name for base in framework for name, value in vars(base).items() if hasattr(value, _MARK)}
    candidates = {
        name
        for name in dir(cls)
        if not name.startswith("_")
        and (name in marked or name not in own_names)
        and _is_handler(cls, name, must_be_async)
    }
    # A consumer may handle ASGI's events itself, without the framework's methods, and these are not marked.
    servers = marked | {handler_name(kind) for kind in CLIENT_EVENTS}
    return frozenset(candidates), frozenset(candidates - servers)


def _is_handler(cls: type, name: str, must_be_async: bool) -> bool:
    value = inspect.getattr_static(cls, name)
    if isinstance(value, staticmethod | classmethod | property | type | functools.partial) or not callable(value):
        return False
    if not hasattr(value, "__get__"):  # a callable that is stored in the class, but is no method of it
        return False
    is_async = inspect.iscoroutinefunction(value) or (
        must_be_async and inspect.iscoroutinefunction(inspect.unwrap(value))  # a decorator's plain function around one
    )
    # What the framework marks may be a plain function that returns what is to be awaited.
    if inspect.isfunction(value) and is_async is not must_be_async and (is_async or not hasattr(value, _MARK)):
        return False
    try:
        inspect.signature(value).bind(None, None)
    except (TypeError, ValueError):
        return False
    return True


def why_unhandled(cls: type, kind: object) -> str:
    """For a log line or an error: what the class lacks, or has and should have otherwise."""
    name = handler_name(kind)
    if not name or name.startswith("_"):
        return f"expected a type such as 'chat.message'; got {kind!r}"
    if hasattr(cls, name):
        return (
            f"{cls.__name__}.{name} is not a handler: a handler takes one argument, is async in an async consumer and "
            f"plain in a sync one, is not a method of the framework, and is not for an event of the server"
        )
    return f"{cls.__name__} has no method {name if name.isidentifier() else repr(name)}(self, event)"
