"""Notes for exceptions of asyncio or blocking code in a Trio run, and of Trio code where none runs: what to write.

:func:`explain` is called where an exception is handled already, so that code without one is not slower. Python, Trio
and asyncio raise these exceptions with messages that name no remedy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

#: A function or class of asyncio -> what takes its place in a Trio task.
TRIO_WAYS = {
    "sleep": "trio.sleep(seconds)",
    **dict.fromkeys(
        ("create_task", "ensure_future", "run_coroutine_threadsafe"),
        "self.start_soon(function) in a consumer, start_soon(function) of a nursery elsewhere",
    ),
    **dict.fromkeys(
        ("gather", "wait", "as_completed", "TaskGroup", "shield"),
        "a nursery: async with trio.open_nursery() as nursery: nursery.start_soon(function)",
    ),
    **dict.fromkeys(
        ("wait_for", "timeout", "timeout_at", "Timeout"),
        "a time limit around the await: with trio.fail_after(seconds): ...",
    ),
    "Lock": "trio.Lock",
    "Event": "trio.Event",
    "Condition": "trio.Condition",
    **dict.fromkeys(("Semaphore", "BoundedSemaphore"), "trio.Semaphore"),
    "Barrier": "trio.Event, or the end of a nursery",
    **dict.fromkeys(("Queue", "LifoQueue", "PriorityQueue"), "trio.open_memory_channel(size)"),
    **dict.fromkeys(("to_thread", "run_in_executor"), "trio_channels.sync.sync_to_async(function)(...)"),
    **dict.fromkeys(("Future", "wrap_future"), "trio.Event, or trio.open_memory_channel(1)"),
    **dict.fromkeys(
        ("get_running_loop", "get_event_loop", "current_task"),
        "Trio's own functions, without a loop: self.start_soon(function) in a consumer, start_soon(function) of a "
        "nursery, trio.sleep(seconds), trio_channels.sync.sync_to_async(function)(...)",
    ),
    **dict.fromkeys(("run", "Runner"), "await function(): Trio runs already"),
    **dict.fromkeys(("open_connection", "open_unix_connection"), "trio.open_tcp_stream, trio.open_unix_socket"),
    **dict.fromkeys(("start_server", "start_unix_server"), "trio.serve_tcp, trio.serve_listeners"),
    **dict.fromkeys(("create_subprocess_exec", "create_subprocess_shell"), "trio.run_process(command)"),
}

#: A package that is written for asyncio -> what takes its place. Every other one gets `_OTHER_LIBRARY`.
LIBRARIES = {
    "aiofiles": "trio.open_file(path)",
    "aiohttp": "httpx, which runs on Trio",
    "async_timeout": "with trio.fail_after(seconds): ...",
    "asgiref": "the bridge: put 'trio_channels' into INSTALLED_APPS, and leave TRIO_CHANNELS['ASGIREF_BRIDGE'] on",
    "channels": "the same names of trio_channels",
    "channels_redis": "trio_channels.layers.redis.RedisStreamsChannelLayer",
    "django.core.handlers.asgi": "get_asgi_application of trio_channels.asgi, not of django.core.asgi",
    "redis": "a synchronous redis.Redis, in trio_channels.sync.sync_to_async",
    "websockets": "trio_websocket",
    **dict.fromkeys(
        ("aiomysql", "aiopg", "asyncpg", "psycopg"), "Django's models, or a synchronous driver in sync_to_async"
    ),
    **dict.fromkeys(("motor", "pymongo"), "a synchronous pymongo.MongoClient, in trio_channels.sync.sync_to_async"),
}
_OTHER_LIBRARY = "a library for Trio or AnyIO, or its synchronous interface in trio_channels.sync.sync_to_async"

#: What Python, asyncio and Trio say when asyncio code runs in a Trio task.
_ASYNCIO_IN_TRIO = (
    "no running event loop",
    "no current event loop",
    "trio.run received unrecognized yield message",
    "'NoneType' object has no attribute 'create_future'",
    "'NoneType' object has no attribute 'create_task'",  # with trio-asyncio, whose get_event_loop() returns None there
    "You're within a Trio environment",  # by trio-asyncio, too
)
#: What they say when Trio code runs where no Trio run is: in an asyncio task, or in none.
_TRIO_OUTSIDE = ("must be called from async context", "Task got bad yield")

_OUTSIDE = (
    "Trio code was called where no Trio run is: by asyncio.run(), by asgiref's async_to_sync(), or by a server or test "
    "for asyncio. From synchronous code call it with trio_channels.sync.async_to_sync(function)(...); test it with "
    "pytest-trio, or with Django's TestCase"
)

#: Django's own message names two ways, neither of which is the shortest.
_BLOCKING = (
    "in an async function use Django's async methods, such as aget(), acreate() and 'async for', or put the code that "
    "uses the database into a plain function below @database_sync_to_async (trio_channels.db), and await its call"
)

_OF_LAYERS = ("group_add", "group_broadcast", "group_discard", "group_send", "subscribe")
_NO_LAYER = (
    "there is no channel layer, as CHANNEL_LAYERS has no such entry: put CHANNEL_LAYERS = {'default': {'BACKEND': "
    "'trio_channels.layers.InMemoryChannelLayer'}} into the settings"
)

#: Their frames may be the innermost ones, and are nobody's mistake.
_OURS = ("trio_channels", "trio", "trio_asyncio", "outcome")
_STANDARD_LIBRARY = str(Path(os.__file__).parent)
_INSTALLED = ("site-packages", "dist-packages")


def explain(error: BaseException, *, on_trio: bool = True) -> None:
    """Add a note with the remedy to an exception that the wrong event loop caused, or to those in a group. Idempotent.

    Without `on_trio`, it was not raised in a Trio run: then only calls of Trio are a mistake.
    """
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            explain(one, on_trio=on_trio)
        return
    note = remedy(error, on_trio=on_trio)
    if note is not None and note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def remedy(error: BaseException, *, on_trio: bool = True) -> str | None:
    """The note for an exception, or the first one for those in a group; None if the event loop did not cause it."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    notes = [_note(cause, on_trio) for cause in _chain(error)] + [remedy(one, on_trio=on_trio) for one in inner]
    return next((note for note in notes if note is not None), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and those that it was raised from: libraries raise errors of their own."""
    seen = set[int]()
    ahead: BaseException | None = error
    while ahead is not None and id(ahead) not in seen:
        seen.add(id(ahead))
        yield ahead
        ahead = ahead.__cause__ or (None if ahead.__suppress_context__ else ahead.__context__)


def _note(error: BaseException, on_trio: bool) -> str | None:
    if type(error).__name__ == "SynchronousOnlyOperation":  # Django's; this module imports no Django
        return _BLOCKING if on_trio else None
    if isinstance(error, AttributeError) and error.obj is None and error.name in _OF_LAYERS:
        return _NO_LAYER
    if not isinstance(error, RuntimeError | TypeError | AttributeError):
        return None
    said = str(error)
    if any(words in said for words in _TRIO_OUTSIDE):
        return _OUTSIDE
    if not on_trio or not any(words in said for words in _ASYNCIO_IN_TRIO):
        return None
    function, library = _culprit(error)
    if library is not None:
        return f"{library} is written for asyncio, and here Trio runs: use {LIBRARIES.get(library, _OTHER_LIBRARY)}"
    if function in TRIO_WAYS:
        return f"asyncio.{function} does not work in a Trio task: use {TRIO_WAYS[function]}"
    return f"asyncio does not work in a Trio task: use {TRIO_WAYS['get_running_loop']}"


def _culprit(error: BaseException) -> tuple[str, str | None]:
    """The function of asyncio that was called, "" if its frames do not tell; and the library that called it, if any."""
    function = ""
    for frame in _innermost_first(error):
        module, path = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        package = module.partition(".")[0]
        installed = any(directory in path for directory in _INSTALLED)
        if package == "asyncio":
            function = frame.f_code.co_qualname.partition(".")[0]
        elif package not in _OURS and (installed or not path.startswith(_STANDARD_LIBRARY)):
            known = next((name for name in LIBRARIES if f"{module}.".startswith(f"{name}.")), None)
            return function, known or (package if installed else None)
    return function, None


def _innermost_first(error: BaseException) -> list[FrameType]:
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames[::-1]
