"""What is wrong with a consumer class, said when the class is made or routed to, and not to its first client."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from .._limits import COUNT, OVERFLOW, Rule
from ..exceptions import ConfigurationError

_OVERFLOW_OR_NONE = Rule(f"None or {OVERFLOW.expected}", lambda value: value is None or OVERFLOW.holds(value))


def check_class(
    cls: type,
    framework: tuple[type, ...],
    *,
    is_async: bool,
    handler_concurrency: object,
    mailbox_overflow: object,
) -> None:
    """Check a new consumer class.

    Args:
        cls: the class.
        framework: the framework's classes among its bases.
        is_async: whether its methods are awaited.
        handler_concurrency, mailbox_overflow: its attributes of these names.

    Raises:
        ConfigurationError: an attribute is out of range, or a method would never run.
    """
    COUNT.require(f"{cls.__name__}.handler_concurrency", handler_concurrency)
    _OVERFLOW_OR_NONE.require(f"{cls.__name__}.mailbox_overflow", mailbox_overflow)
    # In place of a plain method its coroutine would never run, and nobody would say so.
    if not is_async and (name := _async_replacement(cls, framework)) is not None:
        raise ConfigurationError(
            f"{cls.__name__}.{name} is async, but {cls.__name__} is synchronous and would not await it: make it a "
            f"plain method, or subclass the asynchronous consumer"
        )


def check_arguments(cls: type, framework: tuple[type, ...], given: Mapping[str, Any]) -> None:
    """Check that a class can be called with these keyword arguments.

    Args:
        cls: a consumer class.
        framework: as of :func:`check_class`. Its ``__init__`` takes what a subclass passes on, and has no use for it.
        given: what it is to be called with.

    Raises:
        ConfigurationError: it cannot, or they would be for nothing.
    """
    if given and not any("__init__" in vars(base) for base in cls.__mro__ if base not in (*framework, object)):
        raise ConfigurationError(f"{cls.__name__} has no __init__ that takes arguments; got {', '.join(given)}")
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise ConfigurationError(f"{cls.__name__} cannot be called with what as_asgi() was given: {error}") from None


def _async_replacement(cls: type, framework: tuple[type, ...]) -> str | None:
    """The name of a framework's method that a class replaces by an async one, if there is one."""
    for name in dir(cls):
        if not name.startswith("_") and any(name in vars(base) for base in framework):
            value = inspect.getattr_static(cls, name)
            if inspect.iscoroutinefunction(getattr(value, "__func__", value)):
                return name
    return None
