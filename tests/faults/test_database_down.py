"""The database goes away: the call that needs it fails, and the first one after its return succeeds."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.db import DatabaseError, InterfaceError, connection

from tests.postgres import PostgresServer
from trio_channels._threads.database import thread_pool
from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from trio_channels.testing import WebsocketCommunicator

pytestmark = pytest.mark.faults

#: The exceptions of Django for a connection that is gone.
GONE = (DatabaseError, InterfaceError)


@pytest.fixture(params=[False, True], ids=["without health checks", "with health checks"])
def persistent(postgres_database: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    postgres_database |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": request.param}
    return postgres_database


@pytest.fixture
def running(postgres: PostgresServer) -> Any:
    """A server that the test may stop: it is restarted afterwards."""
    yield postgres
    postgres.stop()
    postgres.start()


async def open_connections(number: int) -> None:
    """Have `number` workers open their connections."""
    started = trio.Event()
    open_now = 0

    async def one() -> None:
        nonlocal open_now
        async with aatomic():
            await User.objects.acount()
            open_now += 1
            if open_now == number:
                started.set()
            await started.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(one)
    assert thread_pool().statistics().idle == number


async def errors_of(number: int) -> list[type[Exception]]:
    """The errors of `number` concurrent calls."""
    raised: list[type[Exception]] = []

    async def one() -> None:
        try:
            await User.objects.acount()
        except GONE as error:
            raised.append(type(error))

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(one)
    return raised


async def test_connections_that_the_server_cut_fail_once_at_most(
    persistent: dict[str, Any], postgres: PostgresServer
) -> None:
    await open_connections(5)
    postgres.terminate_connections(persistent["NAME"])
    raised = await errors_of(40)
    assert len(raised) <= (0 if persistent["CONN_HEALTH_CHECKS"] else 5)
    assert await errors_of(40) == []


async def test_database_that_is_down_fails_each_call_until_back(
    persistent: dict[str, Any], running: PostgresServer
) -> None:
    await open_connections(3)
    running.stop()
    assert len(await errors_of(20)) == 20
    running.start()
    assert await errors_of(20) == []
    assert thread_pool().statistics().leased == 0


async def test_transaction_on_a_cut_connection_fails_alone(
    persistent: dict[str, Any], postgres: PostgresServer
) -> None:
    with pytest.raises(GONE):
        await cut_inside_a_transaction(persistent, postgres)
    assert thread_pool().statistics().leased == 0
    async with aatomic():
        await User.objects.acreate(username="grace")
    assert [user.username async for user in User.objects.all()] == ["grace"]


async def cut_inside_a_transaction(database: dict[str, Any], postgres: PostgresServer) -> None:
    async with aatomic():
        await User.objects.acreate(username="ada")
        postgres.terminate_connections(database["NAME"])


async def test_cancelled_transaction_on_a_cut_connection_frees_thread(
    persistent: dict[str, Any], postgres: PostgresServer
) -> None:
    with trio.CancelScope() as scope:
        async with aatomic():
            await User.objects.acreate(username="ada")
            postgres.terminate_connections(persistent["NAME"])
            scope.cancel()
    assert scope.cancelled_caught
    assert not await database_sync_to_async(lambda: connection.in_atomic_block)()
    assert await User.objects.acount() == 0


class Counting(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(str(await User.objects.acount()))


class CountingInThreads(WebsocketConsumer):
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(str(User.objects.count()))


@pytest.mark.parametrize("consumer", [Counting, CountingInThreads])
async def test_handler_that_needs_the_database_fails_alone(
    persistent: dict[str, Any], running: PostgresServer, consumer: Any
) -> None:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as bystander:
        await bystander.connect()
        running.stop()
        with pytest.raises(GONE):
            await ask_once(consumer)
        running.start()
        assert await ask_once(consumer) == "0"
        await bystander.send_to(text_data="how many?")
        assert await bystander.receive_from() == "0"


async def ask_once(consumer: Any) -> str:
    async with WebsocketCommunicator(consumer.as_asgi(), "/") as client:
        await client.connect()
        await client.send_to(text_data="how many?")
        return await client.receive_from(timeout=30)
