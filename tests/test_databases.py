"""The databases that the tests use: each test finds it empty, and every thread sees it."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db import connection

from trio_channels.db import database_sync_to_async

from .postgres import PostgresServer


async def test_what_one_thread_writes_another_one_reads(database: dict[str, Any]) -> None:
    await database_sync_to_async(User.objects.create)(username="ada")
    assert await database_sync_to_async(lambda: list(User.objects.values_list("username", flat=True)))() == ["ada"]


async def test_each_test_finds_the_database_empty(database: dict[str, Any]) -> None:
    assert await database_sync_to_async(User.objects.count)() == 0


def test_database_is_of_the_kind_that_it_says(postgres_database: dict[str, Any], postgres: PostgresServer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == (postgres_database["NAME"],)
    assert postgres.connections(postgres_database["NAME"])
