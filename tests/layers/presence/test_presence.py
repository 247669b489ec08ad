"""The contract of every channel layer with presence."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from trio_channels.exceptions import (
    ChannelLayerUnavailable,
    InvalidChannelLayerError,
    InvalidNameError,
    MessageNotEncodable,
    MessageTooLarge,
    TooManyTrackedKeys,
)
from trio_channels.layers import Gap, InMemoryChannelLayer, PresenceState
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.mailbox import Mailbox
from trio_channels.layers.redis import RedisStreamsChannelLayer

from .conftest import DEADLINE, MakePair, Pair, eventually, plain, until


async def next_of(mailbox: Mailbox) -> Any:
    with trio.fail_after(DEADLINE):
        return await mailbox.get()


# -- tracking ---------------------------------------------------------------------------------------------------------


async def test_tracked_key_is_there_until_its_block_ends(pair: Pair) -> None:
    async with pair.here.track("room", "ann", {"name": "Ann"}):
        assert plain(await pair.here.presence("room")) == {"ann": [{"name": "Ann"}]}
        assert plain(await pair.there.presence("room")) == {"ann": [{"name": "Ann"}]}
        assert await pair.there.presence("other") == {}
        assert pair.here.statistics().tracked == 1
    assert await pair.here.presence("room") == {}
    await eventually(pair.there, "room", {})
    assert pair.here.statistics().tracked == 0


async def test_failing_block_ends_its_tracking(pair: Pair) -> None:
    async def fail() -> None:
        async with pair.here.track("room", "ann"):
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    await eventually(pair.there, "room", {})


async def test_cancelled_block_ends_its_tracking(pair: Pair) -> None:
    with trio.CancelScope() as scope:
        async with pair.here.track("room", "ann"):
            scope.cancel()
            await trio.sleep_forever()
    await eventually(pair.there, "room", {})


async def test_key_is_there_once_for_each_tracking(pair: Pair) -> None:
    async with pair.here.track("room", "ann", {"tab": 1}), pair.there.track("room", "ann", {"tab": 2}):
        state = await pair.there.presence("room")
        assert sorted(meta["tab"] for meta in state["ann"]) == [1, 2]
        assert len({meta["ref"] for meta in state["ann"]}) == 2


async def test_tracking_ends_with_its_mailbox(pair: Pair) -> None:
    with pair.here.open_mailbox() as mailbox:
        await pair.here.track_channel("room", mailbox.name, "ann")
        await pair.here.track_channel("room", mailbox.name, "bob")
        await pair.here.track_channel("other", mailbox.name, "ann")
        assert set(await pair.there.presence("room")) == {"ann", "bob"}
    await eventually(pair.there, "room", {})
    await eventually(pair.there, "other", {})


async def test_untracked_key_leaves(pair: Pair) -> None:
    with pair.here.open_mailbox() as mailbox:
        await pair.here.track_channel("room", mailbox.name, "ann")
        await pair.here.track_channel("room", mailbox.name, "bob")
        await pair.here.untrack_channel("room", mailbox.name, "ann")
        await pair.here.untrack_channel("room", mailbox.name, "nobody")
        assert set(await pair.here.presence("room")) == {"bob"}
        await eventually(pair.there, "room", {"bob": [{}]})


async def test_tracking_again_gives_another_meta(pair: Pair) -> None:
    with pair.here.open_mailbox() as mailbox:
        await pair.here.track_channel("room", mailbox.name, "ann", {"mood": "good"})
        before = await pair.here.presence("room")
        await pair.here.track_channel("room", mailbox.name, "ann", {"mood": "good"})
        assert await pair.here.presence("room") == before
        await pair.here.track_channel("room", mailbox.name, "ann", {"mood": "bad"})
        after = await pair.here.presence("room")
        assert plain(after) == {"ann": [{"mood": "bad"}]}
        assert after["ann"][0]["ref"] != before["ann"][0]["ref"]
        await eventually(pair.there, "room", {"ann": [{"mood": "bad"}]})


async def test_block_can_change_its_meta(pair: Pair) -> None:
    async with pair.here.track("room", "ann") as tracked:
        await tracked.update({"typing": True})
        await eventually(pair.there, "room", {"ann": [{"typing": True}]})
    await tracked.update({"typing": False})  # nothing is tracked any more
    await eventually(pair.there, "room", {})
    assert pair.here.statistics().tracked == 0


async def test_channel_that_is_not_here_tracks_and_watches_nothing(pair: Pair) -> None:
    async with pair.there.track("room", "ann"):
        await pair.here.track_channel("room", "specific!gone", "bob")
        await pair.here.untrack_channel("room", "specific!gone", "bob")
        assert set(await pair.here.watch_presence("room", "specific!gone")) == {"ann"}
        await pair.here.unwatch_presence("room", "specific!gone")
        assert set(await pair.there.presence("room")) == {"ann"}


async def test_presence_has_nothing_to_do_with_members(pair: Pair) -> None:
    async with (
        pair.here.subscribe("room") as members,
        pair.here.track("room", "ann"),
        pair.there.subscribe_presence("room") as events,
    ):
        assert set(events.state) == {"ann"}
        seen = pair.there.statistics()
        assert (pair.here.statistics().memberships, seen.channels) == (1, 1 + 2 * (pair.here is pair.there))
        await pair.here.group_send("room", {"type": "hello"})
        with trio.fail_after(DEADLINE):
            assert await anext(members) == {"type": "hello"}


# -- limits -----------------------------------------------------------------------------------------------------------


#: Keys and metas, the error, and its text. The checks are the same ones for all layers.
REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    ("", None, MessageNotEncodable, "must be a non-empty str"),
    (5, None, MessageNotEncodable, r"such as str\(user.pk\); got 5"),
    (None, None, MessageNotEncodable, "got None"),
    ("half \ud800", None, MessageNotEncodable, "a tracked key"),
    ("ann", [("a", 1)], MessageNotEncodable, "must be a dict or None; got list"),
    ("ann", {"ref": 1}, MessageNotEncodable, "must not have 'ref'"),
    ("ann", {1: 2}, MessageNotEncodable, "must be str; got 1"),
    ("ann", {"a": object()}, MessageNotEncodable, "may hold None"),
    ("ann", {"a": "x" * 4_096}, MessageTooLarge, "at most 4,096 bytes"),
    ("x" * 4_096, None, MessageTooLarge, "'meta_size'"),
]


async def test_bad_key_or_meta_is_refused(pair: Pair) -> None:
    for key, meta, error, match in REFUSED:
        with pytest.raises(error, match=match):
            await pair.here.track("room", key, meta).__aenter__()
    assert await pair.here.presence("room") == {}
    assert pair.here.statistics().channels == 0


async def test_bad_group_name_is_refused(pair: Pair) -> None:
    layer = pair.here
    with layer.open_mailbox() as mailbox:
        for group in ("", "a b", "room:presence", None, "a" * 100):
            for call in (
                partial(layer.presence, group),
                partial(layer.track_channel, group, mailbox.name, "ann"),
                partial(layer.untrack_channel, group, mailbox.name, "ann"),
                partial(layer.watch_presence, group, mailbox.name),
                partial(layer.unwatch_presence, group, mailbox.name),
                layer.track(group, "ann").__aenter__,  # type: ignore[arg-type]
                layer.subscribe_presence(group).__aenter__,  # type: ignore[arg-type]
            ):
                with pytest.raises(InvalidNameError):
                    await call()
        with pytest.raises(InvalidNameError):
            await layer.track_channel("room", "no channel", "ann")


async def test_connection_tracks_a_limited_number_of_keys(make_pair: MakePair) -> None:
    async with make_pair(presence={"keys": 2}) as pair:
        with pair.here.open_mailbox() as mailbox, pair.here.open_mailbox() as other:
            for key in ("ann", "bob"):
                await pair.here.track_channel("room", mailbox.name, key)
            with pytest.raises(TooManyTrackedKeys, match="at most 2 keys"):
                await pair.here.track_channel("other", mailbox.name, "cat")
            await pair.here.track_channel("room", mailbox.name, "bob", {"new": "meta"})
            await pair.here.track_channel("room", other.name, "cat")
            assert set(await pair.there.presence("room")) == {"ann", "bob", "cat"}


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "must be None or a dict"),
        ({"gracee": 1}, "no key 'gracee'; did you mean 'grace'"),
        ({"grace": -1}, r"presence\['grace'\]"),
        ({"grace": True}, "from 0 to 3600"),
        ({"grace": float("nan")}, "from 0 to 3600"),
        ({"keys": 0}, "at least 1"),
        ({"meta_size": "1"}, "at least 1"),
    ],
)
def test_wrong_option_is_refused(given: Any, match: str) -> None:
    for layer in (InMemoryChannelLayer, RedisStreamsChannelLayer):
        with pytest.raises(InvalidChannelLayerError, match=match):
            layer(presence=given)


# -- watching ---------------------------------------------------------------------------------------------------------


async def test_watcher_gets_joins_and_leaves(pair: Pair) -> None:
    async with pair.there.subscribe_presence("room") as events:
        assert events.state == {}
        async with pair.here.track("room", "ann", {"tab": 1}) as tracked:
            [first] = await until(events, lambda state: "ann" in state)
            assert {name: first[name] for name in ("type", "group", "arrived", "departed", "leaves")} == {
                "type": "presence.diff",
                "group": "room",
                "arrived": ["ann"],
                "departed": [],
                "leaves": {},
            }
            assert plain(first["joins"]) == {"ann": [{"tab": 1}]}
            async with pair.here.track("room", "ann", {"tab": 2}):
                [second] = await until(events, lambda state: len(state["ann"]) == 2)
                assert (second["arrived"], second["departed"]) == ([], [])
            [third] = await until(events, lambda state: len(state["ann"]) == 1)
            assert plain(third["leaves"]) == {"ann": [{"tab": 2}]}
            await tracked.update({"tab": 3})
            [fourth] = await until(events, lambda state: state["ann"][0]["tab"] == 3)
            assert (plain(fourth["joins"]), plain(fourth["leaves"])) == ({"ann": [{"tab": 3}]}, {"ann": [{"tab": 1}]})
            assert (fourth["arrived"], fourth["departed"]) == ([], [])
        [last] = await until(events, lambda state: not state)
        assert (last["arrived"], last["departed"], last["joins"]) == ([], ["ann"], {})


async def test_snapshot_and_events_fit_together(pair: Pair) -> None:
    async with pair.here.track("room", "ann"):
        with pair.there.open_mailbox() as mailbox:
            state = await pair.there.watch_presence("room", mailbox.name)
            assert set(state) == {"ann"}
            async with pair.here.track("room", "bob"):
                assert state.apply(await next_of(mailbox))
                assert state == await pair.there.presence("room")
                assert set(state) == {"ann", "bob"}


async def test_watcher_sees_its_own_key(pair: Pair) -> None:
    with pair.here.open_mailbox() as mailbox:
        await pair.here.track_channel("room", mailbox.name, "me")
        state = await pair.here.watch_presence("room", mailbox.name)
        assert set(state) == {"me"}
        assert mailbox.get_nowait() is None


async def test_unwatching_ends_the_events(pair: Pair) -> None:
    with pair.there.open_mailbox() as mailbox:
        await pair.there.watch_presence("room", mailbox.name)
        await pair.there.watch_presence("room", mailbox.name)
        await pair.there.unwatch_presence("room", mailbox.name)
        await pair.there.unwatch_presence("room", mailbox.name)
        async with pair.here.track("room", "ann"):
            await pair.there.send(mailbox.name, {"type": "last"})
            assert await next_of(mailbox) == {"type": "last"}


async def test_watch_ends_with_its_mailbox(pair: Pair) -> None:
    with pair.there.open_mailbox() as mailbox:
        await pair.there.watch_presence("room", mailbox.name)
    assert pair.there.statistics().channels == 0
    async with pair.here.track("room", "ann"):
        assert mailbox.get_nowait() is None
        assert set(await pair.there.presence("room")) == {"ann"}


async def test_two_watchers_get_the_same_events(pair: Pair) -> None:
    async with (
        pair.there.subscribe_presence("room") as one,
        pair.there.subscribe_presence("room") as two,
        pair.here.track("room", "ann"),
    ):
        assert await until(one, lambda state: "ann" in state) == await until(two, lambda state: "ann" in state)


async def test_many_joins_are_one_event_or_a_few(make_pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_channels.layers.presence.view.INTERVAL", 0.5)
    async with make_pair(presence={"keys": 1_000}) as pair, pair.there.subscribe_presence("room") as events:
        with pair.here.open_mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(pair.here.track_channel, "room", mailbox.name, f"k{number}")
            taken = await until(events, lambda state: len(state) == 300)
            assert sum(len(event["joins"]) for event in taken) == 300
            assert len(taken) < 30


async def test_watcher_that_falls_behind_gets_the_changes_as_one(make_pair: MakePair) -> None:
    async with (
        make_pair(channel_capacity={"watcher*": 2}) as pair,
        pair.there.subscribe_presence("room") as events,
        pair.there.subscribe_presence("room") as quick,
    ):
        async with pair.here.track("room", "left"):
            await until(quick, lambda state: "left" in state)
            async with trio.open_nursery() as nursery:
                for number in range(8):

                    async def stay(number: int = number) -> None:
                        async with pair.here.track("room", f"k{number}"):
                            await trio.sleep_forever()

                    nursery.start_soon(stay)
                    await until(quick, lambda state, number=number: f"k{number}" in state)
                assert pair.there.statistics().dropped > 0
                await until(events, lambda state: len(state) == 9)
                assert events.state == await pair.there.presence("room")
                nursery.cancel_scope.cancel()
        await until(events, lambda state: not state)


async def test_gap_is_followed_by_watching_again(make_pair: MakePair) -> None:
    async with make_pair() as pair, pair.there.subscribe_presence("room") as quick:
        with pair.there.open_mailbox(overflow="drop_newest") as mailbox:
            state = await pair.there.watch_presence("room", mailbox.name)
            mailbox.put_gap(Gap(1, "test"))
            async with pair.here.track("room", "ann"):
                await until(quick, lambda state: "ann" in state)
                assert isinstance(await next_of(mailbox), Gap)
                state = await pair.there.watch_presence("room", mailbox.name)
                assert set(state) == {"ann"}
                assert not state.apply(await next_of(mailbox))  # the new state has it already


async def test_subscriber_with_a_gap_gets_no_change_twice(pair: Pair) -> None:
    async with pair.there.subscribe_presence("room") as events, pair.there.subscribe_presence("room") as quick:
        events._mailbox.put_gap(Gap(1, "test"))  # type: ignore[attr-defined]
        async with pair.here.track("room", "ann"):
            await until(quick, lambda state: "ann" in state)
            taken = await until(events, lambda state: "ann" in state)
            async with pair.here.track("room", "bob"):
                taken += await until(events, lambda state: "bob" in state)
                assert [event["arrived"] for event in taken] == [["ann"], ["bob"]]


async def test_broken_layer_ends_the_events(pair: Pair) -> None:
    async with pair.there.subscribe_presence("room") as events:
        pair.there._hub().fail("on purpose")  # type: ignore[attr-defined]
        with pytest.raises(ChannelLayerUnavailable, match="the channel layer is broken: on purpose"):
            await anext(events)
    async with pair.there.subscribe_presence("room") as events:
        pass
    assert [event async for event in events] == []


async def test_flush_keeps_who_is_there(pair: Pair) -> None:
    async with (
        pair.here.track("room", "ann"),
        pair.there.track("room", "bob"),
        pair.there.subscribe_presence("room") as events,
    ):
        assert set(events.state) == {"ann", "bob"}
        await pair.here.flush()
        async with pair.here.track("room", "cat"):
            taken = await until(events, lambda state: "cat" in state)
            assert [event["departed"] for event in taken if event["departed"]] == []
        assert set(await pair.there.presence("room")) >= {"ann", "bob"}


# -- grace ------------------------------------------------------------------------------------------------------------


async def test_leave_is_held_back_for_the_grace(make_pair: MakePair) -> None:
    async with make_pair(presence={"grace": 0.2}) as pair, pair.there.subscribe_presence("room") as events:
        async with pair.here.track("room", "ann"):
            await until(events, lambda state: "ann" in state)
        ended = trio.current_time()
        await until(events, lambda state: not state)
        assert trio.current_time() >= ended + 0.2


async def test_reload_within_the_grace_is_no_event(make_pair: MakePair) -> None:
    async with (
        make_pair(presence={"grace": 60}) as pair,
        pair.there.subscribe_presence("room") as events,
    ):
        with pair.here.open_mailbox() as other:

            async def news_until_a_mark() -> set[str]:
                """The keys that changed since the last call, and ``mark``, which comes and goes behind all of them."""
                await pair.here.track_channel("room", other.name, "mark")
                taken = await until(events, lambda state: "mark" in state)
                await pair.here.untrack_channel("room", other.name, "mark")
                taken += await until(events, lambda state: "mark" not in state)
                return {key for event in taken for key in (*event["joins"], *event["leaves"])}

            async with pair.here.track("room", "ann", {"name": "Ann"}):
                assert await news_until_a_mark() == {"ann", "mark"}
                before = events.state["ann"]
            assert await news_until_a_mark() == {"mark"}
            for layer in (pair.here, pair.there, pair.here):
                async with layer.track("room", "ann", {"name": "Ann"}):
                    assert await news_until_a_mark() == {"mark"}
                assert await news_until_a_mark() == {"mark"}
                assert events.state == {"ann": before}


async def test_reload_with_another_meta_is_one_event(make_pair: MakePair) -> None:
    async with make_pair(presence={"grace": 60}) as pair, pair.there.subscribe_presence("room") as events:
        async with pair.here.track("room", "ann", {"tab": 1}):
            await until(events, lambda state: "ann" in state)
        async with pair.here.track("room", "ann", {"tab": 2}):
            [event] = await until(events, lambda state: state["ann"][0]["tab"] == 2)
            assert plain(event["leaves"]) == {"ann": [{"tab": 1}]}
            assert (event["arrived"], event["departed"]) == ([], [])
            assert len(events.state["ann"]) == 1


# -- layers without presence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("track", ("room", "ann")),
        ("track_channel", ("room", "x!y", "ann")),
        ("untrack_channel", ("room", "x!y", "ann")),
        ("presence", ("room",)),
        ("watch_presence", ("room", "x!y")),
        ("unwatch_presence", ("room", "x!y")),
        ("subscribe_presence", ("room",)),
    ],
)
async def test_layer_without_presence_says_so(method: str, arguments: tuple[Any, ...]) -> None:
    class Other(ChannelLayer):
        """A layer of somebody else's."""

    async def call() -> None:
        await getattr(Other(), method)(*arguments)  # type: ignore[abstract]

    Other.__abstractmethods__ = frozenset()
    with pytest.raises(InvalidChannelLayerError, match=rf"Other has no presence: it has no method {method}\(\)"):
        await call()


def test_state_is_a_dict_that_can_be_copied() -> None:
    state = PresenceState({"ann": [{"ref": "1"}]}, 7)
    other = PresenceState(state, state.version)
    assert (state, state.version) == (other, 7)
    other.remove("ann", "1")
    other.remove("ann", "1")
    assert (state, other) == ({"ann": [{"ref": "1"}]}, {})
