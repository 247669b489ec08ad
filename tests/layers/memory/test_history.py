"""Histories of the in-memory layer: several Trio runs share them, old messages are forgotten, turns are kept."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import Gap, Recovery
from trio_channels.layers.history import REMEMBERED_GROUPS, HistoryRules
from trio_channels.layers.hub import PART
from trio_channels.layers.memory import history as memory_history
from trio_channels.layers.memory.history import MemoryHistories

from ..crowd import Crowd
from .test_memory import OtherRun, next_item

HISTORY: dict[str, Any] = {"room*": {"messages": 1000, "seconds": 600}}
MESSAGES = 60


def number_of(item: Any) -> int:
    assert not isinstance(item, Gap), item
    return int(item["history"]["position"].rpartition("-")[2])


class Clock:
    """The clock of the histories, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(memory_history, "now", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def reader(layer: InMemoryChannelLayer, since: str | None, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Get everything once and in order, over many subscriptions."""
    seen: list[int] = []
    while len(seen) < 2 * MESSAGES:
        async with layer.subscribe("room", since=since, overflow="drop_newest") as events:
            assert not seen or events.recovery["room"].recovered
            since = events.recovery["room"].position
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            for _ in range(min(7, 2 * MESSAGES - len(seen))):
                item = await anext(events)  # type: ignore[arg-type]
                seen.append(number_of(item))
                since = item["history"]["position"]
    assert seen == list(range(1, 2 * MESSAGES + 1))


def test_runs_get_the_messages_in_one_order() -> None:
    layer = InMemoryChannelLayer(history=HISTORY, capacity=1000)

    async def run() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    await nursery.start(reader, layer, beginning)
                await trio.to_thread.run_sync(barrier.wait, 30)
                for _ in range(MESSAGES):
                    await layer.group_send("room", {"type": "x"})

    barrier = threading.Barrier(2)
    beginning: str | None = None

    async def two_runs() -> None:
        nonlocal beginning
        beginning = (await layer.history("room")).position
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, trio.run, run)
            nursery.start_soon(run)

    trio.run(two_runs)


def test_channel_of_another_run_gets_no_missed_messages() -> None:
    layer = InMemoryChannelLayer(history=HISTORY)

    async def join(channels: list[str]) -> None:
        position = (await layer.history("room")).position
        joined = [
            await layer.group_add("room", channel, since=since)
            for channel, since in zip(channels, (position, None), strict=True)
        ]
        assert joined == [Recovery(recovered=False, position=None)] * 2
        await layer.group_add("room", "specific!gone")

    async def main() -> None:
        with layer.open_mailbox() as first, layer.open_mailbox() as second:
            await layer.group_send("room", {"type": "before"})
            await trio.to_thread.run_sync(trio.run, join, [first.name, second.name])
            assert await first.get() == Gap(None, "not recovered")
            await layer.group_send("room", {"type": "x"})
            for mailbox in (first, second):
                assert number_of(await mailbox.get()) == 2

    trio.run(main)


async def test_message_that_waits_for_a_turn_is_kept_in_its_turn() -> None:
    layer = InMemoryChannelLayer(history=HISTORY, capacity=10)
    async with layer.subscribe("room") as events, trio.open_nursery() as nursery:
        crowd = [layer.open_mailbox() for _ in range(PART + 1)]
        for opened in crowd:
            await layer.group_add("large", opened.__enter__().name)

        async def send_to_large() -> None:
            await layer.group_send("large", {"type": "x"})

        async def send_to_small() -> None:
            position = await layer.group_send("room", {"type": "x"})
            assert number_of(await anext(events)) == 1  # type: ignore[arg-type]
            assert (await layer.history("room")).position == position

        hub = layer._hub()
        nursery.start_soon(send_to_large)
        while not hub.has_turn:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(send_to_small)
    for opened in crowd:
        opened.__exit__(None, None, None)


async def test_member_that_resumes_during_a_delivery_gets_it_once() -> None:
    layer = InMemoryChannelLayer(history=HISTORY, capacity=10)
    async with trio.open_nursery() as nursery:
        crowd = [layer.open_mailbox() for _ in range(10 * PART + 2)]  # ten rounds of the scheduler: enough to be early
        members = [opened.__enter__() for opened in crowd]
        for member in members:
            await layer.group_add("room", member.name)
        beginning = (await layer.history("room")).position
        nursery.start_soon(layer.group_send, "room", {"type": "x"})
        while (await layer.history("room")).messages == ():
            pass
        last = members[-1]  # its part has not had its turn
        assert last.get_nowait() is None
        await layer.group_discard("room", last.name)
        assert (await layer.group_add("room", last.name, since=beginning)).missed == 1
    await layer.group_send("room", {"type": "x"})
    assert [number_of(item) for item in iter(last.get_nowait, None)] == [1, 2]
    for opened in crowd:
        opened.__exit__(None, None, None)


async def test_large_group_of_two_runs_gets_a_message_in_both() -> None:
    layer = InMemoryChannelLayer(history=HISTORY, capacity=10)
    with ExitStack() as stack, OtherRun() as other:
        crowd = Crowd(layer, stack)
        for mailbox in crowd.mailboxes:
            await layer.group_add("room", mailbox.name)

        async def join() -> Any:
            opened = layer.open_mailbox()
            member = opened.__enter__()
            await layer.group_add("room", member.name)
            return opened, member

        opened, member = await other.call(join)
        position = await layer.group_send("room", {"type": "x"})
        assert [[number_of(item) for item in items] for items in crowd.take_items()] == [[1]] * len(crowd.mailboxes)
        message = await other.call(next_item, member)
        assert message["history"]["position"] == position

        async def leave() -> None:
            opened.__exit__(None, None, None)

        await other.call(leave)


async def test_missed_message_goes_to_a_task_that_waits() -> None:
    layer = InMemoryChannelLayer(history=HISTORY)
    position = (await layer.history("room")).position
    await layer.group_send("room", {"type": "x"})
    with layer.open_mailbox() as mailbox:
        got: list[Any] = []

        async def take() -> None:
            got.append(await mailbox.get())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            await layer.group_add("room", mailbox.name, since=position)
        assert [number_of(item) for item in got] == [1]


async def test_old_messages_are_forgotten(clock: Clock) -> None:
    layer = InMemoryChannelLayer(history={"room": {"messages": 5, "seconds": 10}})
    positions: list[str | None] = []
    for _ in range(3):
        positions.append(await layer.group_send("room", {"type": "x"}))
        clock.now += 4
    assert [number_of(message) for message in (await layer.history("room")).messages] == [2, 3]
    assert [(await layer.history("room", since=since)).recovered for since in positions] == [True] * 3
    clock.now += 5
    assert (layer.statistics().histories, layer.statistics().kept) == (1, 1)
    assert [(await layer.history("room", since=since)).recovered for since in positions] == [False, True, True]


def test_unused_history_begins_again(clock: Clock) -> None:
    rule = HistoryRules({"*": {"messages": 5, "seconds": 10}}).of("room")
    assert rule is not None
    histories = MemoryHistories(forget_after=100)
    first = histories.keep("room", rule, {}, frozenset())
    clock.now += 90
    histories.keep("room2", rule, {}, frozenset())
    assert repr(histories) == "<MemoryHistories of 2 groups>"
    clock.now += 90
    assert histories.keep("room2", rule, {}, frozenset()).place[1] == 2
    assert repr(histories) == "<MemoryHistories of 1 groups>"
    assert histories.keep("room", rule, {}, frozenset()).place[0] != first.place[0]


def test_rules_of_many_groups_are_not_remembered_for_ever() -> None:
    rules = HistoryRules({"room*": {"messages": 5, "seconds": 10}})
    for number in range(REMEMBERED_GROUPS + 1):
        assert rules.of(f"room{number}") is not None
    assert len(rules._known) == 1
    assert repr(rules).startswith("<HistoryRules <Patterns ")
