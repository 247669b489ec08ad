"""Messages to groups that share a command: each has its own answer, runs once, and is withdrawn alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers.base import Gap
from trio_channels.layers.redis import RedisStreamsChannelLayer, pipeline, probe
from trio_channels.layers.redis.batch import Batch, Call, GroupSends
from trio_channels.layers.redis.keys import ShardKeys
from trio_channels.layers.redis.pipeline import IN_FLIGHT
from trio_channels.layers.redis.scripts import GROUP_ADD, GROUP_SEND

from ...redis_server import RedisServer
from .proxy import open_proxy
from .world import held_back, make_layers, redis, until

pytestmark = pytest.mark.slow

OwnRedis = Callable[..., RedisServer]

DEADLINE = 60.0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch probes off: they would be among the commands that these tests count."""
    monkeypatch.setattr(probe, "INTERVAL", 1000)


class Commands:
    """Records how many messages each command of a layer's shard carries, from now on."""

    def __init__(self, layer: RedisStreamsChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        [shard] = layer._session().shards
        sizes = self.sizes

        class Recorded(Batch):
            def __init__(self, calls: list[Call]) -> None:
                super().__init__(calls)
                if any(call.combine is shard.group_sends for call in calls):
                    sizes.extend(count for count in self._counts if count)

        monkeypatch.setattr(pipeline, "Batch", Recorded)


async def send_at_once(
    layer: RedisStreamsChannelLayer, *messages: tuple[str, int], gives_up: int | None = None
) -> list[Any]:
    """Send to groups, in one command if possible. Each result is None, an exception, or "no answer".

    Args:
        gives_up: the index of a send that is cancelled while the command is under way, and gets no answer.
    """
    results: list[Any] = ["no answer"] * len(messages)
    scopes = [trio.CancelScope() for _ in messages]
    [shard] = layer._session().shards

    async def send(place: int, group: str, number: int) -> None:
        with scopes[place]:
            try:
                results[place] = await layer.group_send(group, {"type": "x", "n": number})  # type: ignore[func-returns-value]
            except ChannelLayerUnavailable as error:
                results[place] = error

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            with held_back(shard.pipeline):
                for place, (group, number) in enumerate(messages):
                    nursery.start_soon(send, place, group, number)
                    await trio.lowlevel.checkpoint()
                await until(lambda: shard.pipeline.statistics().waiting >= len(messages))
            if gives_up is not None:
                scopes[gives_up].cancel()
    return results


async def numbers_of(events: Any, count: int) -> list[Any]:
    with trio.fail_after(DEADLINE):
        items = [await anext(events) for _ in range(count)]
    return [item if isinstance(item, Gap) else item["n"] for item in items]


async def test_refused_message_does_not_affect_others_in_its_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("good") as events:
        commands = Commands(layer, monkeypatch)
        await redis(url, "SET", f"{{{layer.prefix}:0}}:g:bad", "no hash")
        results = await send_at_once(layer, *(("good" if n % 2 else "bad", n) for n in range(20)))
        assert max(commands.sizes) == 20
        assert all(result is None for result in results[1::2])
        assert all("WRONGTYPE" in str(result) for result in results[::2])
        assert await numbers_of(events, 10) == list(range(1, 20, 2))
        assert layer.statistics().group_sent == 10
        assert layer.shard_statistics()[0].pipeline.connections == 1


async def test_inbox_of_another_type_refuses_its_groups_only(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("good", "bad") as events:
        tag = f"{{{layer.prefix}:0}}"
        await redis(url, "SET", f"{tag}:i:forged", "no stream")
        await redis(url, "HSET", f"{tag}:g:bad", "forged", "1")
        results = await send_at_once(layer, *(("good" if n % 2 else "bad", n) for n in range(20)))
        assert [result is None for result in results] == [False, True] * 10
        assert await numbers_of(events, 10) == list(range(1, 20, 2))


async def test_server_without_memory_refuses_the_whole_command(own_redis: OwnRedis) -> None:
    url = own_redis().url
    [layer] = make_layers(url)
    async with layer, layer.subscribe("a", "b") as events:
        await redis(url, "CONFIG", "SET", "maxmemory", "1")
        results = await send_at_once(layer, *(("ab"[n % 2], n) for n in range(20)))
        assert all("OOM command not allowed" in str(result) for result in results)
        await redis(url, "CONFIG", "SET", "maxmemory", "0")
        assert await send_at_once(layer, *(("ab"[n % 2], n) for n in range(20, 40))) == [None] * 20
        assert await numbers_of(events, 20) == list(range(20, 40))
        assert layer.shard_statistics()[0].pipeline.connections == 1


@pytest.mark.parametrize("lost", [1, 3])
async def test_messages_of_one_command_whose_answer_was_lost_arrive_once(url: str, lost: int) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(proxy.url, url)
        async with first, second, second.subscribe("a", "b") as events:
            await first.group_send("a", {"type": "x", "n": -1})
            proxy.lose_reply_to(GROUP_SEND.sha.encode(), lost)
            assert await send_at_once(first, *(("ab"[n % 2], n) for n in range(40))) == [None] * 40
            assert proxy.lost_replies == lost
            await first.group_send("b", {"type": "x", "n": 40})
            assert await numbers_of(events, 42) == list(range(-1, 41))
            assert second.shard_statistics()[0].gaps == 0


async def test_refusals_of_a_repeated_command_are_counted_once(url: str) -> None:
    async with open_proxy(port_of(url)) as before, open_proxy(port_of(url)) as behind:
        first, second = make_layers(before.url, behind.url, inbox_capacity=30)
        async with first, second, second.subscribe("a", "b") as events:
            [shard] = second._session().shards
            behind.stall()
            before.lose_reply_to(GROUP_SEND.sha.encode(), 2)
            assert await send_at_once(first, *(("ab"[n % 2], n) for n in range(100))) == [None] * 100
            assert before.lost_replies == 2
            assert await redis(url, "XLEN", shard.keys.inbox) == 31
            behind.resume()
            assert await numbers_of(events, 31) == [*range(30), Gap(70, "the inbox was full")]


async def test_dead_process_leaves_all_groups_of_a_command(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("a", "b") as events:
        tag = f"{{{layer.prefix}:0}}"
        for group in "ab":
            await redis(url, "HSET", f"{tag}:g:{group}", "dead", "1")
        assert await send_at_once(layer, *(("ab"[n % 2], n) for n in range(20))) == [None] * 20
        assert await numbers_of(events, 20) == list(range(20))
        for group in "ab":
            assert await redis(url, "HLEN", f"{tag}:g:{group}") == 1


async def test_two_thousand_groups_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    groups = [f"group-{number}" for number in range(2 * IN_FLIGHT)]
    async with layer, layer.subscribe(*groups) as events:
        commands = Commands(layer, monkeypatch)
        assert set(await send_at_once(layer, *((group, n) for n, group in enumerate(groups)))) == {None}
        assert max(commands.sizes) == IN_FLIGHT
        assert await numbers_of(events, len(groups)) == list(range(len(groups)))


# -- the numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "numbers", "sent", "noted"),
    [
        (None, [3, 4], [3, 4], "4"),
        ("4", [3, 4, 5, 9], [5, 9], "9"),
        ("9", [3, 4], [], "9"),  # over a connection that was thought dead
        ("9 4", [3, 4, 5], [3, 4], "9 4"),  # numbers up to 4 may come late, and are sent; receivers drop duplicates
        ("9 4", [10], [10], "10 4"),
        ("9 12", [11], [11], "11 12"),
    ],
)
async def test_which_messages_have_come_before(
    url: str, note: str | None, numbers: list[int], sent: list[int], noted: str
) -> None:
    [layer] = make_layers(url)
    async with layer:
        [shard] = layer._session().shards
        tag = shard.tag
        await redis(url, "XADD", f"{tag}:i:them", "*", "first", "1")
        await redis(url, "HSET", f"{tag}:g:room", "them", "1")
        sends = GroupSends(ShardKeys(tag, "us", lambda: 0, 5), 100)
        if note is not None:
            await redis(url, "SET", f"{tag}:done:us", note)
        messages = [(number, f"{tag}:g:room", b"blob") for number in numbers]
        assert await shard.pipeline.call(*sends(messages)) == [int(number in sent) for number in numbers]
        entries = await redis(url, "XRANGE", f"{tag}:i:them", "-", "+")
        assert [fields[1] for _, fields in entries[1:]] == [f"us-{number}".encode() for number in sent]
        assert await redis(url, "GET", f"{tag}:done:us") == noted.encode()
        # Other commands keep the second part of the note, about late messages.
        await shard.pipeline.call(
            *GROUP_ADD(f"{tag}:done:us", f"{tag}:i:us", f"{tag}:g:other", args=("us", 99, 1000, 1000, "1"))
        )
        _, *late = noted.split()
        assert await redis(url, "GET", f"{tag}:done:us") == " ".join(["99", *late]).encode()


# -- callers that give up ----------------------------------------------------------------------------------------------


async def test_who_gives_up_takes_only_his_own_message_back(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        first, second = make_layers(proxy.url, url)
        async with first, second, second.subscribe("room") as events:
            [shard] = first._session().shards
            proxy.stall()
            scopes = [trio.CancelScope() for _ in range(12)]

            async def send(number: int) -> None:
                with scopes[number]:
                    await first.group_send("room", {"type": "x", "n": number})

            with trio.fail_after(DEADLINE):
                async with trio.open_nursery() as nursery:
                    for number in range(12):
                        nursery.start_soon(send, number)
                        await trio.testing.wait_all_tasks_blocked()
                    assert (shard.pipeline.statistics().unanswered, shard.pipeline.statistics().waiting) == (1, 11)
                    for number in (0, 5):  # 0 has been sent, 5 has not
                        scopes[number].cancel()
                    await trio.testing.wait_all_tasks_blocked()
                    assert shard.pipeline.statistics().waiting == 10
                    proxy.resume()
                    await until(lambda: shard.pipeline.statistics().unanswered == 0)
            assert await numbers_of(events, 11) == [n for n in range(12) if n != 5]


async def test_caller_that_gives_up_leaves_others_their_answers(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.subscribe("room") as events:
        results = await send_at_once(layer, *(("room", n) for n in range(12)), gives_up=3)
        assert results == [None] * 3 + ["no answer"] + [None] * 8
        assert await numbers_of(events, 12) == list(range(12))


# -- callers that wait -------------------------------------------------------------------------------------------------


async def test_callers_are_told_in_time_while_the_link_is_down(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url, timeout=0.5)
        async with layer:
            proxy.stall()
            results = await send_at_once(layer, *(("room", n) for n in range(50)))
            assert all("did not answer within 0.5 seconds" in str(result) for result in results)
            [shard] = layer._session().shards
            assert shard.pipeline.statistics().waiting == 0
            proxy.resume()


async def test_callers_are_told_in_time_while_the_link_crashes(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1, "trio_channels.layers.redis")
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url, timeout=0.5)
        async with layer:
            [shard] = layer._session().shards

            async def crash(*_: object) -> None:
                raise RuntimeError("nobody has foreseen it")

            monkeypatch.setattr(pipeline, "_prepare", crash)
            proxy.cut()
            await until(lambda: shard.supervisor.crashes > 0)
            results = await send_at_once(layer, *(("room", n) for n in range(20)))
            assert all("did not answer within 0.5 seconds (not sent)" in str(result) for result in results)
            monkeypatch.undo()


@pytest.mark.parametrize("connected", [True, False])
async def test_caller_does_not_wait_for_a_layer_that_has_been_left(url: str, connected: bool) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [layer] = make_layers(proxy.url)
        raised: list[str] = []

        async def send() -> None:
            with pytest.raises(ChannelLayerUnavailable) as caught:
                await layer.group_send("room", {"type": "x"})
            raised.append(str(caught.value))

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with layer:
                        [shard] = layer._session().shards
                        proxy.stall()
                        if not connected:
                            proxy.cut()
                            await until(lambda: not shard.pipeline.statistics().connected)
                        for _ in range(3):
                            nursery.start_soon(send)
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel()  # so that leaving takes no time
                with pytest.raises(ChannelLayerUnavailable, match="before the layer was closed"):
                    await shard.pipeline.call("PING")
        assert len(raised) == 3
        assert all("did not answer before the layer was closed" in text for text in raised)


async def test_command_refused_by_multi_does_not_affect_its_batch(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        [shard] = layer._session().shards
        results: dict[str, Any] = {}

        async def call(command: str) -> None:
            try:
                results[command] = await shard.pipeline.call(command)
            except ChannelLayerUnavailable as error:
                results[command] = str(error)

        with trio.fail_after(DEADLINE):
            async with trio.open_nursery() as nursery:
                with held_back(shard.pipeline):
                    for command in ("PING", "NO-SUCH-COMMAND", "TIME"):
                        nursery.start_soon(call, command)
                    await until(lambda: shard.pipeline.statistics().waiting >= 3)
        assert results["PING"] == b"PONG"
        assert "unknown command" in results["NO-SUCH-COMMAND"]
        assert len(results["TIME"]) == 2
        assert shard.pipeline.statistics().connections == 1
