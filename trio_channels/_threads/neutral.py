"""Decides which synchronous code leaves nothing on its thread: Django's, and that of packages that a setting names.

The rules:

- A middleware is neutral if its class is Django's own, or of a package in ``THREAD_NEUTRAL``.
- A call that an asynchronous method of Django's makes is neutral if the method is the ORM's, a cache's or a session's,
  and neither that method nor the model's methods that it calls are overridden.
- Neither holds if Django's code calls other code: a database engine or router, a session engine, a message storage, an
  authentication backend, a field of a model, a receiver of the signals that the call sends. Some of Django's middleware
  always does: it renders templates, logs in, or sends mail.
- Everything else may leave something: a view, ``sync_to_async`` of an application's function, raw SQL.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import attrgetter
from types import FunctionType
from typing import Any
from weakref import ReferenceType

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.cache.backends.base import BaseCache
from django.core.signals import request_finished, request_started, setting_changed
from django.db.backends.signals import connection_created
from django.db.models import Model, QuerySet, query, signals
from django.dispatch import Signal

from .. import _conf

#: The methods of a query set, and of a model, that only read.
_READS = frozenset(
    (
        *("aggregate", "contains", "count", "earliest", "exists", "explain", "first", "get", "in_bulk", "last"),
        *("latest", "refresh_from_db", "_fetch_all"),
    )
)
_READ_SIGNALS = (connection_created, signals.pre_init, signals.post_init)
_WRITE_SIGNALS = (
    *_READ_SIGNALS,
    *(signals.pre_save, signals.post_save, signals.pre_delete, signals.post_delete, signals.m2m_changed),
)
_REQUEST_SIGNALS = (request_started, request_finished, connection_created)

#: The methods of a query set that call what is among their arguments.
_CALLING = frozenset(("get_or_create", "update_or_create"))

#: Django's own middleware that calls the project's code: templates, receivers of a login, a way to send mail.
_CALLING_MIDDLEWARE = frozenset(
    (
        *("BrokenLinkEmailsMiddleware", "FlatpageFallbackMiddleware"),
        *("PersistentRemoteUserMiddleware", "RemoteUserMiddleware"),
    )
)


def is_neutral(function: Callable[..., Any], arguments: Mapping[str, Any] = {}) -> bool:
    """Whether a function that :func:`asgiref.sync.sync_to_async` is to call leaves nothing on its thread.

    Args:
        function: what is to be called.
        arguments: its keyword arguments.
    """
    if function is query.prefetch_related_objects:
        return _all_models_load_neutrally() and _reads_leave_nothing()
    owner, method = getattr(function, "__self__", None), getattr(function, "__func__", None)
    if method is None:
        return False
    if isinstance(owner, QuerySet | Model):
        reads = method.__name__ in _READS
        model: type = owner.model if isinstance(owner, QuerySet) else type(owner)
        if not _is_djangos(type(owner), method) or not _model_is_neutral(model, reads):
            return False
        if method.__name__ in _CALLING and _has_callables(arguments):
            return False
        if isinstance(owner, QuerySet) and _loads_others(owner) and not _all_models_load_neutrally():
            return False
        return _reads_leave_nothing() if reads else _writes_leave_nothing()
    if not isinstance(owner, BaseCache | SessionBase) or not _trusted(type(owner).__module__):
        return False
    return _databases_are_djangos() if isinstance(owner, BaseCache) else _writes_leave_nothing()


def middleware_is_neutral(middleware: object) -> bool:
    """Whether the methods of a middleware leave nothing on their thread."""
    if isinstance(middleware, FunctionType):
        return _trusted(middleware.__module__)
    kind = middleware if isinstance(middleware, type) else type(middleware)
    return _trusted(kind.__module__) and kind.__qualname__ not in _CALLING_MIDDLEWARE


def requests_are_neutral() -> bool:
    """Whether the code that Django itself runs around a view leaves nothing: signals, sessions, messages, users."""
    return _own_receivers(_REQUEST_SIGNALS) and _storages_are_djangos() and _databases_are_djangos()


def _reads_leave_nothing() -> bool:
    return _databases_are_djangos() and _own_receivers(_READ_SIGNALS)


def _writes_leave_nothing() -> bool:
    return _databases_are_djangos() and _own_receivers(_WRITE_SIGNALS)


@lru_cache(maxsize=1_024)
def _is_djangos(kind: type, method: Callable[..., Any]) -> bool:
    """Whether a query set's or model's method is Django's, as is every method that it may call."""
    if not _trusted(method.__module__):
        return False
    if not issubclass(kind, QuerySet):
        return True
    return not _overrides(kind, frozenset(vars(QuerySet)) - _HARMLESS)


@lru_cache(maxsize=1_024)
def _overrides(kind: type, names: frozenset[str]) -> bool:
    """Whether the project has written one of these methods of a class."""
    return any(names & vars(base).keys() for base in kind.__mro__[:-1] if not _trusted(base.__module__))


@lru_cache(maxsize=1_024)
def _model_is_neutral(model: type[Model], only_loading: bool) -> bool:
    """Whether all that is called to load, or also to store, an object of a model is Django's."""
    fields = model._meta.concrete_fields
    if _overrides(model, _LOADING if only_loading else _LOADING | _STORING):
        return False
    if not all(_trusted(type(field).__module__) for field in fields):
        return False
    return only_loading or not any(_is_projects(field.default) for field in fields)


def _all_models_load_neutrally() -> bool:
    return all(_model_is_neutral(model, True) for model in apps.get_models())


def _loads_others(rows: QuerySet[Any]) -> bool:
    """Whether a query set loads objects of other models too."""
    return bool(rows.query.select_related or rows._prefetch_related_lookups)  # type: ignore[attr-defined]


def _has_callables(arguments: Mapping[str, Any]) -> bool:
    more = (arguments.get(name) or {} for name in ("defaults", "create_defaults"))
    return any(_is_projects(value) for values in (arguments, *more) for value in values.values())


def _is_projects(function: object) -> bool:
    """Whether it can be called, and is neither Django's nor Python's."""
    if not callable(function):
        return False
    module = getattr(function, "__module__", None) or ""
    return not _trusted(module) and module.partition(".")[0] not in sys.stdlib_module_names


#: The methods of a model that a query calls for what it finds, and for what it changes.
_LOADING = frozenset(("__new__", "__init__", "__setattr__", "from_db", "refresh_from_db", "get_deferred_fields"))
_STORING = frozenset(("save", "save_base", "delete", "_do_insert", "_do_update", "_save_parents", "_save_table"))


class _Empty: ...


#: Attributes that every class has of its own; which ones depends on the version of Python.
_HARMLESS = frozenset({*vars(_Empty), "__annotations__", "__orig_bases__", "__qualname__"})


@lru_cache(maxsize=1_024)
def _trusted(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _trusted_modules())


def _trusted_modules() -> Iterable[str]:
    return ("django", "trio_channels", *_conf.get("THREAD_NEUTRAL"))


@lru_cache(maxsize=1)
def _databases_are_djangos() -> bool:
    engines = [database.get("ENGINE") or "django" for database in settings.DATABASES.values()]
    routers = [router if isinstance(router, str) else type(router).__module__ for router in settings.DATABASE_ROUTERS]
    return all(map(_trusted, (*engines, *routers)))


@lru_cache(maxsize=1)
def _storages_are_djangos() -> bool:
    caches = [cache["BACKEND"] for cache in settings.CACHES.values()]
    sessions = (settings.SESSION_ENGINE, settings.SESSION_SERIALIZER)
    named = (*sessions, settings.MESSAGE_STORAGE, *caches, *settings.AUTHENTICATION_BACKENDS)
    return all(map(_trusted, named))


_RECEIVERS = attrgetter("receivers")

#: For some signals, their receivers and whether all of these were Django's. Each request asks.
_asked: dict[tuple[Signal, ...], tuple[list[list[Any]], bool]] = {}


def _own_receivers(sent: tuple[Signal, ...]) -> bool:
    known = _asked.get(sent)
    if known is None or known[0] != list(map(_RECEIVERS, sent)):
        known = [list(signal.receivers) for signal in sent], _are_djangos(sent)
        _asked[sent] = known
    return known[1]


def _are_djangos(sent: Iterable[Signal]) -> bool:
    for signal in sent:
        for entry in list(signal.receivers):
            receiver = entry[1]
            function = receiver() if isinstance(receiver, ReferenceType) else receiver
            if function is not None and not _trusted(getattr(function, "__module__", "")):
                return False
    return True


def _forget(**_kwargs: object) -> None:
    for cached in (
        *(_trusted, _is_djangos, _overrides),
        *(_model_is_neutral, _databases_are_djangos, _storages_are_djangos),
    ):
        cached.cache_clear()
    _asked.clear()


setting_changed.connect(_forget)
