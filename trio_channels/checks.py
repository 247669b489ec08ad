"""System checks of ``manage.py check``: settings that cause trouble later.

An error is a setting that cannot work, a warning one that probably does not work as intended. The checks of a deployed
site run with ``manage.py check --deploy`` only.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
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

#: Apps with a ``runserver`` or ``runworker`` of their own.
STATICFILES = "django.contrib.staticfiles"
ASYNCIO_APPS = ("channels", "daphne")


def asgi_application() -> Iterator[CheckMessage]:
    """W001, E002: ``ASGI_APPLICATION`` is missing, or is not a path."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if path is None:
        yield checks.Warning(
            "ASGI_APPLICATION is not set.",
            hint="Set it to the path of the application that runserver serves, such as 'mysite.asgi.application'.",
            id="trio_channels.W001",
        )
    elif not isinstance(path, str) or "." not in path:
        yield checks.Error(
            f"ASGI_APPLICATION must be a path such as 'mysite.asgi.application'; got {path!r}.",
            id="trio_channels.E002",
        )


#: Modules whose applications do not run on Trio, those that an asgi.py imports, and the module with ours.
_FOREIGN_IMPORTS = {
    "django.core.asgi": ({"get_asgi_application"}, "trio_channels.asgi"),
    "channels.routing": ({"ProtocolTypeRouter"}, "trio_channels.routing"),
    "channels.security.websocket": (
        {"AllowedHostsOriginValidator", "OriginValidator"},
        "trio_channels.security.websocket",
    ),
}


def asgi_module() -> Iterator[CheckMessage]:
    """E012: the module of ``ASGI_APPLICATION`` imports an application that needs asyncio.

    Only imports that are always run count, and of one name the last one.
    """
    module = str(getattr(settings, "ASGI_APPLICATION", None) or "").rpartition(".")[0]
    for line, foreign in sorted(_imports(_parsed(module)).values()):
        if foreign in _FOREIGN_IMPORTS:
            yield checks.Error(
                f"{module}, line {line}, imports {foreign}, which needs asyncio.",
                hint=f"Import the same name from {_FOREIGN_IMPORTS[foreign][1]}.",
                id="trio_channels.E012",
            )


#: Modules that need an extra: the package, and the extra.
_EXTRAS = {
    "trio_channels.metrics": ("prometheus_client", "metrics"),
    "trio_channels.tracing": ("opentelemetry", "otel"),
}


def extras() -> Iterator[CheckMessage]:
    """E013: the module of ``ASGI_APPLICATION`` imports a module whose extra is not installed."""
    module = str(getattr(settings, "ASGI_APPLICATION", None) or "").rpartition(".")[0]
    for node in _parsed(module).body:
        if isinstance(node, ast.ImportFrom):
            names = {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        else:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        for name in sorted(names & _EXTRAS.keys()):
            package, extra = _EXTRAS[name]
            if importlib.util.find_spec(package) is None:
                yield checks.Error(
                    f"{module}, line {node.lineno}, imports {name}, which needs the package {package}.",
                    hint=f"Install it: pip install 'trio-channels[{extra}]'.",
                    id="trio_channels.E013",
                )


def _imports(tree: ast.Module) -> dict[str, tuple[int, str]]:
    """Name -> the line of its import, and the module, "" if it is not a foreign application."""
    found: dict[str, tuple[int, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            foreign, _ = _FOREIGN_IMPORTS.get(node.module or "", (set[str](), ""))
            for alias in node.names:
                known = str(node.module) if alias.name in foreign and not node.level else ""
                found[alias.asname or alias.name] = (node.lineno, known)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name] = (node.lineno, alias.name)
    return found


def _parsed(module: str) -> ast.Module:
    """The source of a module, parsed and not run; empty if there is none."""
    try:
        spec: Any = importlib.util.find_spec(module)
        return ast.parse(str(spec.loader.get_source(module)))
    except Exception:  # the module, or a package that it is in, may do anything; its import will tell
        return ast.parse("")


def trio_channels() -> Iterator[CheckMessage]:
    """E003: an unknown key or an impossible value in ``TRIO_CHANNELS``."""
    try:
        _conf.limits()
        _conf.get("WORKER_THREADS")
    except ConfigurationError as error:
        yield checks.Error(str(error), hint="See the settings page of the documentation.", id="trio_channels.E003")


def installed_apps() -> Iterator[CheckMessage]:
    """W004, W005: apps whose commands replace those of trio-channels."""
    apps = [entry.removesuffix(".apps.TrioChannelsConfig") for entry in settings.INSTALLED_APPS]
    ours = apps.index("trio_channels") if "trio_channels" in apps else len(apps)
    if STATICFILES in apps[:ours]:
        yield checks.Warning(
            f"{STATICFILES} stands before trio_channels in INSTALLED_APPS, so that runserver does not run on Trio.",
            hint="Put 'trio_channels' before it.",
            id="trio_channels.W004",
        )
    for app in ASYNCIO_APPS:
        if app in apps:
            yield checks.Warning(
                f"{app} is in INSTALLED_APPS; it runs on asyncio, and has commands of the same names.",
                hint=f"Remove {app!r} after migrating to trio_channels.",
                id="trio_channels.W005",
            )


def layers() -> Iterator[CheckMessage]:
    """E006, E007, E008: an entry of ``CHANNEL_LAYERS`` from which no layer can be made."""
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


def _broken_layer(entry: dict[str, Any], error: InvalidChannelLayerError) -> CheckMessage:
    if "ROUTING" in entry:
        return checks.Error(
            str(error),
            hint="Remove the key ROUTING, and route with a ProtocolTypeRouter.",
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


def deployed_layers() -> Iterator[CheckMessage]:
    """W009: the in-memory layer, which does not reach other processes."""
    if settings.DEBUG:
        return
    for alias, entry in channel_layers.configs.items():
        if entry.get("BACKEND") in _IN_MEMORY:
            yield checks.Warning(
                f"CHANNEL_LAYERS[{alias!r}] is the in-memory layer: it reaches its own process only.",
                hint="With several processes, or to send from commands and task queues, use "
                "'trio_channels.layers.redis.RedisStreamsChannelLayer'. Silence this if the site is one process.",
                id="trio_channels.W009",
            )


_IN_MEMORY = ("trio_channels.layers.InMemoryChannelLayer", f"{InMemoryChannelLayer.__module__}.InMemoryChannelLayer")


def persistent_connections() -> Iterator[CheckMessage]:
    """W010: a new database connection for each call on a thread, which could keep its connection."""
    threads = _conf.get("WORKER_THREADS")
    for alias, database in settings.DATABASES.items():
        engine, pooled = str(database.get("ENGINE", "")), database.get("OPTIONS", {}).get("pool")
        served = engine and not engine.endswith(("sqlite3", "spatialite", "dummy"))
        if served and threads > 1 and database.get("CONN_MAX_AGE", 0) == 0 and not pooled:
            yield checks.Warning(
                f"DATABASES[{alias!r}] has a CONN_MAX_AGE of 0: each call to a worker thread opens a connection.",
                hint=f"The {threads} worker threads live as long as the process, and so can their connections: set "
                "CONN_MAX_AGE to None, with CONN_HEALTH_CHECKS, or use the database's pool.",
                id="trio_channels.W010",
            )


#: Settings that belong to the outbox.
_OF_OUTBOX = ("RELAY_ATTEMPTS", "RELAY_BATCH", "RELAY_LEASE", "RELAY_POLL", "RELAY_RETENTION")


def outbox() -> Iterator[CheckMessage]:
    """W020: settings of the outbox, which is not installed."""
    given = [key for key in _OF_OUTBOX if key in getattr(settings, _conf.NAME, {})]
    if given and not apps.is_installed("trio_channels.outbox"):
        yield checks.Warning(
            f"TRIO_CHANNELS has {given[0]!r}, and trio_channels.outbox is not in INSTALLED_APPS.",
            hint="Add 'trio_channels.outbox' to INSTALLED_APPS, and migrate.",
            id="trio_channels.W020",
        )


#: Settings that belong to the inspector.
_OF_INSPECTOR = ("INSPECTOR_CONNECTIONS", "INSPECTOR_TIMEOUT")


def inspector() -> Iterator[CheckMessage]:
    """W025: settings of the inspector, which is not installed."""
    given = [key for key in _OF_INSPECTOR if key in getattr(settings, _conf.NAME, {})]
    if given and not apps.is_installed("trio_channels.inspector"):
        yield checks.Warning(
            f"TRIO_CHANNELS has {given[0]!r}, and trio_channels.inspector is not in INSTALLED_APPS.",
            hint="Add 'trio_channels.inspector' to INSTALLED_APPS, and migrate.",
            id="trio_channels.W025",
        )


def hardening() -> Iterator[CheckMessage]:
    """W011: the hardening of hypercorn is switched off."""
    if not _conf.get("HARDEN_HYPERCORN"):
        yield checks.Warning(
            "TRIO_CHANNELS['HARDEN_HYPERCORN'] is off: a malformed request can end a process of hypercorn.",
            hint="Remove the key, unless a proxy passes on well-formed requests only.",
            id="trio_channels.W011",
        )


def listed(check: Callable[[], Iterator[CheckMessage]]) -> Callable[..., list[CheckMessage]]:
    """The check as Django calls it; without errors that other checks report."""

    def run(**_kwargs: Any) -> list[CheckMessage]:
        found: list[CheckMessage] = []
        try:
            for message in check():
                found.append(message)  # noqa: PERF402 - those before an error are kept
        except (ConfigurationError, InvalidChannelLayerError):
            pass  # reported by E003 or E006
        return found

    return run


_ALWAYS = tuple(
    map(listed, (asgi_application, asgi_module, extras, trio_channels, installed_apps, layers, outbox, inspector))
)
_DEPLOYED = tuple(map(listed, (deployed_layers, persistent_connections, hardening)))


def register() -> None:
    """Register the checks with Django; called when the app is ready. Idempotent."""
    for check in _ALWAYS:
        checks.register(check, TAG)
    for check in _DEPLOYED:
        checks.register(check, TAG, deploy=True)
