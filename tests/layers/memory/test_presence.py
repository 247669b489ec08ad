"""Presence in memory: several Trio runs on one layer, and cancellation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from trio_channels.layers import InMemoryChannelLayer, PresenceState

from ..presence.conftest import until
from ..test_contract import cancelled_at_checkpoint
from .test_memory import OtherRun


@pytest.fixture
def layer() -> InMemoryChannelLayer:
    return InMemoryChannelLayer()


@pytest.fixture
def other() -> Iterator[OtherRun]:
    with OtherRun() as run:
        yield run


class Elsewhere:
    """A key that is tracked in another run."""

    def __init__(self, layer: InMemoryChannelLayer, key: str) -> None:
        self._layer = layer
        self._key = key
        self._stack = AsyncExitStack()

    async def begin(self) -> None:
        await self._stack.enter_async_context(self._layer.track("room", self._key))

    async def end(self) -> None:
        await self._stack.aclose()


async def test_every_run_sees_the_keys_of_all(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    ann, bob = Elsewhere(layer, "ann"), Elsewhere(layer, "bob")
    async with layer.track("room", "here"):
        await other.call(ann.begin)
        assert set(await layer.presence("room")) == {"here", "ann"}
        assert set(await other.call(layer.presence, "room")) == {"here", "ann"}
        async with layer.subscribe_presence("room") as events:
            assert set(events.state) == {"here", "ann"}
            await other.call(bob.begin)
            await until(events, lambda state: "bob" in state)
            await other.call(ann.end)
            await until(events, lambda state: set(state) == {"here", "bob"})
            await other.call(bob.end)
            await until(events, lambda state: set(state) == {"here"})
        assert layer.statistics().tracked == 1


async def test_watcher_in_another_run_gets_the_changes(layer: InMemoryChannelLayer, other: OtherRun) -> None:
    begun = trio.Event()
    here = trio.lowlevel.current_trio_token()

    async def watch() -> PresenceState:
        async with layer.subscribe_presence("room") as events:
            here.run_sync_soon(begun.set)
            await until(events, lambda state: "ann" in state)
            return events.state

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            seen.append(await other.call(watch))

        seen: list[PresenceState] = []
        nursery.start_soon(run)
        await begun.wait()
        async with layer.track("room", "ann"):
            while not seen:  # noqa: ASYNC110 - the other run has no event for this one
                await trio.sleep(0.001)
    assert set(seen[0]) == {"ann"}


async def test_keys_of_an_ended_run_do_not_count(layer: InMemoryChannelLayer) -> None:
    with OtherRun() as other:
        ann = Elsewhere(layer, "ann")
        await other.call(ann.begin)
        assert set(await layer.presence("room")) == {"ann"}
    async with layer.track("room", "bob"):
        assert set(await layer.presence("room")) == {"bob"}
        async with layer.subscribe_presence("room") as events:
            assert set(events.state) == {"bob"}


async def test_cancelled_call_is_atomic(layer: InMemoryChannelLayer) -> None:
    for number in range(1, 100):
        with layer.open_mailbox() as mailbox, cancelled_at_checkpoint(number) as scope:
            await layer.track_channel("room", mailbox.name, "ann")
            await layer.untrack_channel("room", mailbox.name, "ann")
            await layer.watch_presence("room", mailbox.name)
            await layer.unwatch_presence("room", mailbox.name)
        assert await layer.presence("room") == {}
        assert layer.statistics().channels == 0
        hub = layer._hub()
        assert hub.presence is not None
        assert (hub.presence.views, hub.presence.tracked) == ({}, {})
        if not scope.cancel_called:
            break


async def test_cancelled_iteration_loses_no_change(autojump_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(channel_capacity={"watcher*": 1})
    for number in range(1, 100):
        async with (
            layer.subscribe_presence("room") as events,
            layer.track("room", "ann"),
            layer.track("room", "bob"),
        ):
            await trio.sleep(1)  # until both are told: the second event is dropped
            with cancelled_at_checkpoint(number) as scope, trio.move_on_after(1):
                while True:
                    await anext(events)
            await until(events, lambda state: set(state) == {"ann", "bob"})
        await trio.sleep(1)
        if not scope.cancel_called:
            break


async def test_representations_tell_the_state(layer: InMemoryChannelLayer) -> None:
    async with layer.subscribe_presence("room") as events, layer.track("room", "ann") as tracked:
        table = layer._hub().presence
        assert table is not None
        assert repr(table).endswith(f"of {table.process}, 1 trackings, 1 views>")
        assert repr(table.views["room"]) == "<View of room, 1 trackings, 1 watchers>"
        assert repr(tracked) == "<the key 'ann' in room>"
        assert repr(events) == "<the presence of room, 0 keys>"
        assert repr(table._backend).startswith("<MemoryPresence of <Hub ")
        assert events.__aiter__() is events
