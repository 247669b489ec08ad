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
    """Raise BridgeError unless asgiref and Django have supported versions, and all attributes that the bridge uses."""
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
    receivers = "_run_parallel" if hasattr(dispatcher, "_run_parallel") else "asyncio.gather"
    for owner, path, is_async in (
        (sync, "SyncToAsync.__call__", True),
        (sync, "AsyncToSync.__call__", False),
        (sync, "ThreadSensitiveContext.__aenter__", True),
        (sync, "ThreadSensitiveContext.__aexit__", True),
        (django_asyncio, "get_running_loop", False),
        (dispatcher, receivers, None),
        (QuerySet, "aiterator", False),
    ):
        function: Any = owner
        for name in path.split("."):
            parent, function = function, getattr(function, name, None)
            if function is None:
                yield f"there is no {parent.__name__}.{name}"
                break
        else:
            if is_async is not None and inspect.iscoroutinefunction(function) is not is_async:
                yield f"{function.__qualname__} must {'' if is_async else 'not '}be asynchronous"
    for cls, arguments, names in (
        ("SyncToAsync", (int,), ("func", "_executor", "_thread_sensitive", "thread_sensitive_context")),
        ("AsyncToSync", (_probe,), ("awaitable", "force_new_loop")),
        ("ThreadSensitiveContext", (), ("token",)),
    ):
        if hasattr(sync, cls):  # a missing class is reported above
            yield from _instance(getattr(sync, cls), arguments, names)


async def _probe() -> None:
    """The argument of an instance that is only inspected."""


def _instance(cls: Any, arguments: tuple[object, ...], names: tuple[str, ...]) -> Iterator[str]:
    try:
        instance = cls(*arguments)
    except TypeError as error:
        yield f"{cls.__name__}() fails: {error}"
        return
    for name in names:
        if not hasattr(instance, name):
            yield f"{cls.__name__} has no {name!r}"
