"""Whether this asgiref and this Django are what the bridge was written for."""

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

#: From which version on, and before which. A minor version that is newer than those that have been tested is taken if
#: it has everything that is replaced; a new major version is not.
ASGIREF = ((3, 8, 1), (4,))
DJANGO = ((5, 2), (7,))


def check() -> None:
    """See whether everything that the bridge replaces and uses is there, as it must be.

    Raises:
        BridgeError: something is not; the message names it, and the versions.
    """
    unfit = [*_versions(), *_attributes()]
    if unfit:
        raise BridgeError(
            f"the asgiref bridge of trio-channels fits asgiref 3.8.1 to 3.x and Django 5.2 to 6.x; found asgiref "
            f"{asgiref.__version__} and Django {django.get_version()}: {'; '.join(unfit)}. Install versions that fit, "
            f'or do without it: TRIO_CHANNELS = {{"ASGIREF_BRIDGE": False}}'
        )


def _versions() -> Iterator[str]:
    found = {"asgiref": (_numbers(asgiref.__version__), ASGIREF), "Django": (django.VERSION[:3], DJANGO)}
    for name, (version, (least, below)) in found.items():
        if not least <= version < below:
            yield f"this {name} is not known"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _attributes() -> Iterator[str]:
    """What is missing or different, in words."""
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
            yield f"{function.__qualname__} is {'not ' if is_async else ''}asynchronous"
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
    """For an instance that is only looked at."""


def _instance(cls: str, argument: Any, names: tuple[str, ...]) -> Iterator[str]:
    made = _attribute(sync, cls)
    if isinstance(made, _Missing):
        return  # said already
    try:
        instance = made() if argument is None else made(argument)
    except TypeError as error:
        yield f"{cls} cannot be made: {error}"
        return
    for name in names:
        if not hasattr(instance, name):
            yield f"{cls} has no {name!r}"
