"""PostgreSQL's notifications wake the relay; without them it looks by itself."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from django.db import connections
from django.utils import timezone

from tests.postgres import PostgresServer
from trio_channels import outbox
from trio_channels._concurrency.wakeup import Wakeup
from trio_channels.db import aatomic
from trio_channels.outbox import listening
from trio_channels.outbox.listening import can_listen, listen
from trio_channels.outbox.models import OutboxMessage

from .conftest import numbers, until


@pytest.fixture
def only_notified(settings: Any) -> None:
    """Nothing but a notification wakes a relay."""
    settings.TRIO_CHANNELS = {"RELAY_POLL": 3600.0}


def test_postgresql_with_psycopg_notifies(postgres_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_listen("default")
    monkeypatch.setattr(connections["default"].Database, "__name__", "psycopg2")
    assert not can_listen("default")


def test_sqlite_does_not_notify(sqlite_database: Any) -> None:
    assert not can_listen("default")


async def test_commit_wakes_the_relay(only_notified: None, postgres_database: Any, memory: Any) -> None:
    async with memory.subscribe("g") as events, outbox.relay() as relay:
        await outbox.agroup_send("g", {"type": "t", "n": 1})
        assert await numbers(events, 1) == [1]
        await until(lambda: relay.statistics().sent == 1)
        async with aatomic():
            await outbox.agroup_send("g", {"type": "t", "n": 2})
        assert await numbers(events, 1) == [2]


async def test_retry_wakes_the_relay(
    only_notified: None, postgres_database: Any, postgres: PostgresServer, memory: Any
) -> None:
    await outbox.agroup_send("g", {"type": "t", "n": 1})
    await OutboxMessage.objects.aupdate(set_aside_at=timezone.now())
    async with memory.subscribe("g") as events, outbox.relay() as relay:
        await outbox.agroup_send("g", {"type": "t", "n": 2})
        assert await numbers(events, 1) == [2]
        await until(lambda: listeners(postgres) and relay.statistics().sent == 1)
        await until(lambda: relay._wakeup.waited_for)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await until(lambda: relay._wakeup.waited_for)
        assert await outbox.aretry() == 1
        assert await numbers(events, 1) == [1]


def listeners(postgres: PostgresServer) -> list[Any]:
    """The connections whose last statement is a LISTEN."""
    return postgres.execute("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")


async def test_lost_connection_is_opened_again(
    postgres_database: Any, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_channels.outbox")
    woken = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "default", woken.set)
        with trio.fail_after(60):
            await woken.wait()  # it listens
            await outbox.agroup_send("g", {"type": "t", "n": 1})
            await woken.wait()
            postgres.terminate_connections(postgres_database["NAME"])
            await woken.wait()  # again
        nursery.cancel_scope.cancel()
    assert caplog.text.count("does not notify") == 1
    assert caplog.text.count("notifies again") == 1


async def test_database_that_is_away_is_waited_for(
    postgres_database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect, failures = listening._connect, [0, 1, 2]

    def fail_first(using: str) -> Any:
        if failures:
            failures.pop()
            raise connections[using].Database.OperationalError("away")
        return connect(using)

    monkeypatch.setattr(listening, "_connect", fail_first)
    woken = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "default", woken.set)
        with trio.fail_after(60):
            await woken.wait()
        nursery.cancel_scope.cancel()
    assert caplog.text.count("does not notify: away") == 1


async def test_connection_that_cannot_listen_is_closed(
    postgres_database: Any, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "NOTIFICATION", "no name")
    with pytest.raises(connections["default"].Database.Error):
        listening._connect("default")
    await until(lambda: not listeners(postgres))


async def test_cancelled_listener_closes_its_connection(postgres_database: Any, postgres: PostgresServer) -> None:
    woken = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "default", woken.set)
        await woken.wait()
        assert listeners(postgres)
        nursery.cancel_scope.cancel()
    await until(lambda: not listeners(postgres))
