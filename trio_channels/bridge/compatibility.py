"""The check that the bridge supports the installed asgiref and Django."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import asgiref
import django
from asgiref import sync
from django.db.models import QuerySet
from django.dispatch import dispatcher
from django.utils import asyncio as django_asyncio

from ..exceptions import BridgeError

#: The first supported version, and the first unsupported one. A minor version newer than the tested ones is accepted if
#: it has every attribute that the bridge uses. A new major version is not accepted.
ASGIREF = ((3, 8, 1), (4,))
DJANGO = ((5, 2), (7,))


def check() -> None:
    """Check the versions of asgiref and Django, and the attributes that the bridge replaces and uses.

    Raises:
        BridgeError: a version is not supported, or an attribute is missing or different; the message names it.
    """
    problems = [*_versions(), *_attributes()]
    if problems:
        raise BridgeError(
            f"the asgiref bridge of trio-channels supports asgiref 3.8.1 to 3.x and Django 5.2 to 6.x; found asgiref "
            f"{asgiref.__version__} and Django {django.get_version()}: {'; '.join(problems)}. Install supported "
            f'versions, or switch the bridge off: TRIO_CHANNELS = {{"ASGIREF_BRIDGE": False}}'
        )


def _versions() -> Iterator[str]:
    found = {"asgiref": (_numbers(asgiref.__version__), ASGIREF), "Django": (django.VERSION[:3], DJANGO)}
    for name, (version, (least, below)) in found.items():
        if not least <= version < below:
            yield f"this version of {name} is not supported"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _attributes() -> Iterator[str]:
    """Describe each attribute that is missing or different."""
    for function, is_async in (
        (_attribute(sync, "SyncToAsync", "__call__"), True),
        (_attribute(sync, "AsyncToSync", "__call__"), False),
        (_attribute(sync, "ThreadSensitiveContext", "__aenter__"), True),
        (_attribute(sync, "ThreadSensitiveContext", "__aexit__"), True),
        (_attribute(django_asyncio, "get_running_loop"), False),
        (_receivers_in_parallel(), None),
        (_attribute(QuerySet, "aiterator"), False),
    ):
        if isinstance(function, _Missing):
            yield f"there is no {function.name}"
        elif is_async is not None and inspect.iscoroutinefunction(function) is not is_async:
            yield f"{function.__qualname__} must {'' if is_async else 'not '}be asynchronous"
    for cls, make, names in (
        ("SyncToAsync", int, ("func", "_executor", "_thread_sensitive", "thread_sensitive_context")),
        ("AsyncToSync", _probe, ("awaitable", "force_new_loop")),
        ("ThreadSensitiveContext", None, ("token",)),
    ):
        yield from _instance(cls, make, names)


class _Missing:
    """Stands for an attribute that is not there."""

    def __init__(self, name: str) -> None:
        self.name = name


def _attribute(owner: Any, *path: str) -> Any:
    for name in path:
        try:
            owner = getattr(owner, name)
        except AttributeError:
            return _Missing(f"{getattr(owner, '__name__', owner)}.{name}")
    return owner


def _receivers_in_parallel() -> Any:
    own = _attribute(dispatcher, "_run_parallel")
    return _attribute(dispatcher, "asyncio", "gather") if isinstance(own, _Missing) else own


async def _probe() -> None:
    """The argument of an instance that is only inspected."""


def _instance(cls: str, argument: Any, names: tuple[str, ...]) -> Iterator[str]:
    made = _attribute(sync, cls)
    if isinstance(made, _Missing):
        return  # _attributes() has reported it
    try:
        instance = made() if argument is None else made(argument)
    except TypeError as error:
        yield f"{cls}() fails: {error}"
        return
    for name in names:
        if not hasattr(instance, name):
            yield f"{cls} has no {name!r}"
