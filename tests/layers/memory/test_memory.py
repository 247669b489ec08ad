"""Features of the in-memory layer alone: several Trio runs on one layer, the sweep, atomic cancellation."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidChannelLayerError, InvalidNameError
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.hub import SWEEP_INTERVAL, Hub
from trio_channels.layers.message import Gap

from ..crowd import MANY, Crowd
from ..test_contract import cancelled_at_checkpoint, message, tables, until

DEADLINE = 10  # seconds of real time after which a test with threads gives up


class OtherRun:
    """A second Trio run, in a thread, that runs functions on request."""

    def __enter__(self) -> OtherRun:
        started = threading.Event()

        async def main() -> None:
            self.token = trio.lowlevel.current_trio_token()
            self.stop = trio.Event()
            started.set()
            with trio.fail_after(DEADLINE):
                await self.stop.wait()

        self.thread = threading.Thread(target=trio.run, args=(main,))
        self.thread.start()
        assert started.wait(DEADLINE)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.end()

    def end(self) -> None:
        if self.thread.is_alive():
            self.token.run_sync_soon(self.stop.set)
            self.thread.join(DEADLINE)
        assert not self.thread.is_alive()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run an async function there, and wait here for its result."""

        def in_thread() -> Any:
            return trio.from_thread.run(function, *args, trio_token=self.token)

        with trio.fail_after(DEADLINE):
            return await trio.to_thread.run_sync(in_thread)


@pytest.fixture
def other() -> Iterator[OtherRun]:
    with OtherRun() as run:
        yield run


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer(capacity=2)


async def next_item(mailbox: Any) -> Any:
    with trio.fail_after(DEADLINE):
        return await mailbox.get()


# -- several runs -----------------------------------------------------------------------------------------------------


async def test_group_message_reaches_members_in_every_run(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await other.call(layer.group_send, "room", message(1))
        assert await next_item(mailbox) == message(1)


async def test_message_to_a_channel_reaches_it_in_another_run(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    with layer.open_mailbox() as mailbox:
        await other.call(layer.send, mailbox.name, message(1))
        assert await next_item(mailbox) == message(1)
    await until(lambda: layer.statistics().sent == 1)


async def test_another_run_can_add_and_discard_members(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    with layer.open_mailbox() as mailbox:
        await other.call(layer.group_add, "room", mailbox.name)
        await other.call(layer.group_send, "room", message(1))
        assert await next_item(mailbox) == message(1)
        await other.call(layer.group_discard, "room", mailbox.name)
        await until(lambda: layer.statistics().memberships == 0)
        assert mailbox.groups == set()


async def test_messages_of_one_sender_keep_their_order_across_runs(other: OtherRun) -> None:
    layer = InMemoryChannelLayer()

    async def send_all(channel: str) -> None:
        for number in range(20):
            await layer.send(channel, message(2 * number))
            await layer.group_send("room", message(2 * number + 1))

    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        await other.call(send_all, mailbox.name)
        assert [(await next_item(mailbox))["n"] for _ in range(40)] == list(range(40))


async def test_full_channel_in_another_run_refuses(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.send(mailbox.name, message(1))
        await layer.send(mailbox.name, message(2))
        with pytest.raises(ChannelFull, match=re.escape(mailbox.name)):
            await other.call(layer.send, mailbox.name, message(3))
        assert layer.statistics().full == 1
        assert [mailbox.get_nowait(), mailbox.get_nowait(), mailbox.get_nowait()] == [message(1), message(2), None]


async def test_full_channel_of_another_run_drops_expired_messages(other: OtherRun) -> None:
    layer = InMemoryChannelLayer(capacity=1, expiry=1e-9)
    with layer.open_mailbox() as mailbox:
        await layer.send(mailbox.name, message(1))
        with trio.fail_after(DEADLINE):
            while True:
                try:
                    await other.call(layer.send, mailbox.name, message(2))
                except ChannelFull:
                    continue
                break
        await until(lambda: layer.statistics().sent == 2)


async def test_message_to_a_full_channel_is_counted_as_dropped(other: OtherRun) -> None:
    layer = InMemoryChannelLayer(capacity=1, overflow="drop_newest")

    async def send_two(channel: str) -> None:
        layer._send(channel, message(1))
        layer._send(channel, message(2))

    with layer.open_mailbox() as mailbox:
        # The join blocks this run: it takes neither message before both are sent.
        function = partial(trio.from_thread.run, send_two, mailbox.name, trio_token=other.token)
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(DEADLINE)
        await until(lambda: layer.statistics().dropped == 1)
        assert layer.statistics().sent == 1
        assert mailbox.get_nowait() == message(1)


async def test_message_that_finds_its_channel_gone_on_arrival_is_counted(
    layer: InMemoryChannelLayer, other: OtherRun
) -> None:
    with layer.open_mailbox() as mailbox:
        function = partial(trio.from_thread.run, layer.send, mailbox.name, message(1), trio_token=other.token)
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(DEADLINE)
    await until(lambda: layer.statistics().gone == 1)


async def test_member_that_is_gone_on_arrival_is_not_added(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    with layer.open_mailbox() as mailbox:
        function = partial(trio.from_thread.run, layer.group_add, "room", mailbox.name, trio_token=other.token)
        thread = threading.Thread(target=function)
        thread.start()
        thread.join(DEADLINE)
    await trio.testing.wait_all_tasks_blocked()
    assert layer.statistics().memberships == 0


async def test_flush_reaches_every_run(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    async with layer.subscribe("room"):
        await other.call(layer.flush)
        await until(lambda: layer.statistics().groups == 0)


async def test_named_channel_belongs_to_the_run_that_used_it_first(
    layer: InMemoryChannelLayer, other: OtherRun
) -> None:
    await layer.send("jobs", message(1))
    await other.call(layer.send, "jobs", message(2))
    with trio.fail_after(DEADLINE):
        assert [await layer.receive("jobs"), await layer.receive("jobs")] == [message(1), message(2)]


async def test_run_that_has_ended_leaves_its_named_channels_to_others(
    layer: InMemoryChannelLayer, other: OtherRun
) -> None:
    await layer.group_send("nobody", message(0))  # this run is known before the other one ends
    await other.call(layer.send, "jobs", message(1))
    other.end()
    await layer.send("jobs", message(2))
    await layer.group_add("room", "jobs")
    await layer.group_send("room", message(3))
    with trio.fail_after(DEADLINE):
        assert [await layer.receive("jobs"), await layer.receive("jobs")] == [message(2), message(3)]


async def test_run_that_has_ended_is_forgotten(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    await layer.group_send("nobody", message(0))
    await other.call(layer.new_channel)
    assert len(layer._hubs) == 2
    other.end()
    await layer.group_send("nobody", message(1))
    assert len(layer._hubs) == 1
    assert layer.statistics().channels == 0


def test_runs_one_after_the_other_share_a_layer(layer: InMemoryChannelLayer) -> None:
    async def use() -> None:
        async with layer.subscribe("room") as events:
            await layer.group_send("room", message(1))
            assert await anext(events) == message(1)
        await layer.send("jobs", message(2))

    for _ in range(3):
        trio.run(use)
        assert len(layer._hubs) == 1


async def test_mailbox_that_ends_while_another_run_looks_at_it_is_gone(
    layer: InMemoryChannelLayer, other: OtherRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with layer.open_mailbox() as mailbox:
        home = layer._hub()
    monkeypatch.setattr(layer, "_home_of", lambda channel: home)  # as it was a moment before
    await other.call(layer.send, mailbox.name, message(1))
    await until(lambda: layer.statistics().gone == 1)


# -- mailboxes that nobody owns ---------------------------------------------------------------------------------------


async def test_channel_that_nobody_uses_is_forgotten(mock_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(group_expiry=100)
    unused = await layer.new_channel()
    await layer.group_add("room", unused)
    mock_clock.jump(90)
    used = await layer.new_channel()
    await layer.group_add("room", used)
    mock_clock.jump(90)
    await layer.group_discard("room", used)
    await layer.group_add("other", used)
    await layer.new_channel()
    assert used in layer._hub().mailboxes
    assert unused not in layer._hub().mailboxes
    assert layer.statistics().groups == 1


async def test_named_channels_that_nobody_uses_are_forgotten_too(mock_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(group_expiry=100)
    for number in range(50):
        await layer.send(f"user.{number}", message(number))
    mock_clock.jump(101)
    await layer.send("user.new", message(1))
    assert layer.statistics().channels == 1


async def test_channel_that_a_task_waits_on_is_in_use(mock_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(group_expiry=100)
    channel, got = await layer.new_channel(), []

    async def receive() -> None:
        got.append(await layer.receive(channel))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1000)
        await layer.new_channel()
        await layer.send(channel, message(1))
    assert got == [message(1)]


async def test_receive_keeps_a_channel_alive(
    mock_clock: trio.testing.MockClock,
) -> None:
    layer = InMemoryChannelLayer(group_expiry=100)
    await layer.send("jobs", message(1))
    mock_clock.jump(99)
    with trio.move_on_after(0):
        await layer.receive("jobs")
    mock_clock.jump(SWEEP_INTERVAL)
    await layer.new_channel()
    assert "jobs" in layer._hub().mailboxes


async def test_mailbox_of_a_connection_is_never_swept(mock_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(group_expiry=1)
    with layer.open_mailbox():
        mock_clock.jump(1_000_000)
        await layer.new_channel()
        assert layer.statistics().channels == 2


async def test_close_ends_only_the_channels_that_nobody_owns(layer: InMemoryChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.new_channel()
        await layer.close()
        assert list(layer._hub().mailboxes) == [mailbox.name]


async def test_subscription_whose_mailbox_is_closed_ends(layer: InMemoryChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        hub = layer._hub()
        hub.close(next(iter(hub.mailboxes.values())))
        assert [event async for event in events] == []


# -- cancellation is atomic -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["send", "group_send", "group_add", "group_discard", "flush", "new_channel"])
async def test_cancelled_call_has_done_nothing(layer: InMemoryChannelLayer, call: str) -> None:
    with layer.open_mailbox() as mailbox:
        await layer.group_add("old", mailbox.name)
        calls: dict[str, Callable[[], Any]] = {
            "send": lambda: layer.send(mailbox.name, message(1)),
            "group_send": lambda: layer.group_send("old", message(1)),
            "group_add": lambda: layer.group_add("new", mailbox.name),
            "group_discard": lambda: layer.group_discard("old", mailbox.name),
            "flush": layer.flush,
            "new_channel": layer.new_channel,
        }
        before, groups = layer.statistics(), set(mailbox.groups)
        outcomes = []
        for number in range(1, 5):
            with cancelled_at_checkpoint(number) as scope:
                await calls[call]()
            outcomes.append(scope.cancelled_caught)
            if not scope.cancelled_caught:
                break
            assert (layer.statistics(), mailbox.groups) == (before, groups)
        assert (layer.statistics(), mailbox.groups) != (before, groups)
        assert outcomes[0]
        assert not outcomes[-1]


@pytest.mark.parametrize("call", ["send", "group_send", "group_add", "group_discard", "flush", "close", "new_channel"])
async def test_every_call_is_a_checkpoint(layer: InMemoryChannelLayer, call: str) -> None:
    arguments = {
        "send": ("c", message(1)),
        "group_send": ("g", message(1)),
        "flush": (),
        "close": (),
        "new_channel": (),
    }
    with trio.testing.assert_checkpoints():
        await getattr(layer, call)(*arguments.get(call, ("g", "c")))


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"expiry": 0},
        {"expiry": -1},
        {"expiry": "60"},
        {"expiry": None},
        {"expiry": True},
        {"expiry": float("nan")},
        {"group_expiry": 0},
        {"group_expiry": [1]},
        {"capacity": 0},
        {"capacity": 1.5},
        {"capacity": True},
        {"capacity": None},
        {"overflow": "drop"},
        {"overflow": None},
        {"overflow": []},
        {"channel_capacity": {"a*": 0}},
        {"channel_capacity": {"a*": "1"}},
        {"channel_capacity": {5: 1}},
        {"channel_capacity": {re.compile(b"a"): 1}},
        {"channel_capacity": [("a*", 1)]},
    ],
    ids=repr,
)
def test_impossible_option_is_refused_and_named(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=next(iter(options))):
        InMemoryChannelLayer(**options)


def test_defaults_are_those_of_channels() -> None:
    layer = InMemoryChannelLayer(channel_capacity=None)
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (60, 86400, 100)
    assert layer.extensions == ("groups", "flush", "history")


async def test_prefix_that_is_no_str_is_refused_as_a_name(layer: InMemoryChannelLayer) -> None:
    with pytest.raises(InvalidNameError):
        await layer.new_channel([])  # type: ignore[arg-type]


# -- reprs ------------------------------------------------------------------------------------------------------------


async def test_reprs_tell_the_state(layer: InMemoryChannelLayer) -> None:
    async with layer.subscribe("b", "a") as events:
        await layer.group_send("a", message(1))
        assert repr(layer) == "<InMemoryChannelLayer 1 channels, 2 groups, 1 waiting>"
        assert repr(layer._hub()) == "<Hub 1 mailboxes, 2 groups>"
        assert repr(events).startswith("<Subscription to ['a', 'b'] through <Mailbox subscriber!")


# -- the tables on their own ------------------------------------------------------------------------------------------


@pytest.fixture
async def hub() -> Hub:
    return Hub()


async def test_group_without_members_is_not_kept(hub: Hub) -> None:
    mailbox = hub.ownerless("a", 1)
    hub.join("room", mailbox)
    hub.leave("room", "stranger")
    assert hub.groups == {"room": {"a": mailbox}}
    hub.leave("room", "a")
    assert (hub.groups, mailbox.groups) == ({}, set())


async def test_closing_a_mailbox_leaves_the_other_members(hub: Hub) -> None:
    first, second = hub.ownerless("a", 1), hub.ownerless("b", 1)
    hub.join("room", first)
    hub.join("room", second)
    hub.close(first)
    assert hub.groups == {"room": {"b": second}}
    assert hub.mailboxes == {"b": second}


async def test_tables_are_empty_after_an_unavailable_receive(layer: InMemoryChannelLayer) -> None:
    async def receive() -> None:
        with pytest.raises(ChannelLayerUnavailable):
            await layer.receive("jobs")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await layer.close()
    assert tables(layer) == (0, 0, 0, 0)


# -- large groups -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    layer = InMemoryChannelLayer(capacity=100)
    with ExitStack() as stack:
        crowd = Crowd(layer, stack)
        await crowd.join()
        yield crowd


@pytest.mark.parametrize("how", ["to a channel", "to a small group", "to the same group"])
async def test_large_group_sees_the_question_before_the_answer(crowd: Crowd, how: str) -> None:
    layer, last = crowd.layer, crowd.mailboxes[-1]
    await layer.group_add("small", last.name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        await crowd.at(0)
        assert not last.statistics().waiting
        if how == "to a channel":
            await layer.send(last.name, message(2))
        else:
            await layer.group_send("small" if how == "to a small group" else "crowd", message(2))
    assert crowd.take()[-1] == [1, 2]


async def test_message_of_another_run_waits_for_a_large_group_too(crowd: Crowd, other: OtherRun) -> None:
    layer, last = crowd.layer, crowd.mailboxes[-1]
    sent = threading.Event()

    async def from_there() -> None:
        await layer.group_send("crowd", message(2))
        await layer.send(last.name, message(3))
        sent.set()

    async def hold_up() -> None:  # this run does nothing else before the other one's messages wait in its queue
        await crowd.at(0)
        assert not last.statistics().waiting
        other.token.run_sync_soon(trio.lowlevel.spawn_system_task, from_there)
        assert sent.wait(DEADLINE)
        assert not last.statistics().waiting

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        nursery.start_soon(hold_up)
    await until(lambda: last.statistics().waiting == 3)
    got = crowd.take()
    assert got[:-1] == [[1, 2]] * (MANY - 1)
    assert got[-1] == [1, 2, 3]


async def test_cancelled_send_reaches_all_members_or_none(crowd: Crowd) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        await crowd.at(0)
        nursery.cancel_scope.cancel()
    assert crowd.take() == [[1]] * MANY
    with trio.CancelScope() as scope:
        scope.cancel()
        await crowd.send(2)
    assert crowd.take() == [[]] * MANY


async def test_waiting_for_the_turn_can_be_cancelled(crowd: Crowd) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        await crowd.at(0)
        async with trio.open_nursery() as waiting:
            for number in (2, 3):
                waiting.start_soon(crowd.send, number)
            waiting.start_soon(crowd.layer.send, crowd.mailboxes[-1].name, message(4))
            for _ in range(2):  # the first may come before the tasks just started
                await trio.lowlevel.checkpoint()
            waiting.cancel_scope.cancel()
    assert crowd.take() == [[1]] * MANY
    await crowd.send(5)
    assert crowd.take() == [[5]] * MANY


async def test_large_group_flushed_mid_send_gets_a_gap(crowd: Crowd) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        await crowd.at(0)
        await crowd.layer.flush()
    items = [mailbox.get_nowait() for mailbox in crowd.mailboxes]
    assert {(type(item), item.reason) for item in items} == {(Gap, "flushed")}


async def test_refused_message_does_not_keep_the_turn(crowd: Crowd) -> None:
    layer = InMemoryChannelLayer(capacity=1)
    with ExitStack() as stack:
        small = Crowd(layer, stack)
        await small.join()
        name = await layer.new_channel()
        await layer.send(name, message(0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(small.send, 1)
            await small.at(0)
            with pytest.raises(ChannelFull):
                await layer.send(name, message(2))
        assert small.take() == [[1]] * MANY
        await small.send(3)
        assert small.take() == [[3]] * MANY


@pytest.mark.parametrize("then", ["leaves", "is flushed"])
async def test_what_another_run_does_after_its_message_waits_with_it(crowd: Crowd, other: OtherRun, then: str) -> None:
    layer, last = crowd.layer, crowd.mailboxes[-1]
    done = threading.Event()

    async def from_there() -> None:
        await layer.send(last.name, message(2))
        await layer.group_send("crowd", message(3))
        if then == "leaves":
            await layer.group_discard("crowd", last.name)
        else:
            await layer.flush()
        done.set()

    async def hold_up() -> None:
        await crowd.at(0)
        other.token.run_sync_soon(trio.lowlevel.spawn_system_task, from_there)
        assert done.wait(DEADLINE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.send, 1)
        nursery.start_soon(hold_up)
    with trio.fail_after(DEADLINE):
        while "crowd" in last.groups:
            await trio.lowlevel.checkpoint()
    if then == "leaves":
        assert [last.get_nowait() for _ in range(4)] == [message(1), message(2), message(3), None]
    else:
        assert [last.get_nowait() for _ in range(2)] == [Gap(3, "flushed"), None]


async def test_busy_senders_do_not_wait_for_a_large_group(crowd: Crowd) -> None:
    layer = crowd.layer

    async def send_on(name: str) -> None:
        while True:
            await layer.group_send(name, message(0))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(send_on, f"nobody-{number}")
        await crowd.send(1)
        assert not layer._hub().has_turn
        nursery.cancel_scope.cancel()
