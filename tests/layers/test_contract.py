"""The contract of every channel layer. A new backend is one more entry in LAYERS.

A backend may deliver a moment after the send. So tests wait for each expected message, with a deadline. A last message
shows that nothing else came: it arrives behind all messages before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.exceptions import (
    ChannelFull,
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidNameError,
    MailboxOverflow,
    MessageNotEncodable,
)
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer, Gap, LayerStatistics
from trio_channels.layers.hub import PART
from trio_channels.layers.local import LocalDelivery
from trio_channels.layers.redis import RedisStreamsChannelLayer

from .conftest import redis_cluster_hosts, redis_url
from .crowd import MANY, Crowd


@dataclass(frozen=True)
class LayerCase:
    """A backend under test.

    Args:
        name: for the test's id.
        make: takes the layer's options; returns a context manager that opens the layer.
        virtual_clock: whether its expiry follows Trio's clock, so that a virtual one can be used.
        exact_capacity: whether the full mailbox itself refuses a sender, and not the inbox of its whole process.
        reusable: whether the layer still works after it was closed, without being opened again.
        needs: the fixture that starts its servers.
    """

    name: str
    make: Callable[..., AbstractAsyncContextManager[ChannelLayer]]
    virtual_clock: bool
    exact_capacity: bool = True
    reusable: bool = True
    needs: str | None = None


def redis_layer(**options: Any) -> AbstractAsyncContextManager[ChannelLayer]:
    return RedisStreamsChannelLayer(hosts=[redis_url()], prefix=f"test-{next(_prefixes)}", **options)


def redis_cluster_layer(**options: Any) -> AbstractAsyncContextManager[ChannelLayer]:
    return RedisStreamsChannelLayer(hosts=redis_cluster_hosts(), prefix=f"test-{next(_prefixes)}", **options)


_prefixes = itertools.count()

LAYERS = [
    LayerCase("memory", InMemoryChannelLayer, virtual_clock=True),
    LayerCase("redis", redis_layer, virtual_clock=False, exact_capacity=False, reusable=False, needs="redis_server"),
    LayerCase(
        "redis_cluster",
        redis_cluster_layer,
        virtual_clock=False,
        exact_capacity=False,
        reusable=False,
        needs="redis_cluster",
    ),
]

with_virtual_clock = pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.virtual_clock], ids=lambda case: case.name, indirect=True
)
with_exact_capacity = pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.exact_capacity], ids=lambda case: case.name, indirect=True
)
reusable_after_close = pytest.mark.parametrize(
    "case", [case for case in LAYERS if case.reusable], ids=lambda case: case.name, indirect=True
)

DEADLINE = 5  # seconds within which an expected event must happen; only a failing test waits as long
LAST = {"type": "last"}

BAD_NAMES = ["", "a" * 100, "with space", "umlaut-\u00e4", "newline\n", "\u0661\u0662", "a/b", "a\0", None, 5, b"bytes"]
UNENCODABLE = {
    "an object": {"type": "x", "value": object()},
    "a large int": {"type": "x", "value": 2**64},
    "half a surrogate pair": {"type": "x", "value": "\ud800"},
    "a function": {"type": "x", "value": lambda: None},
    "a key that is no str": {5: "not a str"},
    "a list": ["not", "a", "dict"],
    "None": None,
}


@pytest.fixture(params=LAYERS, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> LayerCase:
    if request.param.needs:
        request.getfixturevalue(request.param.needs)
    return request.param


@pytest.fixture
async def layer(case: LayerCase) -> AsyncIterator[ChannelLayer]:
    async with case.make() as layer:
        yield layer


@pytest.fixture
def clock(mock_clock: trio.testing.MockClock) -> trio.testing.MockClock:
    return mock_clock


def message(number: int, **more: Any) -> dict[str, Any]:
    return {"type": "test.message", "n": number, **more}


async def next_of(events: AsyncIterator[Any]) -> Any:
    with trio.fail_after(DEADLINE):
        return await anext(events)


async def until_last(events: AsyncIterator[Any]) -> list[Any]:
    """The items before the last message, which must come."""
    items = []
    while (item := await next_of(events)) != LAST:
        items.append(item)
    return items


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - a layer's tables raise no event
            await trio.sleep(0.001)


def numbers(items: list[Any]) -> list[int]:
    return [item["n"] for item in items if not isinstance(item, Gap)]


def tables(layer: ChannelLayer) -> tuple[int, int, int, int]:
    seen = layer.statistics()
    return seen.channels, seen.groups, seen.memberships, seen.waiting


@contextmanager
def cancelled_at_checkpoint(number: int) -> Iterator[trio.CancelScope]:
    """Cancel the block at the n-th checkpoint of its task; shielded checkpoints count, too."""
    names = ("checkpoint", "checkpoint_if_cancelled", "cancel_shielded_checkpoint", "wait_task_rescheduled")
    originals = {name: getattr(trio.lowlevel, name) for name in names}
    task, passed = trio.lowlevel.current_task(), 0

    with trio.CancelScope() as scope:

        def counting(original: Callable[..., Any]) -> Callable[..., Any]:
            async def checkpoint(*args: Any) -> Any:
                nonlocal passed
                if trio.lowlevel.current_task() is task:
                    passed += 1
                    if passed == number:
                        scope.cancel()
                return await original(*args)

            return checkpoint

        try:
            for name, original in originals.items():
                setattr(trio.lowlevel, name, counting(original))
            yield scope
        finally:
            for name, original in originals.items():
                setattr(trio.lowlevel, name, original)


# -- groups -----------------------------------------------------------------------------------------------------------


async def test_group_message_reaches_every_member_and_nobody_else(layer: ChannelLayer) -> None:
    async with (
        layer.subscribe("room") as first,
        layer.subscribe("room", "other") as second,
        layer.subscribe("other") as outsider,
    ):
        await layer.group_send("room", message(1))
        await layer.group_send("room", LAST)
        await layer.group_send("other", LAST)
        assert numbers(await until_last(first)) == [1]
        assert numbers(await until_last(second)) == [1]
        assert await until_last(outsider) == []


async def test_message_to_a_group_without_members_is_no_error(layer: ChannelLayer) -> None:
    await layer.group_send("nobody", message(1))
    assert layer.statistics().group_sent == 1


async def test_each_senders_messages_arrive_in_order(layer: ChannelLayer) -> None:
    count = 20

    async def sender(name: str) -> None:
        for number in range(count):
            await layer.group_send("room", message(number, sender=name))

    async with layer.subscribe("room") as first, layer.subscribe("room") as second:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(sender, name)
        await layer.group_send("room", LAST)
        for events in (first, second):
            items = await until_last(events)
            for name in "abc":
                assert [item["n"] for item in items if item["sender"] == name] == list(range(count))


async def test_messages_to_one_channel_arrive_in_the_order_sent(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    for number in range(20):
        await layer.send(channel, message(number))
    with trio.fail_after(DEADLINE):
        assert [(await layer.receive(channel))["n"] for _ in range(20)] == list(range(20))


async def test_channel_added_twice_is_a_member_once(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await layer.group_add("room", mailbox.name)
        assert layer.statistics().memberships == 1
        await layer.group_send("room", message(1))
        await layer.group_send("room", LAST)
        with trio.fail_after(DEADLINE):
            assert [await mailbox.get(), await mailbox.get()] == [message(1), LAST]


async def test_discarded_member_gets_nothing_more(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await layer.group_discard("room", mailbox.name)
        await layer.group_send("room", message(1))
        await layer.send(mailbox.name, LAST)
        with trio.fail_after(DEADLINE):
            assert await mailbox.get() == LAST
        assert tables(layer) == (1, 0, 0, 0)


@pytest.mark.parametrize("channel", ["named", "specific!0123"])
async def test_discarding_what_is_no_member_does_nothing(layer: ChannelLayer, channel: str) -> None:
    async with layer.subscribe("room") as events:
        await layer.group_discard("room", channel)
        await layer.group_discard("empty", channel)
        await layer.group_send("room", LAST)
        assert await until_last(events) == []


async def test_leaving_one_group_keeps_the_others(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("one", mailbox.name)
        await layer.group_add("two", mailbox.name)
        await layer.group_discard("one", mailbox.name)
        await layer.group_send("two", LAST)
        with trio.fail_after(DEADLINE):
            assert await mailbox.get() == LAST
        assert mailbox.groups == {"two"}


async def test_missing_local_channel_cannot_become_a_member(layer: ChannelLayer) -> None:
    await layer.group_add("room", "specific!gone")
    assert tables(layer) == (0, 0, 0, 0)


async def test_named_channel_can_be_a_member(layer: ChannelLayer) -> None:
    await layer.group_add("room", "jobs")
    await layer.group_send("room", message(1))
    with trio.fail_after(DEADLINE):
        assert await layer.receive("jobs") == message(1)


@pytest.mark.parametrize("overflow", ["close", "drop_newest", "drop_oldest"])
async def test_group_send_is_not_affected_by_a_full_member(case: LayerCase, overflow: Any) -> None:
    async with (
        case.make(channel_capacity={"subscriber*": 3, "roomy*": 100}) as layer,
        layer.subscribe("room", overflow=overflow),
    ):
        with layer.open_mailbox(prefix="roomy") as roomy:
            await layer.group_add("room", roomy.name)
            for number in range(10):
                await layer.group_send("room", message(number))
            with trio.fail_after(DEADLINE):
                assert numbers([await roomy.get() for _ in range(10)]) == list(range(10))
        await until(lambda: layer.statistics().dropped == 7)


# -- memberships end with their owner ---------------------------------------------------------------------------------


async def test_subscription_ends_its_memberships(layer: ChannelLayer) -> None:
    async with layer.subscribe("one", "two"):
        assert tables(layer) == (1, 2, 2, 0)
    assert tables(layer) == (0, 0, 0, 0)


async def test_subscription_that_fails_ends_its_memberships(layer: ChannelLayer) -> None:
    async def fail() -> None:
        async with layer.subscribe("one"):
            await layer.group_send("one", message(1))
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert tables(layer) == (0, 0, 0, 0)


async def test_subscription_to_a_bad_name_leaves_nothing(layer: ChannelLayer) -> None:
    with pytest.raises(InvalidNameError):
        async with layer.subscribe("good", "bad\n"):
            pass
    assert tables(layer) == (0, 0, 0, 0)


async def test_mailbox_ends_its_memberships(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("one", mailbox.name)
        await layer.group_add("two", mailbox.name)
    assert tables(layer) == (0, 0, 0, 0)
    await layer.group_send("one", message(1))
    assert mailbox.get_nowait() is None


async def test_statistics_return_to_zero_after_use(layer: ChannelLayer) -> None:
    async def member(task_status: trio.TaskStatus[None]) -> None:
        async with layer.subscribe("one", "two") as events:
            task_status.started()
            async for _ in events:
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            await nursery.start(member)
        for number in range(50):
            await layer.group_send("one", message(number))
        await until(lambda: layer.statistics().delivered == 500)
        nursery.cancel_scope.cancel()
    assert replace(layer.statistics(), waited=0) == LayerStatistics(  # `waited` may vary
        channels=0,
        groups=0,
        memberships=0,
        waiting=0,
        sent=0,
        group_sent=50,
        delivered=500,
        dropped=0,
        expired=0,
        full=0,
        gone=0,
    )


# -- one channel, its capacity and expiry -----------------------------------------------------------------------------


@with_exact_capacity
async def test_send_to_a_full_channel_raises(case: LayerCase) -> None:
    async with case.make(capacity=2) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, message(1))
        await layer.send(channel, message(2))
        with pytest.raises(ChannelFull, match=re.escape(channel)):
            await layer.send(channel, message(3))
        with trio.fail_after(DEADLINE):
            assert await layer.receive(channel) == message(1)
            await layer.send(channel, message(4))
            assert [await layer.receive(channel), await layer.receive(channel)] == [message(2), message(4)]
        assert (layer.statistics().sent, layer.statistics().full) == (3, 1)


@with_exact_capacity
async def test_send_to_a_full_connection_raises_and_does_not_close_it(case: LayerCase) -> None:
    async with case.make(capacity=1, overflow="close") as layer:
        with layer.open_mailbox() as mailbox:
            await layer.send(mailbox.name, message(1))
            with pytest.raises(ChannelFull):
                await layer.send(mailbox.name, message(2))
            assert not mailbox.overflowed
            with trio.fail_after(DEADLINE):
                assert await mailbox.get() == message(1)


async def test_first_pattern_that_matches_gives_the_capacity(case: LayerCase) -> None:
    patterns = {"http.*": 1, re.compile("special"): 2, "s*": 3}
    async with case.make(capacity=4, channel_capacity=patterns) as layer:
        assert [layer.get_capacity(name) for name in ("http.a", "slow", "special!a", "other")] == [1, 3, 2, 4]


async def test_pattern_gives_a_named_channel_its_capacity(case: LayerCase) -> None:
    async with case.make(capacity=5, channel_capacity={"small.*": 1}) as layer:
        await layer.send("small.jobs", message(1))
        with pytest.raises(ChannelFull):
            await layer.send("small.jobs", message(2))


async def test_new_channel_has_a_name_of_its_own(layer: ChannelLayer) -> None:
    names = {await layer.new_channel("worker") for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith("worker") and "!" in name for name in names)


@pytest.mark.parametrize("prefix", ["", "a!b", "a\n", "a" * 90])
async def test_bad_channel_prefix_is_refused(layer: ChannelLayer, prefix: str) -> None:
    with pytest.raises(InvalidNameError, match="prefix"):
        await layer.new_channel(prefix)
    assert tables(layer) == (0, 0, 0, 0)


async def test_each_message_goes_to_one_of_the_tasks_that_receive(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    got: list[int] = []

    async def receiver() -> None:
        got.append((await layer.receive(channel))["n"])

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(receiver)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(5):
                await layer.send(channel, message(number))
    assert sorted(got) == list(range(5))


async def test_burst_to_waiting_receivers_does_not_count_as_a_backlog(case: LayerCase) -> None:
    async with case.make(capacity=1) as layer:
        channel = await layer.new_channel()
        got: list[int] = []

        async def receiver() -> None:
            got.append((await layer.receive(channel))["n"])

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(receiver)
                await trio.testing.wait_all_tasks_blocked()
                async with trio.open_nursery() as senders:
                    for number in range(5):
                        senders.start_soon(layer.send, channel, message(number))
        assert sorted(got) == list(range(5))


async def test_message_to_a_gone_local_channel_is_counted(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        pass
    await layer.send(mailbox.name, message(1))
    await until(lambda: layer.statistics().gone == 1)
    assert tables(layer) == (0, 0, 0, 0)


@with_virtual_clock
async def test_what_has_expired_is_reported_as_a_gap(case: LayerCase, clock: trio.testing.MockClock) -> None:
    async with case.make(expiry=10) as layer, layer.subscribe("room") as events:
        await layer.group_send("room", message(1))
        await layer.group_send("room", message(2))
        clock.jump(5)
        await layer.group_send("room", message(3))
        clock.jump(5)
        assert [await anext(events), await anext(events)] == [Gap(2, "expired"), message(3)]
        assert layer.statistics().expired == 2


@with_virtual_clock
async def test_receive_passes_over_what_has_expired(case: LayerCase, clock: trio.testing.MockClock) -> None:
    async with case.make(expiry=10) as layer:
        await layer.send("jobs", message(1))
        clock.jump(10)
        await layer.send("jobs", message(2))
        assert await layer.receive("jobs") == message(2)


@with_virtual_clock
async def test_expired_messages_make_room(case: LayerCase, clock: trio.testing.MockClock) -> None:
    async with case.make(expiry=10, capacity=2) as layer:
        for _ in range(3):
            await layer.send("jobs", message(1))
            await layer.send("jobs", message(2))
            with pytest.raises(ChannelFull):
                await layer.send("jobs", message(3))
            clock.jump(10)
        assert (layer.statistics().sent, layer.statistics().full) == (6, 3)


# -- reports to a receiver that falls behind --------------------------------------------------------------------------


async def test_drop_newest_tells_of_the_loss_after_what_was_kept(case: LayerCase) -> None:
    async with case.make(capacity=2) as layer, layer.subscribe("room", overflow="drop_newest") as events:
        for number in range(5):
            await layer.group_send("room", message(number))
        await until(lambda: layer.statistics().dropped == 3)
        assert [await next_of(events) for _ in range(3)] == [message(0), message(1), Gap(3, "overflow")]
        await layer.group_send("room", LAST)
        assert await until_last(events) == []


async def test_drop_oldest_tells_of_the_loss_before_what_was_kept(case: LayerCase) -> None:
    async with case.make(capacity=2) as layer, layer.subscribe("room", overflow="drop_oldest") as events:
        for number in range(5):
            await layer.group_send("room", message(number))
        await until(lambda: layer.statistics().dropped == 3)
        assert [await next_of(events) for _ in range(3)] == [Gap(3, "overflow"), message(3), message(4)]


async def test_drop_newest_puts_each_gap_in_its_place(case: LayerCase) -> None:
    async with case.make(capacity=2) as layer, layer.subscribe("room", overflow="drop_newest") as events:
        for number in range(3):
            await layer.group_send("room", message(number))
        await until(lambda: layer.statistics().dropped == 1)
        assert await next_of(events) == message(0)
        await layer.group_send("room", LAST)
        assert await until_last(events) == [message(1), Gap(1, "overflow")]


async def test_subscriber_that_falls_behind_is_told_by_an_error(case: LayerCase) -> None:
    async with case.make(capacity=2, overflow="close") as layer, layer.subscribe("room") as events:
        for number in range(3):
            await layer.group_send("room", message(number))
        await until(lambda: layer.statistics().dropped == 1)
        for _ in range(2):
            with pytest.raises(MailboxOverflow, match="2 messages behind"):
                await next_of(events)


async def test_unknown_overflow_rule_is_refused_where_it_is_given(layer: ChannelLayer) -> None:
    with pytest.raises(InvalidChannelLayerError, match="drop_everything"):
        layer.open_mailbox(overflow="drop_everything")  # type: ignore[arg-type]
    with pytest.raises(InvalidChannelLayerError, match="drop_everything"):
        async with layer.subscribe("room", overflow="drop_everything"):  # type: ignore[arg-type]
            pass
    assert tables(layer) == (0, 0, 0, 0)


# -- flush and close --------------------------------------------------------------------------------------------------


async def test_flush_forgets_messages_and_memberships_and_says_so(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        await layer.group_send("room", message(1))
        await layer.group_send("room", message(2))
        await until(lambda: layer.statistics().waiting == 2)
        await layer.flush()
        assert tables(layer) == (1, 0, 0, 0)
        assert await next_of(events) == Gap(2, "flushed")
        await layer.group_send("room", message(3))
        with trio.move_on_after(0):
            pytest.fail(f"a member no more, but got {await anext(events)}")


async def test_flush_tells_a_member_to_whom_no_message_was_on_its_way(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events, layer.subscribe() as outsider:
        await layer.flush()
        assert await next_of(events) == Gap(0, "flushed")
        with trio.move_on_after(0):
            pytest.fail(f"lost nothing, but got {await anext(outsider)}")


async def test_second_flush_does_not_hide_what_the_first_one_lost(case: LayerCase) -> None:
    async with case.make(capacity=2) as layer, layer.subscribe("room", overflow="drop_newest") as events:
        for number in range(5):
            await layer.group_send("room", message(number))
        await until(lambda: layer.statistics().dropped == 3)
        await layer.flush()
        await layer.flush()
        gaps = {await next_of(events), await next_of(events)}
        assert gaps == {Gap(2, "flushed"), Gap(3, "overflow")}


async def test_flushed_layer_works_on(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await layer.flush()
        await layer.group_add("room", mailbox.name)
        await layer.group_send("room", LAST)
        with trio.fail_after(DEADLINE):
            assert [await mailbox.get(), await mailbox.get()] == [Gap(0, "flushed"), LAST]


async def test_closing_ends_who_receives_and_may_be_repeated(case: LayerCase) -> None:
    async with case.make() as layer:
        channel = await layer.new_channel()

        async def receiver() -> None:
            with pytest.raises(ChannelLayerUnavailable, match=re.escape(channel)):
                await layer.receive(channel)

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receiver)
                await trio.testing.wait_all_tasks_blocked()
                await layer.close()
        await layer.close()
        assert tables(layer) == (0, 0, 0, 0)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
async def test_bad_name_is_refused_by_every_call(layer: ChannelLayer, name: Any) -> None:
    for call in (
        lambda: layer.send(name, LAST),
        lambda: layer.receive(name),
        lambda: layer.group_send(name, LAST),
        lambda: layer.group_add(name, "channel"),
        lambda: layer.group_add("group", name),
        lambda: layer.group_discard(name, "channel"),
        lambda: layer.group_discard("group", name),
    ):
        with pytest.raises(InvalidNameError):
            await call()
    assert tables(layer) == (0, 0, 0, 0)


async def test_group_name_must_not_look_process_local(layer: ChannelLayer) -> None:
    with pytest.raises(InvalidNameError):
        await layer.group_send("a!b", LAST)


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", UNENCODABLE.values(), ids=UNENCODABLE)
async def test_message_that_cannot_travel_is_refused_and_nothing_sent(layer: ChannelLayer, bad: Any) -> None:
    async with layer.subscribe("room") as events:
        with pytest.raises(MessageNotEncodable):
            await layer.group_send("room", bad)
        with pytest.raises(MessageNotEncodable):
            await layer.send("jobs", bad)
        await layer.group_send("room", LAST)
        assert await until_last(events) == []
        assert (layer.statistics().sent, layer.statistics().group_sent) == (0, 1)


async def test_what_a_receiver_changes_the_other_receivers_do_not_see(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as first, layer.subscribe("room") as second:
        await layer.group_send("room", message(1))
        received = await next_of(first)
        received["n"] = 2
        received["more"] = 3
        assert await next_of(second) == message(1)


async def test_what_the_sender_changes_afterwards_nobody_sees(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        sent = message(1, nested={"list": [1]})
        await layer.group_send("room", sent)
        sent["n"] = 2
        sent["nested"]["list"].append(2)
        assert await next_of(events) == message(1, nested={"list": [1]})


async def test_what_is_not_nested_deeper_arrives_as_it_was_sent(layer: ChannelLayer) -> None:
    values = {"text": "\u00e4\U0001f600", "bytes": b"\0\xff", "int": -(2**63), "float": 0.5, "none": None, "yes": True}
    channel = await layer.new_channel()
    await layer.send(channel, message(1, **values, list=[1, {"deep": [b"x"]}]))
    with trio.fail_after(DEADLINE):
        assert await layer.receive(channel) == message(1, **values, list=[1, {"deep": [b"x"]}])


async def test_tuples_arrive_as_lists(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.send(channel, message(1, value=(1, (2,))))
    with trio.fail_after(DEADLINE):
        assert (await layer.receive(channel))["value"] == [1, [2]]


# -- mailboxes --------------------------------------------------------------------------------------------------------


async def test_mailbox_rings_when_something_is_put_in(layer: ChannelLayer) -> None:
    rung = trio.Event()
    with layer.open_mailbox(ring=rung.set) as mailbox:
        await layer.send(mailbox.name, message(1))
        with trio.fail_after(DEADLINE):
            await rung.wait()
        assert mailbox.get_nowait() == message(1)


async def test_mailbox_rings_when_it_overflows(case: LayerCase) -> None:
    async with case.make(capacity=1) as layer:
        rings: list[bool] = []
        with layer.open_mailbox(ring=lambda: rings.append(mailbox.overflowed)) as mailbox:
            await layer.group_add("room", mailbox.name)
            await layer.group_send("room", message(1))
            await layer.group_send("room", message(2))
            await until(lambda: len(rings) == 2)
            assert rings == [False, True]


# -- cancellation, at every checkpoint of every call ------------------------------------------------------------------


async def check_all_or_nothing(
    layer: ChannelLayer, call: Callable[[], Any], done: Callable[[], bool], undo: Callable[[], Any]
) -> None:
    """Cancel a call at each of its checkpoints in turn; the call must take effect unless it was cancelled."""
    for number in range(1, 1000):
        with cancelled_at_checkpoint(number) as scope:
            await call()
        if not scope.cancelled_caught:
            await until(done)
        await undo()
        if not scope.cancel_called:
            return
    pytest.fail("the call never ended")


async def test_cancelled_group_add_happens_or_not(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await check_all_or_nothing(
            layer,
            lambda: layer.group_add("room", mailbox.name),
            lambda: layer.statistics().memberships == 1,
            lambda: layer.group_discard("room", mailbox.name),
        )
        assert tables(layer) == (1, 0, 0, 0)
        assert mailbox.groups == set()


async def test_cancelled_group_discard_happens_or_not(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await check_all_or_nothing(
            layer,
            lambda: layer.group_discard("room", mailbox.name),
            lambda: layer.statistics().memberships == 0,
            lambda: layer.group_add("room", mailbox.name),
        )
        assert tables(layer) == (1, 1, 1, 0)


async def test_cancelled_group_send_reaches_all_members_once_or_none(layer: ChannelLayer) -> None:
    for number in range(1, 1000):
        async with layer.subscribe("room") as first, layer.subscribe("room") as second:
            with cancelled_at_checkpoint(number) as scope:
                await layer.group_send("room", message(number))
            await layer.group_send("room", LAST)
            got = numbers(await until_last(first))
            assert got == numbers(await until_last(second))
            assert got == [number] or (got == [] and scope.cancelled_caught)
        assert tables(layer) == (0, 0, 0, 0)
        if not scope.cancel_called:
            break


async def test_cancelled_send_arrives_once_or_not_at_all(layer: ChannelLayer) -> None:
    for number in range(1, 1000):
        with layer.open_mailbox() as mailbox:
            with cancelled_at_checkpoint(number) as scope:
                await layer.send(mailbox.name, message(number))
            await layer.send(mailbox.name, LAST)
            got = []
            with trio.fail_after(DEADLINE):
                while (item := await mailbox.get()) != LAST:
                    got.append(item)
            assert got == [message(number)] or (got == [] and scope.cancelled_caught)
        assert tables(layer) == (0, 0, 0, 0)
        if not scope.cancel_called:
            break


async def test_cancelled_subscribe_leaves_nothing(layer: ChannelLayer) -> None:
    for number in range(1, 1000):
        with cancelled_at_checkpoint(number) as scope:
            async with layer.subscribe("one", "two"):
                await layer.group_send("one", message(number))
        assert tables(layer) == (0, 0, 0, 0)
        if not scope.cancel_called:
            break


async def test_cancelled_iteration_loses_no_message(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        got: list[int] = []
        for number in range(1, 1000):
            await layer.group_send("room", message(number))
            with cancelled_at_checkpoint(number) as scope:
                got.append((await next_of(events))["n"])
            if not scope.cancel_called:
                break
        await layer.group_send("room", LAST)
        got += numbers(await until_last(events))
        assert got == list(range(1, number + 1))


async def test_cancelled_wait_for_a_message_loses_none_that_comes_later(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        scopes: list[trio.CancelScope] = []

        async def wait(number: int) -> None:
            with cancelled_at_checkpoint(number) as scope:
                scopes.append(scope)
                await anext(events)

        for number in range(1, 1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, number)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            if not scopes[-1].cancel_called:
                break
        await layer.group_send("room", message(1))
        await layer.group_send("room", LAST)
        assert numbers(await until_last(events)) == [1]


async def test_cancelled_receive_loses_no_message(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    got: list[int] = []
    for number in range(1, 1000):
        await layer.send(channel, message(number))
        with trio.fail_after(DEADLINE), cancelled_at_checkpoint(number) as scope:
            got.append((await layer.receive(channel))["n"])
        if not scope.cancel_called:
            break
    with trio.fail_after(DEADLINE):
        while len(got) < number:
            got.append((await layer.receive(channel))["n"])
    assert got == list(range(1, number + 1))


async def test_receiver_cancelled_and_served_at_once_loses_nothing(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    got: list[int] = []

    async def receiver() -> None:
        got.append((await layer.receive(channel))["n"])

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver)
            await trio.testing.wait_all_tasks_blocked()
            await layer.send(channel, message(1))
            nursery.cancel_scope.cancel()
        await layer.send(channel, message(2))
        while 2 not in got:
            got.append((await layer.receive(channel))["n"])
    assert got == [1, 2]


async def test_cancelled_new_channel_leaves_nothing(layer: ChannelLayer) -> None:
    for number in range(1, 1000):
        before = layer.statistics().channels
        with cancelled_at_checkpoint(number) as scope:
            await layer.new_channel()
        assert layer.statistics().channels == before + (not scope.cancelled_caught)
        if not scope.cancel_called:
            break


async def test_cancelled_flush_leaves_a_layer_that_works(layer: ChannelLayer) -> None:
    await _works_after_each_cancelled(layer, "flush")


@reusable_after_close
async def test_cancelled_close_leaves_a_layer_that_works(layer: ChannelLayer) -> None:
    await _works_after_each_cancelled(layer, "close")


async def _works_after_each_cancelled(layer: ChannelLayer, call: str) -> None:
    for number in range(1, 1000):
        async with layer.subscribe("room") as events:
            with cancelled_at_checkpoint(number) as scope:
                await getattr(layer, call)()
            if call == "flush" and not scope.cancelled_caught:
                assert await next_of(events) == Gap(0, "flushed")
            else:
                await layer.group_send("room", LAST)
                assert [item for item in await until_last(events) if not isinstance(item, Gap)] == []
        assert replace(layer.statistics(), group_sent=0, delivered=0, waited=0) == LayerStatistics(*[0] * 11)
        if not scope.cancel_called:
            break


# -- large groups -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def crowd(case: LayerCase) -> AsyncIterator[Crowd]:
    async with case.make(capacity=100) as layer:
        assert isinstance(layer, LocalDelivery)
        with ExitStack() as stack:
            crowd = Crowd(layer, stack)
            await crowd.join()
            yield crowd


async def test_large_group_is_sent_to_in_parts(crowd: Crowd) -> None:
    seen = [0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        while seen[-1] < MANY:
            await trio.lowlevel.checkpoint()
            seen.append(sum(mailbox.statistics().waiting for mailbox in crowd.mailboxes))
    # Between two turns of one task, another task has at most two: each round of the scheduler has a random order.
    assert max(after - before for before, after in pairwise(seen)) <= 2 * PART
    assert crowd.take() == [[1]] * MANY


async def test_all_members_of_a_large_group_see_one_order(crowd: Crowd) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(crowd.send, number)
    await crowd.at(-1, 20)
    first, *others = crowd.take()
    assert sorted(first) == list(range(20))
    assert others == [first] * (MANY - 1)


async def test_leaving_or_joining_mid_send_gets_nothing(crowd: Crowd) -> None:
    *_, stays, leaves = crowd.mailboxes
    with crowd.layer.open_mailbox() as newcomer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.send, 1)
            await crowd.at(0)
            await crowd.layer.group_discard("crowd", leaves.name)
            await crowd.layer.group_add("crowd", newcomer.name)
            assert not stays.statistics().waiting
        await crowd.at(-2)
        assert crowd.take() == [[1]] * (MANY - 1) + [[]]
        assert newcomer.get_nowait() is None
