"""System checks: settings that will hurt, named by ``manage.py check`` before they do.

Errors are what cannot work; warnings what works, but probably not as meant. Those about a site that others use run with
``manage.py check --deploy`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from . import _conf
from .exceptions import ConfigurationError, InvalidChannelLayerError
from .layers import InMemoryChannelLayer, channel_layers
from .layers.base import ChannelLayer

__all__ = ["register"]

TAG = "trio_channels"

#: Apps whose ``runserver`` or ``runworker`` ours must go before.
STATICFILES = "django.contrib.staticfiles"
ASYNCIO_APPS = ("channels", "daphne")


# -- what cannot work, or not as meant --------------------------------------------------------------------------------


def asgi_application() -> Iterator[CheckMessage]:
    """W001, E002: what ``ASGI_APPLICATION`` is."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path is None:
        yield checks.Warning(
            "ASGI_APPLICATION is not set.",
            hint="Set it to the path of your application, such as 'mysite.asgi.application': runserver serves it.",
            id="trio_channels.W001",
        )
    elif not isinstance(path, str) or "." not in path:
        yield checks.Error(
            f"ASGI_APPLICATION must be a path such as 'mysite.asgi.application'; it is {path!r}.",
            id="trio_channels.E002",
        )


def trio_channels() -> Iterator[CheckMessage]:
    """E003: an unknown key or an impossible value in ``TRIO_CHANNELS``."""
    try:
        _conf.limits()
        _conf.get("WORKER_THREADS")
    except ConfigurationError as error:
        yield checks.Error(str(error), hint="See the settings page of the documentation.", id="trio_channels.E003")


def installed_apps() -> Iterator[CheckMessage]:
    """W004, W005: apps whose commands get in the way of ours."""
    apps = [entry.removesuffix(".apps.TrioChannelsConfig") for entry in settings.INSTALLED_APPS]
    ours = apps.index("trio_channels") if "trio_channels" in apps else len(apps)
    if STATICFILES in apps[:ours]:
        yield checks.Warning(
            f"{STATICFILES} stands before trio_channels in INSTALLED_APPS, so that runserver is not on Trio.",
            hint="Put 'trio_channels' before it.",
            id="trio_channels.W004",
        )
    for app in ASYNCIO_APPS:
        if app in apps:
            yield checks.Warning(
                f"{app} is in INSTALLED_APPS; it runs on asyncio, and brings commands of the same names.",
                hint=f"Remove {app!r} when you have migrated to trio_channels.",
                id="trio_channels.W005",
            )


def layers() -> Iterator[CheckMessage]:
    """E006, E007, E008: entries of ``CHANNEL_LAYERS`` from which no layer can be made."""
    try:
        configs = channel_layers.configs
    except InvalidChannelLayerError as error:
        yield checks.Error(str(error), id="trio_channels.E006")
        return
    for alias, entry in configs.items():
        try:
            channel_layers.make_backend(alias)
        except InvalidChannelLayerError as error:
            yield _broken_layer(entry, error)
        except ConfigurationError:  # which E003 says
            return


def _broken_layer(entry: dict[str, Any], error: InvalidChannelLayerError) -> CheckMessage:
    if "ROUTING" in entry:
        return checks.Error(
            str(error),
            hint="Remove the key, and route with a ProtocolTypeRouter.",
            id="trio_channels.E007",
        )
    if _is_foreign(entry.get("BACKEND")):
        return checks.Error(
            str(error),
            hint="Use 'trio_channels.layers.redis.RedisStreamsChannelLayer', which takes the same CONFIG as "
            "channels_redis, or 'trio_channels.layers.InMemoryChannelLayer'.",
            id="trio_channels.E008",
        )
    return checks.Error(str(error), id="trio_channels.E006")


def _is_foreign(path: object) -> bool:
    try:
        backend = import_string(str(path))
    except ImportError:
        return str(path).startswith(("channels.", "channels_redis."))
    return not (isinstance(backend, type) and issubclass(backend, ChannelLayer))


# -- of a site that others use ----------------------------------------------------------------------------------------


def deployed_layers() -> Iterator[CheckMessage]:
    """W009: the in-memory layer, where there may be several processes."""
    if settings.DEBUG:
        return
    for alias, entry in _configs().items():
        if entry.get("BACKEND") in _IN_MEMORY:
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] is the in-memory layer: it reaches its own process only.",
                hint="With several workers, or for sending from commands and task queues, use "
                "'trio_channels.layers.redis.RedisStreamsChannelLayer'; silence this if the site is one process.",
                id="trio_channels.W009",
            )


_IN_MEMORY = ("trio_channels.layers.InMemoryChannelLayer", f"{InMemoryChannelLayer.__module__}.InMemoryChannelLayer")


def persistent_connections() -> Iterator[CheckMessage]:
    """W010: a database connection for every call, where there are many threads to keep some."""
    try:
        workers = _conf.get("WORKER_THREADS")
    except ConfigurationError:  # which E003 says
        return
    for alias, database in settings.DATABASES.items():
        engine, pooled = str(database.get("ENGINE", "")), database.get("OPTIONS", {}).get("pool")
        served = engine and not engine.endswith(("sqlite3", "spatialite", "dummy"))
        if served and workers > 1 and database.get("CONN_MAX_AGE", 0) == 0 and not pooled:
            yield checks.Warning(
                f"DATABASES[{alias!r}] has a CONN_MAX_AGE of 0: each call to a worker thread opens a connection.",
                hint=f"The {workers} worker threads live as long as the process, and so may their connections: set "
                "CONN_MAX_AGE to None, with CONN_HEALTH_CHECKS, or use the database's pool.",
                id="trio_channels.W010",
            )


def hardening() -> Iterator[CheckMessage]:
    """W011: hypercorn as it is."""
    try:
        hardened = _conf.get("HARDEN_HYPERCORN")
    except ConfigurationError:
        return
    if not hardened:
        yield checks.Warning(
            "TRIO_CHANNELS['HARDEN_HYPERCORN'] is off: a malformed request can end a worker of hypercorn.",
            hint="Remove the key, unless a proxy takes only well-formed requests through.",
            id="trio_channels.W011",
        )


def _configs() -> dict[str, dict[str, Any]]:
    try:
        return channel_layers.configs
    except InvalidChannelLayerError:  # which E006 says
        return {}


def _listed(check: Callable[[], Iterator[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    def run(**_kwargs: Any) -> list[CheckMessage]:
        return list(check())

    return run


_ALWAYS = tuple(map(_listed, (asgi_application, trio_channels, installed_apps, layers)))
_DEPLOYED = tuple(map(_listed, (deployed_layers, persistent_connections, hardening)))


def register() -> None:
    """Have Django run the checks; called when the app is ready. Once, however often it is called."""
    for check in _ALWAYS:
        checks.register(check, TAG)
    for check in _DEPLOYED:
        checks.register(check, TAG, deploy=True)
