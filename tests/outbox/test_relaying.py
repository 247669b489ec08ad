"""The relay: committed messages arrive, once and in order, and rolled back ones do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import pytest
import trio
from django.db import OperationalError, transaction
from django.test import override_settings
from django.utils import timezone

from trio_channels import outbox
from trio_channels.db import aatomic, database_sync_to_async
from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers import InMemoryChannelLayer, channel_layers
from trio_channels.outbox import relaying
from trio_channels.outbox.models import OutboxMessage, RelayLease
from trio_channels.outbox.store import Store

from .conftest import LayerBlock, numbers, until, until_empty


class Undone(Exception):
    pass


async def test_committed_messages_arrive_in_order(database: Any, layer_block: LayerBlock) -> None:
    async with layer_block() as layer, outbox.relay() as relay, layer.subscribe("g") as events:
        for n in range(20):
            await outbox.agroup_send("g", {"type": "t", "n": n})
        assert await numbers(events, 20) == list(range(20))
        await until(lambda: relay.statistics().sent == 20)
        assert (await outbox.astatus()).pending == 0


async def test_rolled_back_messages_do_not_arrive(database: Any, layer_block: LayerBlock) -> None:
    async with layer_block() as layer, outbox.relay(), layer.subscribe("g") as events:
        with suppress(Undone):
            async with aatomic():
                await outbox.agroup_send("g", {"type": "t", "n": 1})
                raise Undone
        async with aatomic():
            await outbox.agroup_send("g", {"type": "t", "n": 2})
            with suppress(Undone):
                async with aatomic():
                    await outbox.agroup_send("g", {"type": "t", "n": 3})
                    raise Undone
            await outbox.agroup_send("g", {"type": "t", "n": 4})
        assert await numbers(events, 2) == [2, 4]
        await until_empty()


async def test_message_waits_for_its_commit(database: Any, layer_block: LayerBlock) -> None:
    @database_sync_to_async
    def write() -> None:
        with transaction.atomic():
            outbox.group_send("g", {"type": "t", "n": 1})

    async with layer_block() as layer, outbox.relay(), layer.subscribe("g") as events:
        await write()
        assert await numbers(events, 1) == [1]


class Faulty(InMemoryChannelLayer):
    """Raises the errors of a list, one for each attempt to send to the group "bad"; counts the attempts."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(capacity=10_000)
        self.errors = list(errors)
        self.attempts = 0

    async def group_send_once(self, group: str, message: Any, identity: bytes, *, exclude: Any = ()) -> None:
        if group == "bad":
            self.attempts += 1
            if self.errors:
                raise self.errors.pop(0)
        await super().group_send_once(group, message, identity, exclude=exclude)


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    layer = Faulty()
    before = channel_layers.set("default", layer)
    yield layer
    channel_layers.set("default", before)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between the attempts."""
    monkeypatch.setattr(relaying, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(relaying, "LONGEST_PAUSE", 0.001)


async def send(group: str, *numbers: int) -> None:
    for n in numbers:
        await outbox.agroup_send(group, {"type": "t", "n": n})


async def test_row_that_fails_is_tried_again_in_order(postgres_database: Any, faulty: Faulty, at_once: None) -> None:
    faulty.errors = [ValueError("broken")] * 4
    await send("bad", 1, 2)
    async with faulty.subscribe("bad") as events, outbox.relay() as relay:
        assert await numbers(events, 2) == [1, 2]
        await until(lambda: relay.statistics().sent == 2)
        assert (relay.statistics().failed, relay.statistics().set_aside) == (4, 0)


async def test_other_groups_do_not_wait_for_a_failing_row(sqlite_database: Any, faulty: Faulty) -> None:
    faulty.errors = [ValueError("broken")] * 4
    await send("bad", 1)
    await send("good", 2, 3)
    async with faulty.subscribe("good") as events, outbox.relay() as relay:
        assert await numbers(events, 2) == [2, 3]
        await until(lambda: (relay.statistics().failed, relay.statistics().sent) == (1, 2))
        assert (await outbox.astatus()).pending == 1


async def test_row_is_set_aside_and_later_ones_go_on(
    database: Any, faulty: Faulty, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.errors = [ValueError("broken")] * 5
    await send("bad", 1, 2)
    async with faulty.subscribe("bad") as events, outbox.relay() as relay:
        assert await numbers(events, 1) == [2]
        await until_empty()
        assert relay.statistics().set_aside == 1
        assert (await outbox.astatus()) == outbox.OutboxStatus(pending=0, oldest=None, set_aside=1)
        assert "is set aside after 5 attempts: ValueError: broken" in caplog.text
        assert await outbox.aretry() == 1
        assert await numbers(events, 1) == [1]
        await until_empty()
    assert (await outbox.astatus()).set_aside == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("message", b"\xc1", "MsgspecError|DecodeError"),
        ("message", b"", "DecodeError"),
        ("message", b"\x01", "MessageNotEncodable"),
        ("layer", "of old", "InvalidChannelLayerError"),
        ("group", "no group!", "InvalidNameError"),
        ("exclude", 5, "TypeError"),
        ("exclude", ["no channel!!"], "InvalidNameError"),
        ("exclude", [{}], "TypeError"),
    ],
)
async def test_row_that_cannot_be_decoded_is_set_aside(
    sqlite_database: Any, memory: Any, at_once: None, field: str, value: Any, error: str
) -> None:
    await send("bad", 1)
    await OutboxMessage.objects.aupdate(**{field: value})
    async with outbox.relay() as relay:
        await until(lambda: relay.statistics().set_aside == 1)
    assert re.match(error, (await OutboxMessage.objects.aget()).error)


async def test_layer_that_is_away_is_waited_for(
    sqlite_database: Any, faulty: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.errors = [ChannelLayerUnavailable("away")] * 3
    await send("bad", 1, 2)
    async with faulty.subscribe("bad") as events, outbox.relay() as relay:
        assert await numbers(events, 2) == [1, 2]
        await until(lambda: relay.statistics().sent == 2)
        assert (relay.statistics().postponed, relay.statistics().failed) == (3, 0)
    assert caplog.text.count("the channel layer does not take messages") == 1


async def test_row_that_was_sent_and_not_deleted_is_sent_once(
    database: Any, layer_block: LayerBlock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_channels.outbox")
    failures = [OperationalError("away")] * 3
    delete = Store.delete

    def fail_first(store: Store, rows: Any) -> None:
        if failures:
            raise failures.pop()
        delete(store, rows)

    monkeypatch.setattr(Store, "delete", fail_first)
    async with layer_block() as layer, layer.subscribe("g") as events:
        await send("g", 1, 2)
        async with outbox.relay() as relay:
            assert await numbers(events, 2) == [1, 2]
            await until(lambda: relay.statistics().sent == 2)
            await layer.group_send("g", {"type": "t", "n": 3})
            assert await numbers(events, 1) == [3]
    assert caplog.text.count("cannot be used: away") == 1
    assert caplog.text.count("can be used again") == 1


@pytest.mark.slow
async def test_several_relays_keep_the_order_of_each_group(database: Any, layer_block: LayerBlock) -> None:
    groups, count = [f"g{n}" for n in range(5)], 12
    async with layer_block() as layer, AsyncExitStack() as stack:
        events = {group: await stack.enter_async_context(layer.subscribe(group)) for group in groups}
        relays = [await stack.enter_async_context(outbox.relay()) for _ in range(3)]
        for n in range(count):
            for group in groups:
                await send(group, n)
        for group in groups:
            assert await numbers(events[group], count) == list(range(count))
        await until(lambda: sum(relay.statistics().sent for relay in relays) == count * len(groups))


async def test_excluded_channel_and_broadcast(database: Any, layer_block: LayerBlock) -> None:
    async with layer_block() as layer, outbox.relay():
        with layer.open_mailbox() as mine, layer.open_mailbox() as other:
            await layer.group_add("g", mine.name)
            await layer.group_add("g", other.name)
            await outbox.agroup_broadcast("g", text="for others", exclude=mine.name)
            await database_sync_to_async(outbox.group_broadcast)("g", json={"for": "all"})
            with trio.fail_after(60):
                assert [(await other.get())["text"] for _ in range(2)] == ["for others", '{"for": "all"}']
                assert (await mine.get())["text"] == '{"for": "all"}'


async def test_rows_of_other_layers_are_left_alone(sqlite_database: Any, memory: Any) -> None:
    await send("g", 1)
    with trio.move_on_after(0.2):
        await outbox.Relay(not_layers=["default"]).run()
    assert (await outbox.astatus()).pending == 1


async def test_old_rows_that_were_set_aside_are_deleted(
    sqlite_database: Any, memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await send("g", 1, 2, 3)
    ids = [row.pk async for row in OutboxMessage.objects.order_by("id")]
    for pk, days in ((ids[0], 8), (ids[1], 6)):
        aside = timezone.now() - timedelta(days=days)
        await OutboxMessage.objects.filter(pk=pk).aupdate(set_aside_at=aside)
    async with outbox.relay():
        await until_empty()
    assert [row.pk async for row in OutboxMessage.objects.all()] == [ids[1]]
    assert "1 messages are deleted" in caplog.text


@override_settings(TRIO_CHANNELS={"RELAY_RETENTION": 0})
async def test_without_retention_all_rows_are_kept(sqlite_database: Any, memory: Any) -> None:
    await send("g", 1, 2)
    first = await OutboxMessage.objects.order_by("id").afirst()
    await OutboxMessage.objects.filter(pk=first.pk).aupdate(set_aside_at=timezone.now() - timedelta(days=1_000))
    async with outbox.relay():
        await until_empty()
    assert (await outbox.astatus()).set_aside == 1


async def test_error_of_the_block_is_raised_bare(sqlite_database: Any, memory: Any) -> None:
    with pytest.raises(Undone):
        async with outbox.relay():
            raise Undone


async def test_cancelled_relay_gives_its_leases_back(database: Any, faulty: Faulty) -> None:
    sending = trio.Event()

    class Stuck(Faulty):
        async def group_send_once(self, *args: Any, **kwargs: Any) -> None:
            sending.set()
            await trio.sleep_forever()

    channel_layers.set("default", Stuck())
    await send("g", 1)
    async with outbox.relay():
        await sending.wait()
        assert await RelayLease.objects.exclude(holder="").acount() == 1
    assert await RelayLease.objects.exclude(holder="").acount() == 0
    assert (await outbox.astatus()).pending == 1


@override_settings(TRIO_CHANNELS={"RELAY_LEASE": 0.3})
async def test_send_that_hangs_ends_with_the_lease(sqlite_database: Any, faulty: Faulty) -> None:
    class Hangs(Faulty):
        async def group_send_once(self, *args: Any, **kwargs: Any) -> None:
            self.attempts += 1
            if self.attempts == 1:
                await trio.sleep_forever()
            await super().group_send_once(*args, **kwargs)

    channel_layers.set("default", layer := Hangs())
    await send("g", 1)
    async with layer.subscribe("g") as events, outbox.relay():
        assert await numbers(events, 1) == [1]
    assert layer.attempts == 2


async def test_relay_runs_until_it_is_cancelled(sqlite_database: Any, memory: Any) -> None:
    await send("g", 1)
    async with memory.subscribe("g") as events, trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run_relay)
        assert await numbers(events, 1) == [1]
        nursery.cancel_scope.cancel()


def test_relay_says_what_it_has_done() -> None:
    assert repr(outbox.Relay("other")).startswith("<Relay of <Store of the outbox in 'other'>, RelayStatistics(sent=0,")


@pytest.mark.parametrize("error", [ValueError("broken"), ChannelLayerUnavailable("away")])
async def test_next_attempt_does_not_wait_for_the_next_look(
    settings: Any, sqlite_database: Any, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(relaying, "FIRST_PAUSE", 0.2)  # long enough for the relay to come to rest
    settings.TRIO_CHANNELS = {"RELAY_POLL": 3600.0}
    channel_layers.set("default", faulty)  # the changed setting has reset the layers
    faulty.errors = [error]
    await send("bad", 1)
    async with faulty.subscribe("bad") as events, outbox.relay():
        assert await numbers(events, 1) == [1]


@pytest.mark.slow
async def test_relays_that_are_cancelled_anywhere_send_once_in_order(database: Any, layer_block: LayerBlock) -> None:
    count = 40
    async with layer_block() as layer, layer.subscribe("g") as events, layer.subscribe("h") as others:
        await send("g", *range(count))
        await send("h", *range(count))
        for step in range(40):
            with trio.move_on_after(0.002 * step):
                await outbox.run_relay()
        async with outbox.relay():
            assert await numbers(events, count) == list(range(count))
            assert await numbers(others, count) == list(range(count))
            await until_empty()
            await layer.group_send("g", {"type": "t", "n": count})
            assert await numbers(events, 1) == [count]
    assert await RelayLease.objects.exclude(holder="").acount() == 0
