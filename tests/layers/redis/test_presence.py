"""Presence over Redis: processes that die, a Redis that loses its data, the keys in Redis."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import ChannelLayer, Gap
from trio_channels.layers.presence import view
from trio_channels.layers.presence.table import Tracking
from trio_channels.layers.redis import RedisStreamsChannelLayer, presence
from trio_channels.layers.redis import keys as _keys
from trio_channels.layers.redis.codec import GROUP, PRESENCE

from ...redis_server import RedisServer
from ..presence.conftest import eventually, plain
from ..presence.conftest import until as until_state
from .world import keys, make_layers, redis, until

OwnRedis = Callable[..., RedisServer]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "INTERVAL", 0.002)


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", 2.0)


def freeze(layer: RedisStreamsChannelLayer) -> None:
    """End the tasks of a layer at once, as a kill of its process does."""
    layer._session()._working.cancel()


@asynccontextmanager
async def tracked(layer: ChannelLayer, *names: str) -> AsyncIterator[None]:
    with layer.open_mailbox() as mailbox:
        for name in names:
            await layer.track_channel("room", mailbox.name, name, {"name": name})
        yield


def departed(events: list[dict[str, Any]]) -> list[str]:
    return [key for event in events for key in event["departed"]]


# -- dead processes ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_lease")
async def test_keys_of_a_dead_process_leave(url: str) -> None:
    here, there, third = make_layers(url, url, url)
    async with (
        here,
        there,
        third,
        there.subscribe_presence("room") as events,
        third.track("room", "stays"),
        tracked(here, "ann", "bob"),
    ):
        await until_state(events, lambda state: len(state) == 3)
        freeze(here)
        taken = await until_state(events, lambda state: len(state) == 1)
        assert sorted(departed(taken)) == ["ann", "bob"]
        assert set(await there.presence("room")) == {"stays"}
        await until(lambda: _has_length(url, f"{{{there.prefix}:0}}:p:room", 1))


async def _has_length(url: str, key: str, length: int) -> bool:
    return bool(await redis(url, "HLEN", key) == length)


async def test_dead_processes_do_not_count_where_nobody_watches(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.track("room", "ann"):
        key = f"{{{layer.prefix}:0}}:p:room"
        blob = layer._codec.pack(PRESENCE, "room", {"key": "bob", "meta": {}})
        await redis(url, "HSET", key, "dead.1", blob)
        assert set(await layer.presence("room")) == {"ann"}
        assert await redis(url, "HLEN", key) == 1
        async with layer.subscribe_presence("room") as events:
            assert set(events.state) == {"ann"}


@pytest.mark.usefixtures("short_lease")
async def test_process_that_comes_again_brings_its_keys(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann", "bob"), there.subscribe_presence("room") as events:
        assert len(events.state) == 2
        inbox = here._session().shards[0].keys.inbox
        await redis(url, "DEL", inbox)  # as if its lease had lapsed
        async with here.track("room", "cat"):
            await until_state(events, lambda state: len(state) == 3)
        await until(lambda: here._session().shards[0].reader.attachments == 2)
        await until_state(events, lambda state: set(state) == {"ann", "bob"})


async def test_process_that_was_heard_again_is_not_dead(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"), there.subscribe_presence("room") as events:
        views, process = there._session().shards[0].views, here._session().process
        with here.open_mailbox() as mailbox:

            async def dead(processes: list[str]) -> list[str]:
                """A message of the process arrives before Redis' answer that it is dead."""
                await here.track_channel("room", mailbox.name, "bob")
                await until_state(events, lambda state: "bob" in state)
                return processes

            monkeypatch.setattr(views, "_dead", dead)
            heard = views._heard.get(process, 0)
            assert await views._look({process: heard}) == {process: heard}
            assert set(await there.presence("room")) == {"ann", "bob"}


async def test_nobody_is_taken_for_dead_soon_after_a_gap(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"), there.subscribe_presence("room"):
        views, process = there._session().shards[0].views, here._session().process

        async def dead(processes: list[str]) -> list[str]:
            return processes

        monkeypatch.setattr(views, "_dead", dead)
        views._followers["room"].mailbox.put_gap(Gap(None, "test"))
        assert await views._look({process: views._heard.get(process, 0)}) == {}
        assert set(await there.presence("room")) == {"ann"}


async def test_end_that_is_told_while_the_hash_is_read_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as quick:
        views = there._session().shards[0].views
        original = views.read
        with here.open_mailbox() as mailbox:
            await here.track_channel("room", mailbox.name, "ann")
            await until_state(quick, lambda state: "ann" in state)

            async def read(group: str) -> Any:
                found = await original(group)
                await here.untrack_channel("room", mailbox.name, "ann")
                await until_state(quick, lambda state: "ann" not in state)
                return found

            monkeypatch.setattr(views, "read", read)
            await views._load(views._followers["room"])
            assert await there.presence("room") == {}


async def test_nobody_is_dead_to_a_process_without_an_inbox(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"), there.subscribe_presence("room"):
        shard = there._session().shards[0]
        await redis(url, "DEL", shard.keys.inbox)
        with pytest.raises(ChannelLayerUnavailable, match="has no inbox of this process yet"):
            await shard.views._dead([here._session().process, "dead"])


async def test_closing_layer_tells_its_leaves(url: str) -> None:
    here, there = make_layers(url, url)
    async with there, there.subscribe_presence("room") as events, here, here.track("room", "ann"):
        await until_state(events, lambda state: "ann" in state)
        await here.close()
        await until_state(events, lambda state: not state)
    assert await keys(url, there) == set()


async def test_leaves_of_a_closing_layer_are_held_back(url: str) -> None:
    here, there = make_layers(url, url, presence={"grace": 60})
    async with there, there.subscribe_presence("room") as events:
        async with here, here.track("room", "ann", {"a": 1}):
            await until_state(events, lambda state: "ann" in state)
        async with there.track("room", "ann", {"a": 1}), there.track("room", "bob"):
            taken = await until_state(events, lambda state: "bob" in state)
            assert [list(event["joins"]) for event in taken] == [["bob"]]


# -- a Redis that loses its data ---------------------------------------------------------------------------------------


async def test_redis_without_its_data_costs_no_event(own_redis: OwnRedis) -> None:
    server = own_redis()
    here, there = make_layers(server.url, server.url)
    async with here, there, tracked(here, "ann", "bob"), there.subscribe_presence("room") as events:
        before = dict(events.state)
        for _ in range(2):
            server.kill()
            await trio.to_thread.run_sync(server.start)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_track_patiently, here)
                taken = await until_state(events, lambda state: "mark" in state)
                nursery.cancel_scope.cancel()
            taken += await until_state(events, lambda state: "mark" not in state)
            assert set(departed(taken)) == {"mark"}
            assert events.state == before
        await until(lambda: _has_length(server.url, f"{{{here.prefix}:0}}:p:room", 2))


async def _track_patiently(layer: ChannelLayer) -> None:
    with layer.open_mailbox() as mailbox:
        while True:
            try:
                await layer.track_channel("room", mailbox.name, "mark")
                await trio.sleep_forever()
            except ChannelLayerUnavailable:
                pass


@pytest.mark.usefixtures("short_lease")
async def test_key_that_ended_while_redis_lost_its_data_leaves(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as events, tracked(here, "ann"):
        await until_state(events, lambda state: "ann" in state)
        session = there._session()
        ghost = f"{here._session().process}.999"
        follower = session.shards[0].views._followers["room"]
        follower.view.apply(view.Change(joins=[(ghost, "ghost", {})]))  # a tracking whose leave was lost
        follower.mailbox.put_gap(Gap(None, "test"))
        await until_state(events, lambda state: "ghost" in state)
        taken = await until_state(events, lambda state: "ghost" not in state)
        assert departed(taken) == ["ghost"]
        assert set(events.state) == {"ann"}


async def test_flushed_redis_gets_the_keys_again(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"), tracked(there, "bob"), there.subscribe_presence("room") as events:
        await there.flush()
        await until(lambda: _has_length(url, f"{{{here.prefix}:0}}:p:room", 2))
        await eventually(here, "room", {"ann": [{"name": "ann"}], "bob": [{"name": "bob"}]})
        assert set(events.state) == {"ann", "bob"}


async def test_deleted_hash_is_sent_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", 0.6)
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"):
        await redis(url, "DEL", f"{{{here.prefix}:0}}:p:room")
        await eventually(there, "room", {"ann": [{"name": "ann"}]})


async def test_ended_keys_are_ended_again_after_a_loss(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there:
        key = f"{{{here.prefix}:0}}:p:room"
        async with tracked(here, "ann", "bob"):
            before = await redis(url, "HGETALL", key)
        await until(lambda: _has_length(url, key, 0))
        await redis(url, "HSET", key, *before)  # as if Redis had gone back in time
        assert len(await there.presence("room")) == 2
        here._session().shards[0].presence.send_all_again()
        await until(lambda: _has_length(url, key, 0))


@pytest.mark.usefixtures("short_lease")
async def test_ended_keys_are_forgotten_after_a_lease(url: str) -> None:
    [here] = make_layers(url)
    async with here:
        sync = here._session().shards[0].presence
        async with tracked(here, "ann"):
            pass
        await until(lambda: sync._ended)
        await trio.sleep(2.1)
        async with tracked(here, "bob"):
            assert not sync._ended


async def test_full_inbox_is_followed_by_reading_again(url: str) -> None:
    here, there = make_layers(url, url, inbox_capacity=10)
    async with here, there, there.subscribe_presence("room") as events, tracked(here, "ann"):
        await until_state(events, lambda state: "ann" in state)
        with there.open_mailbox() as mailbox:
            await there.group_add("crowd", mailbox.name)
            for number in range(200):
                await here.group_send("crowd", {"type": "x", "n": number})
            async with tracked(here, *(f"k{number}" for number in range(30))):
                await until_state(events, lambda state: len(state) == 31)


# -- an outage ---------------------------------------------------------------------------------------------------------


async def test_key_that_is_tracked_in_an_outage_is_told_later(own_redis: OwnRedis) -> None:
    server = own_redis()
    here, there = make_layers(server.url, server.url, timeout=0.5)
    async with here, there, there.subscribe_presence("room") as events:
        server.kill()
        with here.open_mailbox() as mailbox, there.open_mailbox() as other:
            with pytest.raises(ChannelLayerUnavailable, match="that a key is tracked in 'room'"):
                await here.track_channel("room", mailbox.name, "ann")
            with pytest.raises(ChannelLayerUnavailable, match="who is in 'new'"):
                await there.watch_presence("new", other.name)
            with pytest.raises(ChannelLayerUnavailable):
                await there.presence("elsewhere")
            assert set(there._session().presence.views) == {"room"}
            await trio.to_thread.run_sync(server.start)
            await until_state(events, lambda state: "ann" in state)
            await here.track_channel("room", mailbox.name, "ann")
            await until(lambda: _watch(there, other.name))


async def _watch(layer: ChannelLayer, channel: str) -> bool:
    try:
        await layer.watch_presence("new", channel)
    except ChannelLayerUnavailable:
        return False
    return True


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_cancelled_track_stands(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there:
        with here.open_mailbox() as mailbox:
            with trio.CancelScope() as scope:
                scope.cancel()
                await here.track_channel("room", mailbox.name, "early")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(here.track_channel, "room", mailbox.name, "ann")
                    await until(lambda: here.statistics().tracked == 1)
                    scope.cancel()
            await eventually(there, "room", {"ann": [{}]})
        await eventually(there, "room", {})


async def test_cancelled_watch_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    async with layer:

        async def read(_group: str) -> None:
            await trio.sleep_forever()

        monkeypatch.setattr(layer._session().shards[0].views, "read", read)
        with layer.open_mailbox() as mailbox:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(layer.watch_presence, "room", mailbox.name)
                    await until(lambda: layer._session().presence.views)
                    scope.cancel()
            assert layer._session().presence.views == {}
            async with layer.track("room", "ann"):
                assert mailbox.get_nowait() is None
                assert layer.statistics().memberships == 0


async def test_mailbox_that_ends_while_it_begins_to_watch(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    async with layer, trio.open_nursery() as nursery:
        views, go = layer._session().shards[0].views, trio.Event()
        original = views.read

        async def read(group: str) -> Any:
            await go.wait()
            return await original(group)

        monkeypatch.setattr(views, "read", read)
        with layer.open_mailbox() as mailbox:
            nursery.start_soon(layer.watch_presence, "room", mailbox.name)
            await until(lambda: layer._session().presence.views)
        go.set()
        await until(lambda: not layer._session().presence.views)
        assert mailbox.presence is None


# -- the content of Redis ----------------------------------------------------------------------------------------------


async def test_hash_is_encrypted_and_ends_with_the_last_key(url: str) -> None:
    options: Any = {"symmetric_encryption_keys": ["secret"]}
    here, there = make_layers(url, url, **options)
    async with here, there, there.subscribe_presence("room") as events:
        async with here.track("room", "ann of the secret", {"secret": "meta"}):
            await until_state(events, lambda state: "ann of the secret" in state)
            content = await redis(url, "HGETALL", f"{{{here.prefix}:0}}:p:room")
            assert len(content) == 2
            assert b"secret" not in content[1]
            assert await redis(url, "PTTL", f"{{{here.prefix}:0}}:p:room") > 0
        await until_state(events, lambda state: not state)
        assert "p:room" not in await keys(url, here)


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: b"no blob",
        lambda layer: layer._codec.pack(PRESENCE, "other", {"key": "forged", "meta": {}}),
        lambda layer: layer._codec.pack(GROUP, "room", {"key": "forged", "meta": {}}),
        lambda layer: layer._codec.pack(PRESENCE, "room", {"key": 5, "meta": {}}),
        lambda layer: layer._codec.pack(PRESENCE, "room", {"key": "forged"}),
    ],
)
async def test_malformed_tracking_is_skipped(
    url: str, caplog: pytest.LogCaptureFixture, make: Callable[[RedisStreamsChannelLayer], bytes]
) -> None:
    here, there = make_layers(url, url)
    async with here, there, here.track("room", "ann"):
        ref = f"{here._session().process}.999"
        await redis(url, "HSET", f"{{{here.prefix}:0}}:p:room", ref, make(here))
        assert set(await there.presence("room")) == {"ann"}
        assert f"tracking {ref} of 'room' is skipped" in caplog.text


async def test_malformed_change_is_skipped(url: str, caplog: pytest.LogCaptureFixture) -> None:
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as events:
        shard = here._session().shards[0]
        blob = here._codec.pack(GROUP, "room:presence", {"type": presence.CHANGE, "joins": "nonsense"})
        await shard.pipeline.call_combined(shard.group_sends, shard.group_sends.part("room:presence", blob), len(blob))
        async with here.track("room", "ann"):
            await until_state(events, lambda state: "ann" in state)
        assert "a message about the presence of 'room' is skipped" in caplog.text


async def test_view_takes_its_own_keys_from_the_table_only(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.track("room", "ann"), layer.subscribe_presence("room") as events:
        session = layer._session()
        late = {"joins": [(f"{session.process}.99", "late", {})], "leaves": [events.state["ann"][0]["ref"]]}
        session.shards[0].views._followers["room"].mailbox.put(layer._envelope({"type": presence.CHANGE, **late}))
        assert await layer.presence("room") == events.state


async def test_json_shows_the_same_meta_everywhere(url: str) -> None:
    here, there = make_layers(url, url, serializer_format="json")
    async with here, there, here.track("room", "ann", {"data": b"\x00\xff", "n": 1}):
        seen = await there.presence("room")
        assert seen == await here.presence("room")
        assert plain(seen) == {"ann": [{"data": "AP8=", "n": 1}]}


async def test_large_changes_are_sent_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BATCH_BYTES", 5_000)
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as events:
        with here.open_mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(here.track_channel, "room", mailbox.name, f"k{number}", {"x": "y" * 1_000})
            await until_state(events, lambda state: len(state) == 20)


async def test_key_that_ends_before_redis_had_it_is_never_sent(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        sync = layer._session().shards[0].presence
        sync.changed([Tracking("room", "ann", "p.1", {})], {})
        sync.changed([], {("room", "p.1"): False})
        await sync.settle(("room", "p.1"))
        assert "p:room" not in await keys(url, layer)


async def test_fast_changes_end_in_the_last_one(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as events:
        with here.open_mailbox() as mailbox:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(here.track_channel, "room", mailbox.name, "ann", {"n": number})
            await until_state(events, lambda state: len(state.get("ann", ())) == 1)
            await eventually(there, "room", plain(await here.presence("room")))
        await until_state(events, lambda state: not state)
        assert json.loads(json.dumps(events.state)) == {}


@pytest.mark.usefixtures("short_lease")
async def test_work_goes_on_after_a_crash_of_each_task(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_layers(url, url)
    async with here, there:
        sync, views = here._session().shards[0].presence, there._session().shards[0].views
        crashes = iter([KeyError("crash"), KeyError("crash")])
        original_call, original_read = sync._call, views.read

        async def call(*args: Any) -> list[int]:
            for crash in crashes:
                raise crash
            return await original_call(*args)

        async def read(group: str) -> Any:
            for crash in crashes:
                raise crash
            return await original_read(group)

        monkeypatch.setattr(sync, "_call", call)
        async with here.track("room", "ann"):
            crashes = iter([KeyError("crash")])
            monkeypatch.setattr(views, "read", read)
            async with there.subscribe_presence("room") as events:
                assert set(events.state) == {"ann"}
        assert here._session().shards[0].supervisor.crashes == 2
        assert there._session().shards[0].supervisor.crashes == 1


async def test_large_hash_is_read_in_parts(url: str) -> None:
    here, there = make_layers(url, url)
    async with here, there, here.track("room", "ann"):
        rows: list[Any] = [b"\xff.1", b"not UTF-8"]
        for number in range(1_200):
            blob = here._codec.pack(PRESENCE, "room", {"key": f"k{number}", "meta": {}})
            rows += (f"{here._session().process}.x{number}", blob)
        await redis(url, "HSET", f"{{{here.prefix}:0}}:p:room", *rows)
        assert len(await there.presence("room")) == 1_201


async def test_message_that_redis_refuses_is_sent_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = make_layers(url, url)
    async with here, there, there.subscribe_presence("room") as events:
        pipeline = here._session().shards[0].pipeline
        original, failures = pipeline.call_combined, iter([True])

        async def call(*args: Any) -> Any:
            for _ in failures:
                raise ChannelLayerUnavailable("on purpose")
            return await original(*args)

        monkeypatch.setattr(pipeline, "call_combined", call)
        async with here.track("room", "ann"):
            await until_state(events, lambda state: "ann" in state)


async def test_refreshing_and_sweeping_outlive_an_outage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keys, "LEASE", 0.6)
    here, there = make_layers(url, url)
    async with here, there, tracked(here, "ann"), there.subscribe_presence("room") as events:
        sync, views = here._session().shards[0].presence, there._session().shards[0].views
        for part, name in ((sync, "_call"), (views, "_look")):
            original, calls = getattr(part, name), [0]

            async def call(*args: Any, original: Any = original, calls: list[int] = calls) -> Any:
                calls[0] += 1
                if calls[0] < 3:
                    raise ChannelLayerUnavailable("on purpose")
                return await original(*args)

            monkeypatch.setattr(part, name, call)
            await until(lambda calls=calls: calls[0] > 4)
        assert set(events.state) == {"ann"}


async def test_view_that_is_closed_is_not_read(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        views = layer._session().shards[0].views
        async with layer.subscribe_presence("room"):
            follower = views._followers["room"]
        await views._load(follower)
        assert layer._session().hub.groups == {}


async def test_view_that_is_closed_while_it_is_read_stays_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    async with layer:
        views = layer._session().shards[0].views
        watching = AsyncExitStack()
        await watching.enter_async_context(layer.subscribe_presence("room"))
        follower = views._followers["room"]
        follower.view.loaded = trio.Event()
        read = views.read

        async def closes(group: str) -> Any:
            found = await read(group)
            await watching.aclose()
            return found

        monkeypatch.setattr(views, "read", closes)
        await views._load(follower)
        assert views._followers == {}
        assert not follower.view.loaded.is_set()


async def test_parts_tell_their_state(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, tracked(layer, "ann", "bob"), layer.subscribe_presence("room"):
        shard = layer._session().shards[0]
        assert repr(shard.presence) == "<PresenceSync: Redis has 2 trackings, 0 changes wait>"
        assert repr(shard.views) == "<PresenceViews: 1 views>"
        assert repr(shard.views._followers["room"]) == "<Follower of <View of room, 2 trackings, 1 watchers>>"
        assert repr(layer._session().presence._backend).startswith("<RedisPresence of <Session ")
