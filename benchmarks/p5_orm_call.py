"""P5: one ORM call from async code: it gets an object by its key, from an SQLite file over a persistent connection.

The calls follow each other, as in a handler, or come from ten tasks at the same time, as in a server. An empty call
shows the cost of the way to the thread and back.

Sides: our ``database_sync_to_async``, and Django's own ``aget`` over our bridge, on Trio; asgiref's ``sync_to_async``,
and ``aget`` over it, on asyncio. Ours checks the thread's database connections at the start and end of each call;
asgiref's does not.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .harness import Comparison, Side, Stopwatch, Timing, Workload, main

#: Tasks that call at the same time.
TASKS = 10

NAME = "ada"

Call = Callable[[], Awaitable[Any]]


@contextmanager
def project() -> Iterator[int]:
    """Django with a database of one user; gives the user's key."""
    import django
    from django.conf import settings

    with tempfile.TemporaryDirectory(prefix="trio-channels-benchmark-") as folder:
        path = str(Path(folder) / "db.sqlite3")
        settings.configure(
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "CONN_MAX_AGE": None}},
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        )
        django.setup()
        from django.contrib.auth.models import User
        from django.contrib.contenttypes.models import ContentType
        from django.db import connection

        with connection.schema_editor() as editor:
            for model in (ContentType, User):
                editor.create_model(model)
        key = User.objects.create(username=NAME).pk
        connection.close()
        yield key


def get(key: int) -> str:
    """The ORM call."""
    from django.contrib.auth.models import User

    return User.objects.get(pk=key).username


async def aget(key: int) -> str:
    """The same, with Django's asynchronous interface."""
    from django.contrib.auth.models import User

    return (await User.objects.aget(pk=key)).username


async def repeat(call: Call, expected: object, count: int) -> None:
    """Make this number of calls, and check each result."""
    for _ in range(count):
        if (got := await call()) != expected:
            raise RuntimeError(f"expected {expected!r}; got {got!r}")


def drive_trio(call: Call, expected: object, count: int, tasks: int = 1) -> Timing:
    """Make the calls in tasks of a Trio run."""
    import trio

    async def all_tasks(each: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(repeat, call, expected, each)

    async def run() -> Timing:
        await all_tasks(max(1, count // tasks // 5))
        with Stopwatch() as watch:
            await all_tasks(max(1, count // tasks))
        return watch.timing(max(1, count // tasks) * tasks)

    return trio.run(run)


def drive_asyncio(call: Call, expected: object, count: int, tasks: int = 1) -> Timing:
    """Make the calls in tasks of an asyncio loop."""
    import asyncio

    async def all_tasks(each: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(repeat(call, expected, each))

    async def run() -> Timing:
        await all_tasks(max(1, count // tasks // 5))
        with Stopwatch() as watch:
            await all_tasks(max(1, count // tasks))
        return watch.timing(max(1, count // tasks) * tasks)

    return asyncio.run(run())


def ours(count: int, tasks: int = 1) -> Timing:
    """Our ``database_sync_to_async``."""
    with project() as key:
        from trio_channels.db import database_sync_to_async

        asked = database_sync_to_async(get)
        return drive_trio(lambda: asked(key), NAME, count, tasks)


def ours_many(count: int) -> Timing:
    """The same, from several tasks."""
    return ours(count, TASKS)


def ours_aget(count: int) -> Timing:
    """Django's asynchronous interface over our bridge."""
    with project() as key:
        from trio_channels import bridge

        bridge.install()
        return drive_trio(lambda: aget(key), NAME, count)


def ours_empty(count: int) -> Timing:
    """An empty call."""
    with project():
        from trio_channels.db import database_sync_to_async

        return drive_trio(database_sync_to_async(int), 0, count)


def asgiref(count: int, tasks: int = 1) -> Timing:
    """asgiref's ``sync_to_async``."""
    with project() as key:
        from asgiref.sync import sync_to_async

        asked = sync_to_async(get)
        return drive_asyncio(lambda: asked(key), NAME, count, tasks)


def asgiref_many(count: int) -> Timing:
    """The same, from several tasks."""
    return asgiref(count, TASKS)


def asgiref_aget(count: int) -> Timing:
    """Django's asynchronous interface over asgiref."""
    with project() as key:
        return drive_asyncio(lambda: aget(key), NAME, count)


def asgiref_empty(count: int) -> Timing:
    """An empty call."""
    with project():
        from asgiref.sync import sync_to_async

        return drive_asyncio(sync_to_async(int), 0, count)


WORKLOAD = Workload(
    name="p5_orm_call",
    title="ORM call",
    unit="call",
    sides={
        "ours": Side(ours, 4_000),
        "asgiref": Side(asgiref, 4_000),
        "ours-aget": Side(ours_aget, 4_000),
        "asgiref-aget": Side(asgiref_aget, 4_000),
        "ours-many": Side(ours_many, 4_000),
        "asgiref-many": Side(asgiref_many, 4_000),
        "ours-empty": Side(ours_empty, 10_000),
        "asgiref-empty": Side(asgiref_empty, 10_000),
    },
    comparisons=(
        Comparison("one object, sync_to_async", "ours", "asgiref", slower=0.8),
        Comparison("one object, aget", "ours-aget", "asgiref-aget"),
        Comparison("one object, ten tasks", "ours-many", "asgiref-many"),
        Comparison("an empty call", "ours-empty", "asgiref-empty", slower=0.8),
    ),
)

if __name__ == "__main__":
    sys.exit(main([WORKLOAD]))
