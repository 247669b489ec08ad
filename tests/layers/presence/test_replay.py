"""Property: the events that a watcher gets, applied to its snapshot, are always the state of the group."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_channels.layers import InMemoryChannelLayer, PresenceState
from trio_channels.layers.base import ChannelLayer, Gap
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.presence.alarm import Alarm
from trio_channels.layers.presence.view import Change, View
from trio_channels.layers.redis import RedisStreamsChannelLayer

from ...redis_server import RedisServer
from .conftest import plain

CONNECTIONS, KEYS = range(4), "abc"
connection = st.sampled_from(CONNECTIONS)
steps = st.one_of(
    st.tuples(st.just("track"), connection, st.sampled_from(KEYS), st.integers(0, 1)),
    st.tuples(st.just("untrack"), connection, st.sampled_from(KEYS)),
    st.tuples(st.just("end"), connection),
    st.tuples(st.just("watch"), connection),
    st.tuples(st.just("unwatch"), connection),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.1, 1.0, 3.0])),
    st.tuples(st.just("check")),
)


class World:
    """Connections that track and watch by the steps of one example, and the state that each of them has replayed."""

    def __init__(self, layers: list[ChannelLayer], stack: ExitStack) -> None:
        self._layers = layers
        self._stack = stack
        self._mailboxes: dict[int, tuple[Mailbox, Any]] = {}
        self.states: dict[int, PresenceState] = {}
        self.expected: dict[tuple[int, str], int] = {}

    def layer(self, number: int) -> ChannelLayer:
        return self._layers[number % len(self._layers)]

    def mailbox(self, number: int) -> Mailbox:
        if number not in self._mailboxes:
            block = self.layer(number).open_mailbox(overflow="drop_newest")
            self._mailboxes[number] = self._stack.enter_context(block), block
        return self._mailboxes[number][0]

    async def do(self, step: tuple[Any, ...]) -> None:
        await getattr(self, step[0])(*step[1:])

    async def track(self, number: int, key: str, meta: int) -> None:
        await self.layer(number).track_channel("room", self.mailbox(number).name, key, {"meta": meta})
        self.expected[number, key] = meta

    async def untrack(self, number: int, key: str) -> None:
        await self.layer(number).untrack_channel("room", self.mailbox(number).name, key)
        self.expected.pop((number, key), None)

    async def end(self, number: int) -> None:
        if number in self._mailboxes:
            self._mailboxes.pop(number)[1].__exit__(None, None, None)
            self.states.pop(number, None)
            self.expected = {place: meta for place, meta in self.expected.items() if place[0] != number}

    async def watch(self, number: int) -> None:
        self.states[number] = await self.layer(number).watch_presence("room", self.mailbox(number).name)

    async def unwatch(self, number: int) -> None:
        await self.layer(number).unwatch_presence("room", self.mailbox(number).name)
        self.states.pop(number, None)

    async def wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def replay(self, number: int) -> PresenceState:
        state, mailbox = self.states[number], self.mailbox(number)
        while (item := mailbox.get_nowait()) is not None:
            assert not isinstance(item, Gap)
            before = set(state)
            if state.apply(item):
                assert set(item["arrived"]) <= set(state)
                assert set(item["departed"]).isdisjoint(state)
                assert set(state) - before <= set(item["arrived"])
                assert before - set(state) <= set(item["departed"])
        return state

    async def check(self) -> None:
        await trio.sleep(0.2)  # until everything is told
        for number in self.states:
            assert await self.replay(number) == await self.layer(number).presence("room")

    def expected_state(self) -> dict[str, list[int]]:
        state: dict[str, list[int]] = {}
        for (_, key), meta in self.expected.items():
            state.setdefault(key, []).append(meta)
        return {key: sorted(metas) for key, metas in state.items()}


def metas(state: dict[str, list[dict[str, Any]]]) -> dict[str, list[int]]:
    return {key: sorted(meta["meta"] for meta in metas) for key, metas in plain(state).items()}


@settings(max_examples=60)
@given(script=st.lists(steps, max_size=30), grace=st.sampled_from([0, 0.5, 2.0]))
def test_replay_is_the_state_in_memory(script: list[tuple[Any, ...]], grace: float) -> None:
    async def main() -> None:
        with ExitStack() as stack:
            world = World([InMemoryChannelLayer(presence={"grace": grace})], stack)
            for step in script:
                await world.do(step)
            await world.check()
            await trio.sleep(2 * grace)
            await world.check()
            assert metas(await world.layer(0).presence("room")) == world.expected_state()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=15)
@given(script=st.lists(steps.filter(lambda step: step[0] not in ("wait", "check")), max_size=30))
def test_replay_is_the_state_over_redis(redis_server: RedisServer, script: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        layers: list[Any] = [
            RedisStreamsChannelLayer(hosts=[redis_server.url], prefix=f"replay-{trio.current_time()}") for _ in "12"
        ]
        layers[1].prefix = layers[0].prefix
        layers[1]._topology = layers[0]._topology
        async with layers[0], layers[1]:
            with ExitStack() as stack:
                world = World(layers, stack)
                for step in script:
                    await world.do(step)
                await _settles(lambda: world.expected_state(), layers)
                with trio.fail_after(20):
                    for number in world.states:
                        while metas(await world.replay(number)) != world.expected_state():  # noqa: ASYNC110
                            await trio.sleep(0.01)

    trio.run(main)


async def _settles(expected: Callable[[], Any], layers: list[ChannelLayer]) -> None:
    with trio.fail_after(20):
        for layer in layers:
            while metas(await layer.presence("room")) != expected():  # noqa: ASYNC110
                await trio.sleep(0.005)


# -- the view itself ---------------------------------------------------------------------------------------------------

#: A reference belongs to one key and one meta.
TRACKINGS = [("p.1", "a", {"n": 0}), ("p.2", "a", {"n": 0}), ("p.3", "a", {"n": 1}), ("q.1", "b", {"n": 0})]
refs = st.sampled_from([ref for ref, _, _ in TRACKINGS])
changes = st.builds(
    Change,
    joins=st.lists(st.sampled_from(TRACKINGS), max_size=3),
    leaves=st.lists(refs, max_size=2),
    held=st.lists(refs, max_size=2),
)


@settings(max_examples=60)
@given(script=st.lists(st.tuples(changes, st.sampled_from([0.0, 0.05, 0.2, 1.5])), max_size=25))
def test_view_takes_any_changes(script: list[tuple[Change, float]]) -> None:
    """Also those that no process sends: ends that come twice, references that come back."""

    async def main() -> None:
        with InMemoryChannelLayer(capacity=1_000).open_mailbox() as mailbox:
            numbers = iter(range(1, 10_000))
            view = View("room", grace=1.0, expiry=60, alarm=Alarm(), next_version=lambda: next(numbers))
            state = view.watch(mailbox)
            for change, pause in script:
                view.apply(change)
                await trio.sleep(pause)
            await trio.sleep(2)
            while (item := mailbox.get_nowait()) is not None:
                state.apply(item)  # type: ignore[arg-type]
            assert state == view.snapshot()
            shown = [entry.meta["ref"] for entry in view.entries.values()]
            assert sorted(shown) == sorted(meta["ref"] for metas in state.values() for meta in metas)
            assert not view._held

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_key_that_comes_and_goes_at_once_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer()
    with layer.open_mailbox() as mailbox:
        await layer.watch_presence("room", mailbox.name)
        view = layer._hub().presence.views["room"]  # type: ignore[union-attr]
        for change in (Change(joins=[TRACKINGS[0]]), Change(joins=[TRACKINGS[3]]), Change(leaves=["q.1"])):
            view.apply(change)
        await trio.sleep(1)
        event = mailbox.get_nowait()
        assert isinstance(event, dict)
        assert event["arrived"] == ["a"]
        assert mailbox.get_nowait() is None
        view.apply(Change(leaves=["p.1"]))
        event = mailbox.get_nowait()
        assert isinstance(event, dict)
        assert event["departed"] == ["a"]


async def test_new_watcher_hears_of_an_end_that_others_need_not(autojump_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer()
    with layer.open_mailbox() as old, layer.open_mailbox() as new:
        await layer.watch_presence("room", old.name)
        view = layer._hub().presence.views["room"]  # type: ignore[union-attr]
        for change in (Change(joins=[TRACKINGS[0]]), Change(joins=[TRACKINGS[3]])):
            view.apply(change)  # the second one is not told at once
        state = await layer.watch_presence("room", new.name)
        assert set(state) == {"a", "b"}
        view.apply(Change(leaves=["q.1"]))
        await trio.sleep(1)
        event = new.get_nowait()
        assert isinstance(event, dict)
        assert state.apply(event)
        assert state == view.snapshot()


async def test_reference_that_was_taken_over_does_not_come_back(autojump_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(presence={"grace": 10})
    async with layer.subscribe_presence("room"):
        view = layer._hub().presence.views["room"]  # type: ignore[union-attr]
        view.apply(Change(joins=[TRACKINGS[0]]))
        view.apply(Change(held=["p.1"]))
        view.apply(Change(joins=[TRACKINGS[1]]))
        assert view.snapshot() == {"a": [{"n": 0, "ref": "p.1"}]}
        view.apply(Change(joins=[TRACKINGS[0]]))  # from a Redis that went back in time
        assert view.snapshot() == {"a": [{"n": 0, "ref": "p.1"}]}
        view.apply(Change(leaves=["p.2"]))
        assert (view.snapshot(), view.entries) == ({}, {})


async def test_grace_begins_again_with_each_end(autojump_clock: trio.testing.MockClock) -> None:
    layer = InMemoryChannelLayer(presence={"grace": 10})
    async with layer.subscribe_presence("room") as events:
        view = layer._hub().presence.views["room"]  # type: ignore[union-attr]
        view.apply(Change(joins=[("p.1", "ann", {})]))
        view.apply(Change(held=["p.1"]))
        await trio.sleep(5)
        view.apply(Change(joins=[("p.1", "ann", {})]))  # told once more: it is there after all
        view.apply(Change(held=["p.1"]))
        await trio.sleep(9)
        assert set(view.snapshot()) == {"ann"}
        await trio.sleep(2)
        assert view.snapshot() == {}
        assert (await anext(events))["arrived"] == ["ann"]
        assert (await anext(events))["departed"] == ["ann"]


@pytest.mark.parametrize("count", [1, 3])
async def test_alarm_calls_in_order_of_time(autojump_clock: trio.testing.MockClock, count: int) -> None:
    alarm, called = Alarm(), []
    for _ in range(count):
        for time in (3.0, 1.0, 2.0):
            alarm.at(trio.current_time() + time, lambda time=time: called.append(time))
        assert repr(alarm) == "<Alarm with 3 functions due>"
        await trio.sleep(1.5)
        alarm.at(trio.current_time() + 0.1, lambda: called.append(1.6))
        await trio.sleep(2)
        assert called == [1.0, 1.6, 2.0, 3.0]
        called.clear()


async def test_alarm_survives_a_failing_function(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    alarm, called = Alarm(), []

    def fail() -> None:
        raise KeyError("on purpose")

    alarm.at(trio.current_time() + 1, fail)
    alarm.at(trio.current_time() + 2, lambda: called.append("next"))
    await trio.sleep(3)
    assert called == ["next"]
    assert "a due change of presence failed" in caplog.text
