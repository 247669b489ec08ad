"""Django's asynchronous ORM in a Trio run, on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
import trio
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, prefetch_related_objects
from django.test import override_settings

from trio_channels._threads.database import thread_pool
from trio_channels.db import database_sync_to_async

pytestmark = pytest.mark.usefixtures("database")


async def add(*names: str) -> list[User]:
    return await User.objects.abulk_create([User(username=name) for name in names])


async def test_object_is_made_found_changed_and_deleted() -> None:
    made = await User.objects.acreate(username="ada")
    found = await User.objects.aget(username="ada")
    assert found == made
    found.first_name = "Ada"
    await found.asave(update_fields=["first_name"])
    await made.arefresh_from_db()
    assert made.first_name == "Ada"
    await found.adelete()
    assert not await User.objects.filter(username="ada").aexists()


async def test_what_is_not_there_raises_what_django_raises() -> None:
    with pytest.raises(User.DoesNotExist):
        await User.objects.aget(username="nobody")


async def test_error_of_the_database_comes_through() -> None:
    await add("ada")
    with pytest.raises(IntegrityError):
        await User.objects.acreate(username="ada")
    assert await User.objects.acount() == 1


async def test_queries_of_every_kind_are_answered() -> None:
    await add("ada", "grace", "barbara")
    users = User.objects.order_by("username")
    first, last = await users.afirst(), await users.alast()
    assert first is not None
    assert last is not None
    assert (first.username, last.username) == ("ada", "grace")
    assert await users.filter(username__contains="ra").aupdate(first_name="R") == 2
    assert await users.filter(first_name="R").acount() == 2
    assert set(await users.ain_bulk(["ada"], field_name="username")) == {"ada"}
    assert (await users.aget_or_create(username="ada"))[1] is False
    assert (await users.aupdate_or_create(username="edith", defaults={"first_name": "E"}))[1] is True
    assert await users.acontains(first)
    assert await users.aaggregate(count=Count("pk")) == {"count": 4}


async def test_queryset_can_be_looped_over() -> None:
    await add("ada", "grace")
    assert [user.username async for user in User.objects.order_by("username")] == ["ada", "grace"]
    assert [name async for name in User.objects.order_by("username").values_list("username", flat=True)] == [
        "ada",
        "grace",
    ]


async def test_raw_query_can_be_looped_over() -> None:
    await add("ada", "grace")
    raw = User.objects.raw("SELECT * FROM auth_user ORDER BY username")
    assert [user.username async for user in raw] == ["ada", "grace"]


# -- aiterator --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_age", [0, None], ids=["a connection a call", "persistent connections"])
async def test_large_result_is_fetched_in_chunks(database: dict[str, Any], max_age: int | None) -> None:
    database["CONN_MAX_AGE"] = max_age
    names = [f"user {number:03}" for number in range(100)]
    await add(*names)
    queryset = User.objects.order_by("username")
    assert [user.username async for user in queryset.aiterator(chunk_size=7)] == names
    assert [name async for name in queryset.values_list("username", flat=True).aiterator(chunk_size=9)] == names


async def test_many_iterations_at_the_same_time_do_not_meet() -> None:
    names = [f"user {number:02}" for number in range(30)]
    await add(*names)
    seen: list[list[str]] = []

    async def one() -> None:
        rows = []
        async for user in User.objects.order_by("username").aiterator(chunk_size=4):
            rows.append(user.username)
            await trio.lowlevel.checkpoint()
        seen.append(rows)

    async with trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(one)
    assert seen == [names] * 15


@override_settings(TRIO_CHANNELS={"WORKER_THREADS": 1})
async def test_iteration_body_may_query_on_one_thread() -> None:
    await add("ada", "grace", "edith")
    async for user in User.objects.aiterator(chunk_size=1):
        await User.objects.filter(pk=user.pk).aupdate(first_name="seen")
        async for other in User.objects.filter(pk=user.pk).aiterator(chunk_size=1):
            assert other.first_name == "seen"
    assert await User.objects.filter(first_name="seen").acount() == 3
    assert thread_pool().statistics().leased == 0


async def test_two_iterations_of_one_task_both_end() -> None:
    await add(*"abcdef")
    short = User.objects.order_by("username")[:2].aiterator(chunk_size=1)
    long = User.objects.order_by("username").aiterator(chunk_size=1)
    pairs = [(await anext(short), await anext(long)) for _ in range(2)]
    assert [row async for row in short] == []
    rest = [user.username async for user in long]
    assert [first.username + second.username for first, second in pairs] == ["aa", "bb"]
    assert rest == ["c", "d", "e", "f"]
    assert thread_pool().statistics().leased == 0


async def test_iteration_that_is_left_early_gives_its_thread_back() -> None:
    await add("ada", "grace", "edith")
    async with contextlib.aclosing(User.objects.aiterator(chunk_size=1)) as rows:
        async for _user in rows:
            assert thread_pool().statistics().leased == 1
            break
    assert thread_pool().statistics().leased == 0
    assert await User.objects.acount() == 3


async def test_iteration_that_is_cancelled_gives_its_thread_back() -> None:
    await add("ada", "grace", "edith")
    with trio.CancelScope() as scope:
        async with contextlib.aclosing(User.objects.aiterator(chunk_size=1)) as rows:
            async for _user in rows:
                scope.cancel()
    assert scope.cancelled_caught
    assert thread_pool().statistics().leased == 0
    assert await User.objects.acount() == 3


async def test_iteration_prefetches() -> None:
    [ada] = await add("ada")
    await ada.groups.aset([await Group.objects.acreate(name=name) for name in ("a", "b")])
    async for user in User.objects.prefetch_related("groups").aiterator(chunk_size=1):
        assert {group.name for group in user.groups.all()} == {"a", "b"}


# -- related managers -------------------------------------------------------------------------------------------------


async def test_related_managers_work_in_both_directions() -> None:
    ada, grace = await add("ada", "grace")
    ada, grace = await User.objects.aget(username="ada"), await User.objects.aget(username="grace")
    group = await ada.groups.acreate(name="pioneers")
    await group.user_set.aadd(grace)
    assert {user.username async for user in group.user_set.all()} == {"ada", "grace"}
    await grace.groups.aremove(group)
    assert await grace.groups.acount() == 0
    await ada.groups.aset([])
    assert not await ada.groups.aexists()
    await group.user_set.aadd(ada, grace)
    await group.user_set.aclear()
    assert await group.user_set.acount() == 0


async def test_related_objects_are_prefetched() -> None:
    ada = await User.objects.acreate(username="ada")
    await ada.groups.acreate(name="pioneers")
    [found] = [user async for user in User.objects.prefetch_related("groups")]
    assert [group.name for group in found.groups.all()] == ["pioneers"]
    await sync_to_async(prefetch_related_objects)([ada], "groups")
    assert [group.name for group in ada.groups.all()] == ["pioneers"]


# -- threads ----------------------------------------------------------------------------------------------------------


async def test_queries_run_on_the_pools_threads_several_at_a_time() -> None:
    barrier = threading.Barrier(3)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(sync_to_async(barrier.wait), 30)
    assert not barrier.broken
    assert thread_pool().statistics().workers == 3


async def test_blocking_query_on_the_trio_thread_is_refused() -> None:
    with pytest.raises(SynchronousOnlyOperation):
        User.objects.count()
    with pytest.raises(SynchronousOnlyOperation):
        connection.cursor()
    with pytest.raises(SynchronousOnlyOperation):
        transaction.atomic().__enter__()


async def test_what_is_refused_on_the_trio_thread_works_on_a_worker() -> None:
    assert await database_sync_to_async(User.objects.count)() == 0


def test_blocking_query_outside_a_trio_run_works() -> None:
    assert User.objects.count() == 0
