"""Consumer classes: which methods handle which messages, and the errors that are found before the first client.

The methods of a class are looked at once, when it is created. Everything else that answers to a name, such as an
attribute of the instance, is looked at when its message comes. The rules:

- The handler of type ``chat.message`` is the method ``chat_message``: a dot becomes an underscore.
- A handler is public and can be called with one argument, the message: a method, or whatever else the instance has
  under that name, but no class, property, class method or static method. In an async consumer its result must be
  awaitable; in a sync one it must not be async.
- The framework's own methods are not handlers, even where a subclass overrides them: a message ``{"type": "close"}``
  does not reach ``close()``. The exceptions are the methods marked with :func:`handles_client_event`.
- The marked methods, and all handlers of ASGI's own events, serve the server only: a sender to a channel cannot forge a
  ``websocket.receive``.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeVar

from .._asgi.protocol import CLIENT_EVENTS
from .._limits import COUNT, OVERFLOW, Rule
from ..exceptions import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "_trio_channels_client_event"

_NOT_HANDLERS = (property, staticmethod, classmethod)

#: Without `connect` everybody is accepted, and without `disconnect` nothing happens at the end: no error would tell.
_OFTEN_MISSPELT = ("connect", "disconnect")

_OVERFLOW_OR_NONE = Rule(f"None or {OVERFLOW.expected}", lambda value: value is None or OVERFLOW.holds(value))


def handles_client_event(function: F) -> F:
    """Mark a framework method as the handler of an event that only the server may deliver."""
    setattr(function, _MARK, True)
    return function


def handler_name(kind: object) -> str:
    """The name of the method that handles a message type; "" for a type that is not a str."""
    return _method_name(kind) if isinstance(kind, str) else ""


def get_handler_name(message: Mapping[str, Any]) -> str:
    """The name of the method that handles a message, as in Channels.

    Raises:
        ValueError: the message has no type that can name a method.
    """
    if "type" not in message:
        raise ValueError(f"expected a message with a type; got one with the keys {sorted(map(str, message))}")
    name = handler_name(message["type"])
    if not name or name.startswith("_"):
        raise ValueError(f"expected a type such as 'chat.message'; got {message['type']!r}")
    return name


@functools.lru_cache(maxsize=1_024)
def _method_name(kind: str) -> str:
    # Interned: the interpreter's method cache compares names by identity.
    return sys.intern(kind.replace(".", "_"))


class Handlers:
    """The handlers of one consumer class."""

    def __init__(self, cls: type, framework: tuple[type, ...], *, is_async: bool) -> None:
        self._cls = cls
        self._is_async = is_async
        own_names = {name for base in framework for name in vars(base)}
        marked = {name for base in framework for name, value in vars(base).items() if hasattr(value, _MARK)}
        #: The names of the framework, which no message reaches.
        self.reserved = frozenset(own_names - marked)
        #: The handlers of ASGI's events. A consumer may handle them in methods of its own, which are not marked.
        self.server_only = frozenset(marked | {handler_name(kind) for kind in CLIENT_EVENTS})
        #: The methods that are handlers. With :meth:`find` it is all of them.
        self.methods = frozenset(name for name in dir(cls) if self._allows(name) and self._is_handler(name))
        #: The methods that handle messages of the channel layer.
        self.for_layer = self.methods - self.server_only
        dispatching = next((base for base in cls.__mro__ if "dispatch" in vars(base)), None)
        #: Whether the class has a ``dispatch()`` of its own, which handles messages that have no handler.
        self.dispatches = dispatching is not None and dispatching not in framework

    def __repr__(self) -> str:
        return f"<Handlers of {self._cls.__name__}: {', '.join(sorted(self.methods))}>"

    def may_find(self, consumer: object, name: str) -> bool:
        """Whether :meth:`find` could find a handler; calls nothing of the class."""
        return self._allows(name) and (
            hasattr(type(consumer), "__getattr__") or inspect.getattr_static(consumer, name, None) is not None
        )

    def find(self, consumer: object, name: str) -> Callable[[Any], Any] | None:
        """The handler of that name, if it is not one of :attr:`methods`."""
        if not self._allows(name) or isinstance(inspect.getattr_static(consumer, name, None), _NOT_HANDLERS):
            return None
        handler: Callable[[Any], Any] | None = getattr(consumer, name, None)
        if not callable(handler) or isinstance(handler, type):
            return None
        # The signature of an object that wraps a function may be the function's.
        if inspect.isroutine(handler) and not _takes(handler, 1):
            return None
        return handler if self._is_async or not inspect.iscoroutinefunction(handler) else None

    def _allows(self, name: str) -> bool:
        return name != "" and not name.startswith("_") and name not in self.reserved

    def _is_handler(self, name: str) -> bool:
        value = inspect.getattr_static(self._cls, name)
        if isinstance(value, (*_NOT_HANDLERS, type, functools.partial)) or not callable(value):
            return False
        if not hasattr(value, "__get__"):  # a callable stored in the class that does not bind to instances
            return False
        if self._is_async:
            # A plain function may return an awaitable; if it does not, dispatch() raises an error. Only the instance
            # shows what another descriptor gives.
            allowed = inspect.isfunction(value) or inspect.iscoroutinefunction(inspect.unwrap(value))
        else:
            allowed = inspect.isfunction(value) and not inspect.iscoroutinefunction(value)
        return allowed and _takes(value, 2)


def _takes(function: Callable[..., object], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*(None,) * arguments)
    except (TypeError, ValueError):
        return False
    return True


def why_unhandled(cls: type, kind: object) -> str:
    """Why a message type has no handler in a class, for a log line or an error."""
    name = handler_name(kind)
    if not name or name.startswith("_"):
        return f"expected a type such as 'chat.message'; got {kind!r}"
    if hasattr(cls, name):
        return (
            f"{cls.__name__}.{name} is not a handler: a handler is a method that takes one argument, is not async in a "
            f"sync consumer, does not override a method of the framework, and does not handle a server's event"
        )
    return f"{cls.__name__} has no method {name if name.isidentifier() else repr(name)}(self, event)"


def not_awaitable(consumer: object, method: Callable[..., object], result: object) -> ConfigurationError:
    """The error of a method of an async consumer whose result cannot be awaited."""
    name = getattr(method, "__name__", repr(method))
    if name == "websocket_receive" and hasattr(method, _MARK):
        name = "receive"  # whose result it passes on
    got = "None" if result is None else f"a value of the type {type(result).__name__}"
    return ConfigurationError(
        f"{type(consumer).__name__}.{name}() must return an awaitable; it has returned {got}. Write "
        f"'async def {name}', or subclass the synchronous consumer"
    )


def not_synchronous(consumer: object, method: Callable[..., object]) -> ConfigurationError:
    """The error of a handler of a sync consumer that has returned a coroutine, which nothing would run."""
    name = getattr(method, "__name__", repr(method))
    return ConfigurationError(
        f"{type(consumer).__name__}.{name}() has returned a coroutine, which a synchronous consumer does not run: make "
        f"it a plain method, or subclass the asynchronous consumer"
    )


def check_groups(name: str, groups: object) -> None:
    """Raise ConfigurationError unless ``groups`` of a consumer are names: a str would be as many groups as letters."""
    # An iterator would have names for the first connection only.
    if groups is not None and (not isinstance(groups, Iterable) or isinstance(groups, str | bytes | Iterator)):
        example = repr([groups]) if isinstance(groups, str) else "['lobby']"
        raise ConfigurationError(f"{name}.groups must be a list of names, such as {example}; got {groups!r}")


def check_class(cls: Any, framework: tuple[type, ...], *, is_async: bool) -> None:
    """Raise ConfigurationError if an attribute of a consumer class is out of range, or a method would never run."""
    COUNT.require(f"{cls.__name__}.handler_concurrency", cls.handler_concurrency)
    _OVERFLOW_OR_NONE.require(f"{cls.__name__}.mailbox_overflow", cls.mailbox_overflow)
    if any(hasattr(base, "groups") for base in framework):
        groups = inspect.getattr_static(cls, "groups")
        check_groups(cls.__name__, None if hasattr(groups, "__get__") else groups)
    if is_async and (name := _plain_override(cls, framework)) is not None:
        raise ConfigurationError(
            f"{cls.__name__}.{name} must be async, as {cls.__name__} is, and is plain: write 'async def {name}', "
            f"without 'yield', or subclass the synchronous consumer"
        )
    # The coroutine of an async override would never run, and no error would say so.
    if not is_async and (name := _async_override(cls, framework)) is not None:
        raise ConfigurationError(
            f"{cls.__name__}.{name} is async, but {cls.__name__} is synchronous and would not await it: make it a "
            f"plain method, or subclass the asynchronous consumer"
        )


def misspelt(cls: type, framework: tuple[type, ...]) -> Iterator[tuple[str, str]]:
    """Methods that nothing calls, probably, and the framework's methods that were meant, which the class lacks."""
    overridable = {name for base in framework for name in vars(base) if name in _OFTEN_MISSPELT}
    own = {name for base in cls.__mro__ if base not in framework for name, it in vars(base).items() if callable(it)}
    for meant in sorted(overridable - own):
        for name in sorted(own):
            is_near = meant not in name and SequenceMatcher(None, name, meant).ratio() > 0.85
            if name == f"on_{meant}" or is_near:
                yield name, meant


def check_arguments(cls: type, framework: tuple[type, ...], given: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if a consumer class does not take the arguments of ``as_asgi()``, or ignores them."""
    # The __init__ of a framework's class accepts and ignores any arguments.
    if given and not any("__init__" in vars(base) for base in cls.__mro__ if base not in (*framework, object)):
        raise ConfigurationError(f"{cls.__name__} has no __init__ that takes arguments; got {', '.join(given)}")
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ConfigurationError(f"{cls.__name__} cannot be called with the arguments of as_asgi(): {error}") from None


def _plain_override(cls: type, framework: tuple[type, ...]) -> str | None:
    """A plain method in the place of a handler of the server's events, which would not be called."""
    for name in {name for base in framework for name, value in vars(base).items() if hasattr(value, _MARK)}:
        value = inspect.getattr_static(cls, name)
        is_plain = inspect.isfunction(value) and not inspect.iscoroutinefunction(inspect.unwrap(value))
        if is_plain and not hasattr(value, _MARK):
            return name
    return None


def _async_override(cls: type, framework: tuple[type, ...]) -> str | None:
    for name in dir(cls):
        if not name.startswith("_") and any(name in vars(base) for base in framework):
            value = inspect.getattr_static(cls, name)
            if inspect.iscoroutinefunction(getattr(value, "__func__", value)):
                return name
    return None
