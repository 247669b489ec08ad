"""Database access on worker threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from django.db import connection, connections, transaction
from django.test import override_settings

from trio_channels._threads.database import run_in_thread, thread_pool
from trio_channels._threads.pool import current_pool
from trio_channels.consumer import AsyncConsumer
from trio_channels.db import aclose_old_connections, database_sync_to_async, pinned
from trio_channels.sync import async_to_sync
from trio_channels.testing import WebsocketCommunicator


@pytest.fixture(autouse=True)
def database_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file, which every thread can open; no thread's connection is shared with the test's."""
    monkeypatch.setitem(connections.settings["default"], "NAME", str(tmp_path / "db.sqlite3"))
    yield
    connections.close_all()


@pytest.fixture(autouse=True)
def _database_allowed(django_db_blocker: object) -> Iterator[None]:
    with django_db_blocker.unblock():  # type: ignore[attr-defined]
        yield


@database_sync_to_async
def select() -> tuple[int, object]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()[0], connection.connection


def opened() -> object:
    """This thread's database connection."""
    connection.ensure_connection()
    return connection.connection


async def test_query_runs_on_a_worker_thread() -> None:
    assert (await select())[0] == 1
    assert current_pool().statistics().calls == 1


def test_databases_connections_are_closed_at_the_end_of_the_run() -> None:
    wrappers = []

    def query() -> None:
        opened()
        wrappers.append(connections["default"])

    async def main() -> None:
        connections.settings["default"]["CONN_MAX_AGE"] = None
        try:
            await run_in_thread(query)
        finally:
            connections.settings["default"]["CONN_MAX_AGE"] = 0
        assert wrappers[0].connection is not None

    trio.run(main)
    assert wrappers[0].connection is None


async def test_connection_is_closed_after_a_call_if_it_must_be() -> None:
    def query() -> object:
        opened()
        return connections["default"]

    assert (await run_in_thread(query)).connection is None


async def test_connection_is_kept_between_calls_when_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    assert await run_in_thread(opened) is await run_in_thread(opened)


async def test_connection_is_closed_after_a_call_that_fails() -> None:
    wrappers = []

    def query() -> None:
        opened()
        wrappers.append(connections["default"])
        raise LookupError

    with pytest.raises(LookupError):
        await run_in_thread(query)
    assert wrappers[0].connection is None


async def test_nested_call_keeps_the_connection_of_the_outer_one() -> None:
    def query() -> bool:
        outer = opened()
        return async_to_sync(run_in_thread)(opened) is outer and connection.connection is outer

    assert await run_in_thread(query)


async def test_connection_in_an_atomic_block_is_not_closed_under_it() -> None:
    def query() -> bool:
        with transaction.atomic():
            opened()
            async_to_sync(aclose_old_connections)()
            return connection.closed_in_transaction

    assert not await run_in_thread(query)


class Handler(AsyncConsumer):
    """Says whether it holds a thread after a call, and whether two calls of a block have the same one."""

    async def websocket_connect(self, event: object) -> None:
        get_thread = database_sync_to_async(threading.get_ident)
        await get_thread()
        leased = thread_pool().statistics().leased
        async with pinned():
            same = await get_thread() == await get_thread()
        await self.send({"type": "websocket.close", "reason": f"{leased} {same}"})


async def test_async_handler_has_one_thread_per_call_or_per_block() -> None:
    """A handler that waits for its client must hold no thread, so that it is not one per handler."""
    async with WebsocketCommunicator(Handler.as_asgi(), "/") as socket:
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output())["reason"] == "0 True"
    assert thread_pool().statistics().leased == 0


async def test_old_connections_can_be_closed_by_hand() -> None:
    await aclose_old_connections()
    assert current_pool().statistics().calls == 1


@override_settings(TRIO_CHANNELS={"WORKER_THREADS": 2, "WORKER_QUEUE": 3})
async def test_pool_has_the_size_that_the_settings_say() -> None:
    seen = thread_pool().statistics()
    assert (seen.limit, seen.queue_limit) == (2, 3)


def test_program_without_django_settings_can_use_workers() -> None:
    program = (
        "import trio; from trio_channels._threads.database import run_in_thread; print(trio.run(run_in_thread, int))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
