"""django-tenants behind the real server: every answer holds the rows of its own tenant, and of no other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio

from ..integration.server.conftest import next_event
from ..postgres import PostgresServer
from ..process import program

TENANTS = ("ada", "grace", "hedy", "mary", "rosa", "sofja")
VIEWS = ("orm", "called", "in_blocks", "streamed", "streamed_in_sync", "plain")
ENVIRONMENT = {"DJANGO_SETTINGS_MODULE": "tests.tenants.settings"}


@pytest.fixture(scope="module")
def tenants(postgres: PostgresServer) -> dict[str, Any]:
    """A database with a schema and rows for each tenant; its settings."""
    postgres.create_database("tenants")
    settings = postgres.settings("tenants")

    async def set_up() -> int:
        environment = ENVIRONMENT | {"TESTS_DATABASE": json.dumps(settings), "TESTS_TRIO_CHANNELS": "{}"}
        async with program("-m", "tests.tenants.set_up", *TENANTS, **environment) as made:
            assert await made.ends() == 0, made.text
        return 0

    trio.run(set_up)
    return settings


@asynccontextmanager
async def site(database: dict[str, Any], **trio_channels: Any) -> AsyncIterator[int]:
    """The site in a process of its own; its port."""
    environment = ENVIRONMENT | {
        "TESTS_DATABASE": json.dumps(database),
        "TESTS_TRIO_CHANNELS": json.dumps(trio_channels),
    }
    command = ("-m", "trio_channels", "serve", "tests.tenants.asgi:application", "--bind=127.0.0.1:0")
    async with program(*command, **environment) as server:
        yield await server.port()


async def ask(port: int, view: str, tenant: str) -> list[str]:
    """The owners of the rows that a request for a tenant was answered with."""
    parser, body = h11.Connection(h11.CLIENT), b""
    request = h11.Request(
        method="GET",
        target=f"/{view}/?requests={len(TENANTS)}",
        headers=[("Host", f"{tenant}.localhost"), ("Connection", "close")],
    )
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all((parser.send(request) or b"") + (parser.send(h11.EndOfMessage()) or b""))
        while not isinstance(event := await next_event(stream, parser), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            else:
                assert event.status_code == 200, event
    return body.decode().split()


async def ask_all(port: int, view: str) -> dict[str, set[str]]:
    """By tenant, whose rows its request was answered with, all tenants asking at the same time."""
    seen: dict[str, set[str]] = {}

    async def one(tenant: str) -> None:
        seen[tenant] = set(await ask(port, view, tenant))

    async with trio.open_nursery() as nursery:
        for tenant in TENANTS:
            nursery.start_soon(one, tenant)
    return seen


async def test_each_tenant_is_answered_with_its_own_rows(tenants: dict[str, Any]) -> None:
    expected = {tenant: {tenant} for tenant in TENANTS}
    # A thread for each: all of them are held while the requests wait for each other.
    async with site(tenants, WORKER_THREADS=len(TENANTS)) as port:
        for _ in range(3):
            for view in VIEWS:
                assert await ask_all(port, view) == expected, view


async def test_freer_rule_mixes_tenants(tenants: dict[str, Any]) -> None:
    """Seen so that the test above is known to be able to fail; with one thread, it is no matter of chance."""
    async with site(tenants, WORKER_THREADS=1, THREAD_PER_REQUEST=False) as port:
        for view in ("orm", "called"):
            seen = await ask_all(port, view)
            (others,) = {tuple(owners) for owners in seen.values()}
            assert len(others) == 1, "all see the tenant of the request that came last"
