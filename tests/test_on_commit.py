"""Messages that are sent on commit: after it, not after a rollback, and at once without a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import TestCase, override_settings
from django.urls import path

from trio_channels import on_commit
from trio_channels._http.handler import DjangoHandler
from trio_channels.consumer import AsyncConsumer, SyncConsumer
from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.exceptions import (
    BridgeError,
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidNameError,
    MessageNotEncodable,
)
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.on_commit import (
    agroup_broadcast_on_commit,
    agroup_send_on_commit,
    group_broadcast_on_commit,
    group_send_on_commit,
)
from trio_channels.sync import async_to_sync
from trio_channels.testing import ApplicationCommunicator, HttpCommunicator
from trio_channels.testing.database import capture_on_commit_callbacks


class Noting(InMemoryChannelLayer):
    """Notes the messages that it sends, and whether the row of the transaction can be seen by others then."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Any] = []
        self.error: Exception | None = None

    async def group_send(self, group: str, message: Any, *, exclude: Any = ()) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.sent.append(message.get("n", message.get("text")))


@pytest.fixture
def layer() -> Iterator[Noting]:
    layer = Noting()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


def later(n: int, **options: Any) -> None:
    group_send_on_commit("g", {"type": "t", "n": n}, **options)


async def alater(n: int, **options: Any) -> None:
    await agroup_send_on_commit("g", {"type": "t", "n": n}, **options)


# -- sync code --------------------------------------------------------------------------------------------------------


def test_message_waits_for_the_commit(database: Any, layer: Noting) -> None:
    with transaction.atomic():
        later(1)
        group_broadcast_on_commit("g", text="two")
        assert layer.sent == []
    assert layer.sent == [1, "two"]


def test_rollback_sends_nothing(database: Any, layer: Noting) -> None:
    with suppress(ZeroDivisionError), transaction.atomic():
        later(1)
        raise ZeroDivisionError
    assert layer.sent == []


def test_rollback_of_a_savepoint_sends_the_others(database: Any, layer: Noting) -> None:
    with transaction.atomic():
        later(1)
        with suppress(ZeroDivisionError), transaction.atomic():
            later(2)
            with transaction.atomic():
                later(3)
            raise ZeroDivisionError
        with transaction.atomic():
            later(4)
    assert layer.sent == [1, 4]


def test_message_is_sent_at_once_without_a_transaction(database: Any, layer: Noting) -> None:
    later(1)
    assert layer.sent == [1]


def test_message_is_that_of_the_time_of_the_call(sqlite_database: Any, layer: Noting) -> None:
    message = {"type": "t", "n": [1]}
    with transaction.atomic():
        group_send_on_commit("g", message)
        message["n"].append(2)  # type: ignore[attr-defined]
    assert layer.sent == [[1]]


def test_transaction_of_another_database(sqlite_database: Any, layer: Noting, tmp_path: Any) -> None:
    connections.settings["other"] = {**connections.settings["default"], "NAME": str(tmp_path / "other.sqlite3")}
    try:
        with transaction.atomic(), transaction.atomic(using="other"):
            later(1, using="other")
            later(2)
            connections["other"].check_constraints()
        assert layer.sent == [1, 2]
        with transaction.atomic():
            later(3, using="other")  # it has no transaction
            assert layer.sent == [1, 2, 3]
    finally:
        connections["other"].close()
        del connections["other"], connections.settings["other"]


def test_autocommit_that_is_off_is_refused(sqlite_database: Any, layer: Noting) -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError):
            later(1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


class Announce(BaseCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            later(1)
            assert channel_layers["default"].sent == []


def test_command_sends_after_its_commit(sqlite_database: Any, layer: Noting) -> None:
    Announce().execute(no_color=True, force_color=False, skip_checks=True)
    assert layer.sent == [1]


class InTestCase(TestCase):
    def test_messages_are_captured(self) -> None:
        layer = Noting()
        before = channel_layers.set("default", layer)
        try:
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                later(1)
            assert (len(callbacks), layer.sent) == (1, [1])
            with self.captureOnCommitCallbacks() as callbacks:
                later(2)
            assert (len(callbacks), layer.sent) == (1, [1])
        finally:
            channel_layers.set("default", before)


# -- wrong calls ------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "group": (InvalidNameError, lambda: group_send_on_commit("no group!", {"type": "t"})),
    "message": (MessageNotEncodable, lambda: group_send_on_commit("g", {"type": object()})),
    "exclude": (InvalidNameError, lambda: later(1, exclude="no channel!!")),
    "layer": (InvalidChannelLayerError, lambda: later(1, layer="missing")),
    "content": (MessageNotEncodable, lambda: group_broadcast_on_commit("g")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_argument_is_refused_by_the_call(sqlite_database: Any, layer: Noting, name: str) -> None:
    error, call = REFUSED[name]
    with transaction.atomic():
        with pytest.raises(error):
            call()
        later(1)
    assert layer.sent == [1]


async def test_async_calls_refuse_the_same(sqlite_database: Any, layer: Noting) -> None:
    with pytest.raises(InvalidNameError):
        await agroup_send_on_commit("no group!", {"type": "t"})
    with pytest.raises(MessageNotEncodable):
        await agroup_broadcast_on_commit("g")


async def test_sync_call_on_the_trio_thread_is_refused(sqlite_database: Any, layer: Noting) -> None:
    with pytest.raises(BridgeError, match=r"runs trio.*await agroup_send_on_commit"):
        later(1)


# -- the layer fails --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ChannelLayerUnavailable("away"), ValueError("broken")])
def test_message_that_is_lost_is_logged(
    sqlite_database: Any, layer: Noting, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    layer.error = error
    called = []
    with transaction.atomic():
        later(1)
        transaction.on_commit(lambda: called.append(1))
    assert called == [1]
    (record,) = caplog.records
    assert record.getMessage() == f"a message to group 'g' was committed, and is lost: {error}"
    assert bool(record.exc_info) == isinstance(error, ValueError)


def test_error_is_raised_by_the_commit_if_wanted(sqlite_database: Any, layer: Noting) -> None:
    layer.error = ChannelLayerUnavailable("away")
    with pytest.raises(ChannelLayerUnavailable):
        commit_one()
    assert User.objects.count() == 1


def commit_one() -> None:
    with transaction.atomic():
        User.objects.create(username="ada")
        later(1, robust=False)


def test_layer_that_hangs_ends_in_time(
    sqlite_database: Any, layer: Noting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(on_commit, "SENDING", 0.01)

    async def hang(*_args: Any, **_kwargs: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(layer, "group_send", hang)
    later(1)
    assert "did not take a message within 0.01 seconds" in caplog.text


# -- async code -------------------------------------------------------------------------------------------------------


async def test_block_of_aatomic_sends_after_its_commit(database: Any, layer: Noting) -> None:
    async with aatomic():
        await alater(1)
        await agroup_broadcast_on_commit("g", json=[2])
        with suppress(ZeroDivisionError):
            async with aatomic():
                await alater(3)
                raise ZeroDivisionError
        await database_sync_to_async(later)(4)
        assert layer.sent == []
    assert layer.sent == [1, "[2]", 4]


async def test_cancelled_block_sends_nothing(sqlite_database: Any, layer: Noting) -> None:
    with trio.CancelScope() as scope:
        async with aatomic():
            await alater(1)
            scope.cancel()
    assert layer.sent == []


async def test_cancellation_during_the_commit_sends(sqlite_database: Any, layer: Noting) -> None:
    with trio.CancelScope() as scope:
        async with aatomic():
            await alater(1)
            cancel = async_to_sync(cancel_scope)
            await database_sync_to_async(transaction.on_commit)(lambda: cancel(scope))
            await alater(2)
    assert layer.sent == [1, 2]


async def test_call_that_is_cancelled_before_its_commit_sends(sqlite_database: Any, layer: Noting) -> None:
    """As a synchronous view whose client leaves: it goes on to its end."""
    with trio.CancelScope() as scope:

        def view() -> None:
            with transaction.atomic():
                later(1)
                async_to_sync(cancel_scope)(scope)

        await database_sync_to_async(view)()
    assert layer.sent == [1]


async def cancel_scope(scope: trio.CancelScope) -> None:
    scope.cancel()


async def test_async_code_without_a_transaction_sends_at_once(sqlite_database: Any, layer: Noting) -> None:
    await alater(1)
    assert layer.sent == [1]


def in_view(request: HttpRequest, fail: int) -> HttpResponse:
    User.objects.create(username="ada")
    later(1)
    assert channel_layers["default"].sent == ([] if connections["default"].in_atomic_block else [1])
    if fail:
        raise ZeroDivisionError
    return HttpResponse()


async def in_async_view(request: HttpRequest, fail: int) -> HttpResponse:
    async with aatomic():
        await User.objects.acreate(username="ada")
        await alater(1)
        if fail:
            raise ZeroDivisionError
    return HttpResponse()


urlpatterns = [path("sync/<int:fail>/", in_view), path("async/<int:fail>/", in_async_view)]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("fail", [0, 1])
async def test_view_sends_what_it_commits(sqlite_database: Any, layer: Noting, kind: str, fail: int) -> None:
    sqlite_database["ATOMIC_REQUESTS"] = kind == "sync"  # Django refuses it for async views
    with override_settings(ROOT_URLCONF=__name__):
        async with HttpCommunicator(DjangoHandler(), "GET", f"/{kind}/{fail}/") as client:
            response = await client.get_response(timeout=30)
    assert response["status"] == (500 if fail else 200)
    assert layer.sent == ([] if fail else [1])


class InSync(SyncConsumer):
    def test_go(self, event: dict[str, Any]) -> None:
        with transaction.atomic():
            later(1)
            assert channel_layers["default"].sent == []
        self.send({"type": "test.done"})


class InAsync(AsyncConsumer):
    async def test_go(self, event: dict[str, Any]) -> None:
        async with aatomic():
            await alater(1)
            assert channel_layers["default"].sent == []
        await self.send({"type": "test.done"})


@pytest.mark.parametrize("consumer", [InSync, InAsync])
async def test_consumer_sends_after_its_commit(sqlite_database: Any, layer: Noting, consumer: Any) -> None:
    async with ApplicationCommunicator(consumer.as_asgi(), {"type": "test"}) as client:
        await client.send_input({"type": "test.go"})
        assert (await client.receive_output(30))["type"] == "test.done"
    assert layer.sent == [1]


async def test_async_test_captures_messages(trio_db: Any, layer: Noting) -> None:
    async with capture_on_commit_callbacks(execute=True) as callbacks:
        await alater(1)
        assert layer.sent == []
    assert (len(callbacks), layer.sent) == (1, [1])
