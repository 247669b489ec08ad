"""``transaction.on_commit()`` in tests that are rolled back."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio
from django.contrib.auth.models import User
from django.db import transaction

from trio_channels.db import aatomic
from trio_channels.exceptions import ConfigurationError
from trio_channels.layers.base import ChannelLayer
from trio_channels.sync import async_to_sync, sync_to_async
from trio_channels.testing import capture_on_commit_callbacks

called: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    called.clear()


@sync_to_async
def store(name: str, *, robust: bool = False, error: Exception | None = None) -> None:
    def announce() -> None:
        called.append(name)
        if error is not None:
            raise error

    with transaction.atomic():
        User.objects.create_user(name)
        transaction.on_commit(announce, robust=robust)


async def test_without_the_block_nothing_is_called(trio_db: None) -> None:
    await store("ada")
    assert called == []


async def test_block_collects_the_functions(trio_db: None) -> None:
    await store("before")
    async with capture_on_commit_callbacks() as callbacks:
        await store("ada")
        await store("grace")
        assert callbacks == []
    await store("after")
    assert called == []
    for callback in callbacks:
        callback()
    assert called == ["ada", "grace"]


async def test_block_calls_them_at_its_end(db: None) -> None:
    async with capture_on_commit_callbacks(execute=True) as callbacks:
        await store("ada")
        assert called == []
    assert called == ["ada"]
    assert len(callbacks) == 1


async def test_functions_may_use_the_orm_and_the_layer(trio_db: None, channel_layer: ChannelLayer) -> None:
    @sync_to_async
    def register() -> None:
        def announce() -> None:
            message = {"type": "users", "number": User.objects.count()}
            async_to_sync(channel_layer.group_send)("news", message)

        User.objects.create_user("ada")
        transaction.on_commit(announce)

    async with channel_layer.subscribe("news") as events:
        async with capture_on_commit_callbacks(execute=True):
            await register()
        with trio.fail_after(30):
            assert await anext(events) == {"type": "users", "number": 1}


async def test_functions_of_functions_are_called(trio_db: None) -> None:
    @sync_to_async
    def register() -> None:
        transaction.on_commit(lambda: transaction.on_commit(lambda: called.append("inner")))

    async with capture_on_commit_callbacks(execute=True) as callbacks:
        await register()
    assert called == ["inner"]
    assert len(callbacks) == 2


async def test_transactions_across_awaits_are_captured(trio_db: None) -> None:
    async with capture_on_commit_callbacks(execute=True), aatomic():
        await store("ada")
    assert called == ["ada"]


async def test_rolled_back_block_calls_nothing(trio_db: None) -> None:
    async with capture_on_commit_callbacks(execute=True) as callbacks:
        with suppress(LookupError):
            async with aatomic():
                await store("ada")
                raise LookupError
    assert called == []
    assert callbacks == []


async def test_block_that_fails_calls_nothing(trio_db: None) -> None:
    with suppress(LookupError):
        async with capture_on_commit_callbacks(execute=True):
            await store("ada")
            raise LookupError
    assert called == []


async def test_exception_of_a_function_is_raised(trio_db: None) -> None:
    with pytest.raises(LookupError, match="announced"):
        async with capture_on_commit_callbacks(execute=True):
            await store("ada", error=LookupError("announced"))


async def test_robust_function_may_fail(trio_db: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "django.test"):
        async with capture_on_commit_callbacks(execute=True):
            await store("ada", robust=True, error=LookupError("announced"))
            await store("grace")
    assert called == ["ada", "grace"]
    assert "LookupError: announced" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_test_that_commits_needs_no_block() -> None:
    with pytest.raises(ConfigurationError, match="got one that commits"):
        async with capture_on_commit_callbacks():
            pytest.fail("entered")
    await store("ada")
    assert called == ["ada"]
