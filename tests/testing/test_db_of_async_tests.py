"""pytest-django's own ways to a database, on async tests: nothing that a thread stores is left for the next test."""

from __future__ import annotations

from typing import Any

import pytest

from ..postgres import PostgresServer
from .test_trio_db_in_a_project import IN_MEMORY, run

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

__all__ = ["run"]

#: After each test the next one looks for rows.
WAYS = """
import pytest
import trio
from django.contrib.auth.models import User
from django.db import transaction
from hypothesis import HealthCheck, given, settings, strategies as st

from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.generic.websocket import WebsocketConsumer
from trio_channels.testing import WebsocketCommunicator


@pytest.fixture(autouse=True)
def empty(db):
    assert not User.objects.exclude(username="admin").exists()


async def store(name="left over"):
    await User.objects.acreate(username=name)
    assert await database_sync_to_async(User.objects.filter(username=name).count)() == 1


@pytest.mark.django_db
async def test_mark():
    await store()


async def test_fixture(db):
    await store()


async def test_fixture_by_a_fixture(admin_user):
    await store()
    assert await User.objects.acount() == 2


async def test_autouse_alone():
    await store()


class TestClass:
    pytestmark = pytest.mark.django_db

    async def test_mark_of_the_class(self):
        await store()


@pytest.fixture
async def stored():
    await store("by a fixture")


async def test_async_fixture_stores(stored, db):
    await store()


async def test_block_is_a_savepoint(db):
    async with aatomic():
        await store()


class Stores(WebsocketConsumer):
    def connect(self):
        User.objects.create_user("left over")
        self.accept()


async def test_synchronous_consumer(db):
    async with WebsocketCommunicator(Stores.as_asgi(), "/") as client:
        await client.connect(timeout=30)


async def test_application_in_a_system_task(db):
    await WebsocketCommunicator(Stores.as_asgi(), "/").connect(timeout=30)


@settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers())
async def test_examples(db, n):
    await User.objects.aget_or_create(username="left over")


def test_synchronous_test_that_runs_trio(db):
    trio.run(store)


@pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
async def test_failing(db):
    await store()
    1 / 0


def test_synchronous_test(db):
    User.objects.create_user("left over")


def test_the_last():
    pass
"""

#: The tests commit, each on a connection of its own, and the tables are emptied.
COMMITTING = """
import threading

import pytest
import trio
from django.contrib.auth.models import User
from django.db import connection, transaction

from trio_channels.db import database_sync_to_async


@database_sync_to_async
def where(barrier):
    barrier.wait(30)
    return connection.in_atomic_block, threading.get_ident()


async def commit():
    await User.objects.acreate(username="left over")
    barrier, seen = threading.Barrier(2), []

    async def look():
        seen.append(await where(barrier))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(look)
    assert [atomic for atomic, _ in seen] == [False, False]
    assert len({thread for _, thread in seen}) == 2


@pytest.mark.django_db(transaction=True)
async def test_mark():
    await commit()


async def test_fixture(transactional_db):
    await commit()


async def test_server(live_server):
    await User.objects.acreate(username="left over")


@pytest.mark.django_db
def test_empty():
    assert not User.objects.exists()
"""

WITHOUT_A_DATABASE = """
import pytest
from django.contrib.auth.models import User

from trio_channels.sync import sync_to_async


async def test_refused():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        await User.objects.acount()


async def test_threads_without_a_database():
    assert await sync_to_async(int)("7") == 7
"""

OTHER_ALIAS = """
import pytest
from django.contrib.auth.models import User


@pytest.mark.django_db
async def test_other():
    with pytest.raises(Exception, match="to 'other' are not allowed"):
        await User.objects.using("other").acount()


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize("turn", [1, 2])
async def test_both(turn):
    for alias in ("default", "other"):
        assert await User.objects.using(alias).acount() == 0
        await User.objects.using(alias).acreate(username="left over")
"""


def test_rows_of_threads_are_rolled_back(run: Any) -> None:
    run(IN_MEMORY, WAYS).assert_outcomes(passed=13, xfailed=1)


@pytest.mark.faults  # for its length alone
def test_rows_of_threads_are_rolled_back_on_postgresql(run: Any, postgres: PostgresServer) -> None:
    run(postgres.settings("postgres") | {"TEST": {"NAME": "of_async_tests"}}, WAYS).assert_outcomes(
        passed=13, xfailed=1
    )


def test_tests_that_commit_have_their_connections(run: Any, postgres: PostgresServer) -> None:
    database = postgres.settings("postgres") | {"TEST": {"NAME": "of_tests_that_commit"}}
    run(database, COMMITTING).assert_outcomes(passed=4)


def test_test_without_a_database_has_none(run: Any) -> None:
    run(IN_MEMORY, WITHOUT_A_DATABASE).assert_outcomes(passed=2)


def test_databases_of_the_mark_are_those_of_threads(run: Any) -> None:
    run(IN_MEMORY, OTHER_ALIAS, other=IN_MEMORY).assert_outcomes(passed=3)
