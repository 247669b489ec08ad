"""Writing into the outbox: refused arguments, the content of a row, transactions, on each database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.test import override_settings

from trio_channels import outbox
from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.exceptions import (
    ConfigurationError,
    InvalidChannelLayerError,
    InvalidNameError,
    MessageNotEncodable,
    TrioChannelsError,
)
from trio_channels.outbox.models import OutboxMessage, RelayLease
from trio_channels.outbox.writing import BUCKETS, bucket_of

GOOD = {"type": "t"}

REFUSED: dict[str, tuple[type[TrioChannelsError], Callable[[], object]]] = {
    "group": (InvalidNameError, lambda: outbox.group_send("no group!", GOOD)),
    "no dict": (MessageNotEncodable, lambda: outbox.group_send("g", ["t"])),  # type: ignore[arg-type]
    "key": (MessageNotEncodable, lambda: outbox.group_send("g", {1: "t"})),  # type: ignore[dict-item]
    "value": (MessageNotEncodable, lambda: outbox.group_send("g", {"type": "t", "x": object()})),
    "exclude": (InvalidNameError, lambda: outbox.group_send("g", GOOD, exclude="no channel!!")),
    "layer": (InvalidChannelLayerError, lambda: outbox.group_send("g", GOOD, layer="missing")),
    "no content": (MessageNotEncodable, lambda: outbox.group_broadcast("g")),
    "two contents": (MessageNotEncodable, lambda: outbox.group_broadcast("g", text="a", bytes=b"a")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_argument_is_refused_by_the_call(sqlite_database: Any, name: str) -> None:
    error, call = REFUSED[name]
    with transaction.atomic():
        with pytest.raises(error):
            call()
        outbox.group_send("g", GOOD)  # the transaction is not broken
    assert OutboxMessage.objects.count() == 1


async def test_async_call_refuses_the_same(sqlite_database: Any) -> None:
    with pytest.raises(InvalidNameError):
        await outbox.agroup_send("no group!", GOOD)
    with pytest.raises(MessageNotEncodable):
        await outbox.agroup_broadcast("g")
    assert await OutboxMessage.objects.acount() == 0


def test_message_is_that_of_the_time_of_the_call(database: Any) -> None:
    message: dict[str, Any] = {"type": "t", "list": [1]}
    with transaction.atomic():
        outbox.group_send("g", message)
        message["list"].append(2)
    assert bytes(OutboxMessage.objects.get().message) == b"\x82\xa4type\xa1t\xa4list\x91\x01"


def test_each_row_has_an_identity_of_its_own(database: Any) -> None:
    for _ in range(3):
        outbox.group_send("g", GOOD, exclude=["b!2", "a!1"])
    rows = list(OutboxMessage.objects.all())
    assert len({row.identity for row in rows}) == 3
    assert [row.exclude for row in rows] == [["a!1", "b!2"]] * 3
    assert {row.bucket for row in rows} == {bucket_of("default", "g")}
    assert str(rows[0]) == f"message {rows[0].pk} to g"


def test_buckets_spread_the_groups() -> None:
    used = {bucket_of("default", f"group-{n}") for n in range(1_000)}
    assert used == set(range(BUCKETS))


def test_rollback_of_a_savepoint_takes_its_rows(database: Any) -> None:
    with transaction.atomic():
        outbox.group_send("kept", GOOD)
        with suppress(ZeroDivisionError), transaction.atomic():
            outbox.group_send("undone", GOOD)
            raise ZeroDivisionError
    assert [row.group for row in OutboxMessage.objects.all()] == ["kept"]


async def test_block_of_aatomic_is_the_transaction(database: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await OutboxMessage.objects.acount() == 0
    async with aatomic():
        await outbox.agroup_send("g", GOOD)
        await database_sync_to_async(outbox.group_broadcast)("g", text="x")
    assert await OutboxMessage.objects.acount() == 2


async def write_and_fail() -> None:
    async with aatomic():
        await outbox.agroup_send("g", GOOD)
        await outbox.agroup_broadcast("g", text="x")
        raise ZeroDivisionError


@override_settings(INSTALLED_APPS=["trio_channels"])
def test_outbox_that_is_not_installed_is_named() -> None:
    for call in (lambda: outbox.group_send("g", GOOD), lambda: outbox.Relay):
        with pytest.raises(ConfigurationError, match=r"needs 'trio_channels.outbox' in INSTALLED_APPS"):
            call()


def test_unknown_name_of_the_package_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        outbox.nothing  # noqa: B018


def test_package_without_its_app_can_be_imported() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    program = "import trio_channels.outbox as outbox; outbox.group_send"
    subprocess.run([sys.executable, "-W", "error", "-c", program], env=environment, check=True)


def test_migrations_are_those_of_the_models(sqlite_database: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("makemigrations", "trio_channels_outbox", check=True, dry_run=True)
    assert "No changes detected" in capsys.readouterr().out


def test_migration_can_be_undone(database: Any) -> None:
    call_command("migrate", "trio_channels_outbox", "zero", verbosity=0)
    call_command("migrate", "trio_channels_outbox", verbosity=0)
    outbox.group_send("g", GOOD)
    assert outbox.status().pending == 1


def test_lease_names_its_holder() -> None:
    assert str(RelayLease(bucket=5, holder="abc")) == "bucket 5, held by abc"
    assert str(RelayLease(bucket=5)) == "bucket 5, held by no relay"


def test_status_of_an_empty_outbox(database: Any) -> None:
    assert outbox.status() == outbox.OutboxStatus(pending=0, oldest=None, set_aside=0)
    assert outbox.retry() == 0


def test_retry_of_some_rows(database: Any) -> None:
    for group in ("a", "b", "c"):
        outbox.group_send(group, GOOD)
    OutboxMessage.objects.update(set_aside_at="2026-01-01T00:00Z", attempts=5, error="broken")
    ids = list(OutboxMessage.objects.order_by("id").values_list("pk", flat=True))
    assert outbox.retry(ids[0], ids[2], 999_999) == 2
    assert (outbox.status().pending, outbox.status().set_aside) == (2, 1)
    assert outbox.status().oldest is not None
    row = OutboxMessage.objects.get(pk=ids[0])
    assert (row.attempts, row.error, row.set_aside_at) == (0, "", None)
