"""The tables of the upgrade: names that become others, and names for which a person must decide."""

from __future__ import annotations

from .._asgi.foreign_calls import LIBRARIES, TRIO_WAYS
from ..compat.names import defined, defined_at, place_of, why_missing

#: Modules that have the same names here.
MODULES = {
    **{
        f"channels{rest}": f"trio_channels{rest}"
        for rest in (
            *("", ".apps", ".auth", ".consumer", ".db", ".exceptions", ".generic", ".generic.http"),
            *(".generic.websocket", ".layers", ".middleware", ".routing", ".security", ".security.websocket"),
            *(".sessions", ".testing", ".testing.application", ".testing.http", ".testing.live"),
            *(".testing.websocket", ".worker"),
        )
    },
    "django.core.asgi": "trio_channels.asgi",
    "channels_redis.core": "trio_channels.layers.redis",
    "channels_redis.pubsub": "trio_channels.layers.redis",
}

#: Single names that become others, and those that stay although their module is in :data:`MODULES`.
NAMES = {
    "asgiref.sync.async_to_sync": "trio_channels.sync.async_to_sync",
    "asgiref.sync.sync_to_async": "trio_channels.sync.sync_to_async",
    "asgiref.testing.ApplicationCommunicator": "trio_channels.testing.ApplicationCommunicator",
    "channels_redis.core.RedisChannelLayer": "trio_channels.layers.redis.RedisStreamsChannelLayer",
    "channels_redis.pubsub.RedisPubSubChannelLayer": "trio_channels.layers.redis.RedisStreamsChannelLayer",
    **{f"asyncio.{name}": f"trio.{name}" for name in ("sleep", "Lock", "Event")},
    "asyncio.TimeoutError": "trio.TooSlowError",
    "asyncio.exceptions.TimeoutError": "trio.TooSlowError",
    "asyncio.CancelledError": "trio.Cancelled",
    "asyncio.exceptions.CancelledError": "trio.Cancelled",
    "asyncio.QueueFull": "trio.WouldBlock",
    "asyncio.QueueEmpty": "trio.WouldBlock",
    "pytest_asyncio.fixture": "pytest.fixture",
}

_CHANNELS = ("channels", "channels_redis")

#: The ways for names that have been rewritten and still need a look.
NEVER_SWALLOW = "trio.Cancelled must never be swallowed: end the except block with raise"
NO_LOOP = "remove the fixture: pytest-trio starts a Trio run for each test, without a loop"
NO_CLEAR = "a trio.Event has no clear(): make a new one instead"

#: Methods with names of their own, whatever the object's name is.
METHODS = {"close_pools": "remove the call: a layer closes at the end of its Trio run, or of async with layer:"}

#: Names without a plain equivalent, and the way to do it here.
DECISIONS = {
    **{f"asyncio.{name}": way for name, way in TRIO_WAYS.items()},
    "asyncio.new_event_loop": TRIO_WAYS["get_running_loop"],
    "asyncio.set_event_loop": TRIO_WAYS["get_running_loop"],
    "asyncio.iscoroutinefunction": "inspect.iscoroutinefunction",
    "asyncio.iscoroutine": "inspect.iscoroutine",
    "asyncio.Task": "a nursery, or self.start_soon(function) in a consumer; cancel with a trio.CancelScope",
    "asyncio.StreamReader": "a trio.SocketStream, of trio.open_tcp_stream",
    "asyncio.StreamWriter": "a trio.SocketStream, of trio.open_tcp_stream",
    "asgiref.sync.ThreadSensitiveContext": "trio_channels.db.pinned(): one thread for the calls of a block",
    "asgiref.sync.SyncToAsync": "trio_channels.sync.sync_to_async",
    "asgiref.sync.AsyncToSync": "trio_channels.sync.async_to_sync",
    "asgiref.sync.iscoroutinefunction": "inspect.iscoroutinefunction",
    "unittest.IsolatedAsyncioTestCase": "django.test.SimpleTestCase, whose async tests run on Trio",
    "django.core.handlers.asgi.ASGIHandler": "get_asgi_application of trio_channels.asgi",
    "django.core.handlers.asgi.ASGIRequest": "the request that a view gets: it has the same attributes",
}

#: Packages of which only a part is for asyncio, or that have rules of their own above.
_NOT_WHOLE = ("asgiref", "channels", "django.core.handlers.asgi", "redis", "psycopg", "pymongo")

#: Libraries for asyncio, and others that belong to Channels; the longest name that fits counts.
PACKAGES = {
    **{name: way for name, way in LIBRARIES.items() if name not in _NOT_WHOLE},
    "aioredis": LIBRARIES["redis"],
    "redis.asyncio": LIBRARIES["redis"],
    "daphne": "trio-channels serve, and manage.py runserver of trio_channels",
    "uvicorn": "trio-channels serve: uvicorn runs on asyncio",
    "pytest_asyncio": "pytest-trio, with trio_mode = true",
    "channels_presence": "presence of the channel layer: see the how-to guide",
    "asyncio": f"Trio: {TRIO_WAYS['get_running_loop']}",
}


def renamed(name: str) -> str | None:
    """The name here for a qualified name of Channels, asgiref or asyncio; None if it stays or needs a decision."""
    name = defined_at(name)
    if name in NAMES:
        return NAMES[name]
    module, _, rest = name.rpartition(".")
    if name.split(".")[0] in _CHANNELS:
        if name in MODULES:  # from channels import layers
            return MODULES[name]
        is_known = rest in defined().get(module, ()) and not why_missing(name)
        return place_of(name) if is_known or name == "channels.__version__" else None
    return f"{MODULES[module]}.{rest}" if module in MODULES and rest else None


def decision(name: str) -> str | None:
    """The way to do here what a qualified name did, if a person must decide; None for every other name."""
    name = defined_at(name)
    if name in DECISIONS:
        return DECISIONS[name]
    parts = name.split(".")
    if parts[0] in _CHANNELS and (why := why_missing(name)):
        return why
    for end in range(len(parts), 0, -1):
        package = ".".join(parts[:end])
        if package in PACKAGES and renamed(name) is None:
            return PACKAGES[package]
    if parts[0] in _CHANNELS and renamed(name) is None:
        return "the table of Channels' names in the reference says what takes its place"
    return None
