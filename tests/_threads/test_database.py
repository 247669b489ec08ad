"""How many database connections the worker threads open, and that they close them; on a real PostgreSQL."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import psycopg
import pytest
import trio
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, connections, transaction
from django.db.backends.signals import connection_created

from tests.postgres import PostgresServer
from trio_channels._threads.database import request_thread, run_in_thread, thread_pool
from trio_channels.db import aatomic, pinned
from trio_channels.sync import async_to_sync

CALLS = 400


@pytest.fixture
def persistent(postgres_database: dict[str, Any]) -> dict[str, Any]:
    postgres_database["CONN_MAX_AGE"] = None
    return postgres_database


@pytest.fixture
def opened() -> Any:
    """The connections that have been opened, in order."""
    connections: list[psycopg.Connection[Any]] = []

    def remember(connection: Any, **kwargs: Any) -> None:
        connections.append(connection.connection)

    connection_created.connect(remember)
    yield connections
    connection_created.disconnect(remember)


async def backend() -> int:
    """The process of PostgreSQL that serves this thread's connection."""

    def ask() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            pid: int = cursor.fetchone()[0]
            return pid

    return await run_in_thread(ask)


def test_four_hundred_calls_open_at_most_ten_connections(
    persistent: dict[str, Any], opened: list[psycopg.Connection[Any]], postgres: PostgresServer
) -> None:
    seen: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(CALLS):
                nursery.start_soon(run_in_thread, lambda number=number: User.objects.create(username=str(number)))
        seen.extend(postgres.connections(persistent["NAME"]))
        assert await User.objects.acount() == CALLS

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # psycopg warns of a connection that is garbage while it is open
        trio.run(main)
        gc.collect()
    assert 1 <= len(seen) <= 10
    assert len(opened) == len(seen)
    assert all(each.closed for each in opened)


async def test_call_inside_a_call_and_a_pinned_block_use_one_connection(
    persistent: dict[str, Any], opened: list[psycopg.Connection[Any]]
) -> None:
    def outer() -> tuple[int, int]:
        return async_to_sync(backend)(), async_to_sync(backend)()

    first, second = await run_in_thread(outer)
    assert first == second
    async with pinned():
        assert len({await backend() for _ in range(5)}) == 1
    async with aatomic():
        assert len({await backend() for _ in range(5)}) == 1
    assert len(opened) == 1


async def test_lease_without_max_age_has_one_connection(
    postgres_database: dict[str, Any], opened: list[psycopg.Connection[Any]]
) -> None:
    async with pinned():
        first = await backend()
        assert await backend() == first
    assert opened[0].closed
    assert await backend() != first
    assert len(opened) == 2


async def test_connection_is_never_closed_inside_an_atomic_block(
    postgres_database: dict[str, Any], opened: list[psycopg.Connection[Any]]
) -> None:
    async def inner() -> None:
        async with pinned():
            await User.objects.acreate(username="ada")
        await User.objects.acreate(username="grace")

    def outer() -> int:
        with transaction.atomic():
            async_to_sync(inner)()
            return User.objects.count()

    assert await run_in_thread(outer) == 2
    assert len(opened) == 1


async def test_connection_too_old_is_closed_when_a_lease_starts(
    persistent: dict[str, Any], opened: list[psycopg.Connection[Any]]
) -> None:
    def grow_old() -> None:
        connection.close_at = 0.0

    first = await backend()
    await run_in_thread(grow_old)
    assert await backend() != first
    assert opened[0].closed


async def test_thread_that_is_none_of_ours_keeps_what_it_opened(
    persistent: dict[str, Any], opened: list[psycopg.Connection[Any]]
) -> None:
    def elsewhere() -> None:
        assert User.objects.count() == 0
        own.append(not connection.connection.closed)
        connection.close()

    own: list[bool] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    await backend()
    assert own == [True]
    assert thread_pool().statistics().workers == 1


@pytest.fixture
def gone_once(postgres_database: dict[str, Any], postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database cuts the first connection between its opening and its set-up."""
    wrapper: Any = type(connections["default"])
    set_up, times = wrapper.init_connection_state, [1]

    def cut_first(self: Any) -> None:
        if times:
            times.pop()
            postgres.terminate_connections(postgres_database["NAME"])
        set_up(self)

    connection.close()
    monkeypatch.setattr(wrapper, "init_connection_state", cut_first)


async def in_call() -> None:
    await run_in_thread(User.objects.count)


async def in_block() -> None:
    async with pinned():
        await in_call()


async def in_block_that_goes_on() -> None:
    failure: DatabaseError | None = None
    async with pinned():
        try:
            await in_call()
        except DatabaseError as error:
            failure = error
    if failure is not None:
        raise failure


async def in_transaction() -> None:
    async with aatomic():
        await in_call()


async def in_request() -> None:
    with request_thread("a request"):
        await in_call()


@pytest.mark.parametrize("use", [in_call, in_block, in_block_that_goes_on, in_transaction, in_request])
async def test_connection_that_was_lost_during_its_set_up_fails_once(gone_once: None, use: Any) -> None:
    with pytest.raises(DatabaseError):
        await use()
    await use()
