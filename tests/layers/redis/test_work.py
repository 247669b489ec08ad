"""The work queues' promises on Redis: take-over, dead letters, lost replies, outages, expiry."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidNameError
from trio_channels.layers.base import Delivery, WorkSource
from trio_channels.layers.redis import RedisStreamsChannelLayer, work_source
from trio_channels.layers.redis.codec import NAMED
from trio_channels.layers.redis.work_source import RedisWorkSource
from trio_channels.worker import Worker

from .proxy import open_proxy
from .test_named_channel import job, port_of, stream_of
from .world import connections, make_layers, redis, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_source, "LOOK_INTERVAL", 0.02)


async def take(source: WorkSource, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    with trio.fail_after(20):
        while len(taken) < count:
            taken += await source.take(10)
    return taken


def dying(layer: RedisStreamsChannelLayer, *, claim_after: float = 30.0) -> RedisWorkSource:
    """The source of a process that dies: no task renews its messages, and it never leaves."""
    return RedisWorkSource(layer._work_context("jobs"), 5, claim_after)


async def consumers(url: str, layer: RedisStreamsChannelLayer) -> set[str]:
    rows = await redis(url, "XINFO", "CONSUMERS", stream_of(layer), "w")
    return {dict(zip(row[::2], row[1::2], strict=True))[b"name"].decode() for row in rows}


async def backlog(url: str, layer: RedisStreamsChannelLayer) -> tuple[int, int]:
    stream = stream_of(layer)
    return await redis(url, "XLEN", stream), (await redis(url, "XPENDING", stream, "w"))[0]


# -- taking over ------------------------------------------------------------------------------------------------------


async def test_what_a_dead_worker_had_is_taken_over_once_and_names_it(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for number in range(30):
            await layer.send("jobs", job(number))
        dead = dying(layer)
        await take(dead, 20)
        await dead._reader.disconnect()
        async with layer.work_queue("jobs").serve(claim_after=0.05) as source:
            taken = await take(source, 30)
            assert sorted(each.message["n"] for each in taken) == list(range(30))
            assert {each.count for each in taken if each.message["n"] < 20} == {2}
            assert {each.taken_from for each in taken if each.message["n"] < 20} == {dead._worker}
            assert {(each.count, each.taken_from) for each in taken if each.message["n"] >= 20} == {(1, None)}
            for each in taken:
                assert await source.done(each)
        assert await backlog(url, layer) == (0, 0)


async def test_messages_in_hand_are_renewed_and_count_once(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve(claim_after=0.15) as source:
        await layer.send("jobs", job(0))
        [held] = await take(source, 1)
        idle = [0]

        async def renewed_twice() -> bool:
            [[_id, _owner, now, count]] = await redis(url, "XPENDING", stream_of(layer), "w", "-", "+", 1)
            assert count == 1
            idle.append(now)
            return sum(later < earlier for earlier, later in itertools.pairwise(idle)) >= 2

        await until(renewed_twice)
        assert await source.done(held) is True


async def test_who_was_taken_for_dead_is_told_when_it_settles(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [layer] = make_layers(url)
    async with layer:
        await layer.send("jobs", job(0))
        slow = dying(layer, claim_after=0.1)
        [held] = await take(slow, 1)
        async with layer.work_queue("jobs").serve(claim_after=0.05) as source:
            [taken] = await take(source, 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow.renew)
                await until(lambda: "another worker has taken over message" in caplog.text)
                nursery.cancel_scope.cancel()
            assert await slow.done(held) is False
            assert slow.settled.superseded == 1
            await slow.retry(held, 0)
            await slow.bury(held, "")
            assert await source.done(taken) is True
        assert await layer.work_queue("jobs").dead_letters() == []
        await slow._reader.disconnect()


async def test_settled_twice_is_settled_once(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await layer.send("jobs", job(0))
        [delivery] = await take(source, 1)
        assert [await source.done(delivery), await source.done(delivery)] == [True, True]
        await source.bury(delivery, "")
        assert await layer.work_queue("jobs").dead_letters() == []
        assert source.settled.superseded == 0


async def test_message_whose_workers_died_often_enough_is_a_dead_letter(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    [layer] = make_layers(url)
    async with layer:
        await layer.send("jobs", job(0))
        await take(first := dying(layer), 1)
        await first._reader.disconnect()
        second = RedisWorkSource(layer._work_context("jobs"), 2, 0.01)
        assert [each.count for each in await take(second, 1)] == [2]
        await second._reader.disconnect()
        await layer.send("jobs", job(1))
        async with layer.work_queue("jobs").serve(max_deliveries=2, claim_after=0.01) as source:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_settle_what_comes, source)
                await until(lambda: source.settled.died)
                nursery.cancel_scope.cancel()
            assert source.settled.died == 1
        [letter] = await layer.work_queue("jobs").dead_letters()
        assert (letter.message, letter.deliveries) == (job(0), 2)
        assert "was delivered 2 times, and each time the worker died with it" in caplog.text


async def _settle_what_comes(source: WorkSource) -> None:
    while True:
        for delivery in await source.take(10):
            await source.done(delivery)


async def test_names_of_workers_do_not_pile_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_source, "FORGET_AFTER", 0.0)
    [layer] = make_layers(url)
    async with layer:
        await layer.send("jobs", job(0))
        before = await connections(url)
        for _ in range(3):
            dead = dying(layer)
            await dead._reader.connect()
            await redis(url, "XREADGROUP", "GROUP", "w", dead._worker, "STREAMS", stream_of(layer), "0")
            await dead._reader.disconnect()
            async with layer.work_queue("jobs").serve() as source:
                await take(source, 1)
        await trio.sleep(0.01)
        async with layer.work_queue("jobs").serve() as source:
            await source.done((await take(source, 1))[0])
        assert await consumers(url, layer) <= {"again"}

        async def as_before() -> bool:
            return await connections(url) == before

        await until(as_before)


# -- lost replies and outages -----------------------------------------------------------------------------------------


async def test_undelivered_messages_come_with_the_next_connection(url: str) -> None:
    async with open_proxy(port_of(url)) as proxy:
        sender, worker = make_layers(url, proxy.url)
        async with sender, worker, worker.work_queue("jobs").serve() as source:
            await sender.send("jobs", job(0))
            [held] = await take(source, 1)
            for number in (1, 2, 3):
                await sender.send("jobs", job(number))
            proxy.lose_reply_to(b"XREADGROUP")
            taken = await take(source, 3)
            assert proxy.lost_replies == 1
            assert [each.message["n"] for each in taken] == [1, 2, 3]
            for each in (held, *taken):
                assert await source.done(each) is True
        assert await backlog(url, sender) == (0, 0)


async def test_settlement_whose_reply_was_lost_is_made_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_source, "SETTLE_AGAIN", 0.01)
    async with open_proxy(port_of(url)) as proxy:
        sender, worker = make_layers(url, proxy.url)
        async with sender, worker, worker.work_queue("jobs").serve() as source:
            for number in range(3):
                await sender.send("jobs", job(number))
            done, again, buried = await take(source, 3)
            proxy.lose_reply_to(b":c:jobs")
            assert await source.done(done) is True
            proxy.lose_reply_to(b":c:jobs")
            await source.retry(again, 0)
            proxy.lose_reply_to(b":c:jobs")
            await source.bury(buried, "enough")
            assert proxy.lost_replies == 3
            assert [(each.message["n"], each.count) for each in await take(source, 1)] == [(1, 2)]
            assert [each.message for each in await sender.work_queue("jobs").dead_letters()] == [job(2)]


async def test_outage_is_waited_for_and_told_once(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(work_source, "SETTLE_AGAIN", 0.01)
    async with open_proxy(port_of(url)) as proxy:
        [worker] = make_layers(proxy.url, timeout=1.0)
        sender = RedisStreamsChannelLayer(hosts=[url], prefix=worker.prefix)
        async with sender, worker, worker.work_queue("jobs").serve(claim_after=0.3) as source:
            await sender.send("jobs", job(0))
            [held] = await take(source, 1)
            proxy.stall()
            got: list[Delivery] = []

            async def take_one() -> None:
                got.extend(await take(source, 1))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(source.done, held)
                nursery.start_soon(take_one)
                await until(lambda: "the worker cannot reach Redis" in caplog.text)
                proxy.resume()
                await sender.send("jobs", job(1))
            assert [each.message["n"] for each in got] == [1]
    told = [
        record.getMessage()
        for record in caplog.records
        if record.name.endswith("redis") and "jobs: " in record.msg % record.args
    ]
    assert sum("cannot reach Redis" in line for line in told) >= 1
    assert sum("jobs: Redis is back after" in line for line in told) == 1


async def test_leaving_without_redis_ends_in_time_and_is_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_proxy(port_of(url)) as proxy:
        [worker] = make_layers(proxy.url, timeout=1.0)
        sender = RedisStreamsChannelLayer(hosts=[url], prefix=worker.prefix)
        async with sender, worker:
            await sender.send("jobs", job(0))
            with trio.fail_after(10):
                async with worker.work_queue("jobs").serve() as source:
                    await take(source, 1)
                    proxy.stall()
            proxy.resume()
    assert "jobs: 1 messages could not be given back" in caplog.text


async def test_stream_that_is_deleted_under_a_worker_is_made_again(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await layer.send("jobs", job(0))
        [held] = await take(source, 1)
        await redis(url, "DEL", stream_of(layer))
        assert await source.done(held) is True
        await layer.send("jobs", job(1))
        assert [each.message["n"] for each in await take(source, 1)] == [1]


# -- messages that cannot be handled ----------------------------------------------------------------------------------


async def test_what_cannot_be_decoded_is_a_dead_letter(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await redis(url, "XADD", stream_of(layer), "*", "b", b"rubbish")
        await redis(url, "XADD", stream_of(layer), "*", "x", "y")
        await layer.send("jobs", job(0))
        assert [each.message["n"] for each in await take(source, 1)] == [0]
        assert source.settled.undecodable == 2
        letters = await layer.work_queue("jobs").dead_letters()
        assert [(letter.message, letter.why.partition(";")[0]) for letter in letters] == [
            (None, "expected an entry of version 1")
        ] * 2
    assert caplog.text.count("is a dead letter now: expected an entry of version 1") == 2


async def test_why_a_letter_is_dead_is_encrypted_as_its_message_is(url: str) -> None:
    pytest.importorskip("cryptography")
    [layer] = make_layers(url, symmetric_encryption_keys=["secret"])
    async with layer:
        queue = layer.work_queue("jobs")
        async with queue.serve() as source:
            await layer.send("jobs", job(0))
            await source.bury((await take(source, 1))[0], "ValueError: card 4711")
        assert [letter.why for letter in await queue.dead_letters()] == ["ValueError: card 4711"]
        assert b"4711" not in b"".join((await redis(url, "XRANGE", f"{stream_of(layer)}:dead", "-", "+"))[0][1])


@pytest.mark.parametrize("wrong", ["", "x", "1-0 2-0"])
async def test_what_is_no_id_of_a_dead_letter_is_refused(url: str, wrong: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for call in (layer.work_queue("jobs").requeue, layer.work_queue("jobs").discard):
            with pytest.raises(InvalidNameError, match="the id of a dead letter must look like"):
                await call(wrong)


# -- expiry -----------------------------------------------------------------------------------------------------------


async def send_long_ago(url: str, layer: RedisStreamsChannelLayer, number: int) -> None:
    """Send a job with an id of 1970."""
    blob = layer._codec.pack(NAMED, "jobs", job(number))
    await redis(url, "XADD", stream_of(layer), f"{number + 1}-0", "b", blob)


async def test_message_not_taken_in_time_is_counted_and_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [layer] = make_layers(url, expiry=100)
    async with layer:
        await send_long_ago(url, layer, 0)
        await layer.send("jobs", job(1))
        async with layer.work_queue("jobs").serve() as source:
            assert [each.message["n"] for each in await take(source, 1)] == [1]
            assert source.settled.expired == 1
        assert layer.statistics().expired == 1
    assert "is lost: no worker took it within 100 seconds (the layer's 'expiry')" in caplog.text


async def test_message_that_a_worker_has_does_not_expire_to_make_room(url: str) -> None:
    [layer] = make_layers(url, expiry=100, capacity=2)
    async with layer:
        for number in range(2):
            await send_long_ago(url, layer, number)
        await redis(url, "XGROUP", "CREATE", stream_of(layer), "w", "0")
        await redis(url, "XREADGROUP", "GROUP", "w", "dead", "COUNT", 1, "STREAMS", stream_of(layer), ">")
        await layer.send("jobs", job(2))  # job 1 expires, and makes room
        with pytest.raises(ChannelFull):
            await layer.send("jobs", job(3))
        async with layer.work_queue("jobs").serve(claim_after=0.01) as source:
            assert sorted(each.message["n"] for each in await take(source, 2)) == [0, 2]


async def test_queue_of_a_layer_that_is_not_open_says_so(url: str) -> None:
    [layer] = make_layers(url)
    queue: Any = layer.work_queue("jobs")
    with pytest.raises(ChannelLayerUnavailable, match="not open"):
        async with queue.serve():
            pytest.fail("served")


async def test_repr_of_a_source_tells_what_is_in_hand(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await layer.send("jobs", job(0))
        await take(source, 1)
        assert repr(source).startswith("<RedisWorkSource jobs as ")
        assert repr(source).endswith(", 1 in hand>")


async def test_key_of_another_kind_is_waited_for_and_named(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source, trio.open_nursery() as nursery:
        await redis(url, "SET", stream_of(layer), "no stream")
        got: list[Delivery] = []

        async def take_one() -> None:
            got.extend(await take(source, 1))

        nursery.start_soon(take_one)
        await until(lambda: "WRONGTYPE" in caplog.text)
        await redis(url, "DEL", stream_of(layer))
        await layer.send("jobs", job(0))
        await until(lambda: got)
        await redis(url, "DEL", stream_of(layer))
        await redis(url, "SET", stream_of(layer), "no stream")
        nursery.start_soon(take_one)
        await until(lambda: caplog.text.count("WRONGTYPE") == 2)
        await redis(url, "DEL", stream_of(layer))
        await layer.send("jobs", job(1))
        await until(lambda: len(got) == 2)
    assert [each.message["n"] for each in got] == [0, 1]


async def test_reader_without_a_connection_says_so(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        reader = layer._session().make_reader("jobs", "somebody")
        with pytest.raises(ChannelLayerUnavailable, match="has no connection"):
            await reader.ask(("PING",))


async def test_receiver_skips_what_was_deleted_while_it_was_pending(url: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for number in range(2):
            await layer.send("jobs", job(number))
        named = await layer._session().named("jobs")
        entry = await named._read()
        assert entry is not None
        await redis(url, "XDEL", stream_of(layer), entry[0])
        assert repr(named).endswith("connected, none held>")
        await named.disconnect()  # the next read looks at pending messages
        with trio.fail_after(20):
            assert (await layer.receive("jobs"))["n"] == 1
        assert await backlog(url, layer) == (0, 0)


# -- the worker on Redis ----------------------------------------------------------------------------------------------


async def drain_when(worker: Worker, condition: Callable[[], Any]) -> None:
    """Run a worker until a condition is met."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await until(condition)
            worker.drain()


async def test_worker_says_whose_message_it_has_taken_over(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    [layer] = make_layers(url)
    async with layer:
        await layer.send("jobs", job(0))
        await take(dead := dying(layer), 1)
        await dead._reader.disconnect()
        seen: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            seen.append((await receive(), scope["delivery"]["count"]))

        worker = Worker(application, ["jobs"], layer, claim_after=0.1)
        await drain_when(worker, lambda: seen)
    assert seen == [(job(0), 2)]
    assert worker.statistics().channels["jobs"].taken_over == 1
    assert f"of type 'job' (delivery 2 of 5): taken over from {dead._worker}, which is gone" in caplog.text


async def test_message_taken_over_is_not_handled_on_receive(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [layer] = make_layers(url)
    handled: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        handled.append((await receive())["n"])

    async def taken_over(self: RedisWorkSource, delivery: Delivery) -> bool:
        if delivery.message["n"] == 0:
            [row] = await redis(url, "XRANGE", stream_of(layer), delivery.id, delivery.id)
            await redis(url, "XCLAIM", stream_of(layer), "w", "another", "0", row[0])
        return await done(self, delivery)

    done = RedisWorkSource.done
    monkeypatch.setattr(RedisWorkSource, "done", taken_over)
    async with layer:
        for number in range(2):
            await layer.send("jobs", job(number))
        worker = Worker(application, ["jobs"], layer, ack="on-receive")
        await drain_when(worker, lambda: handled and worker.statistics().channels["jobs"].superseded)
        assert await backlog(url, layer) == (1, 1)
    assert handled == [1]


@pytest.mark.faults
async def test_a_worker_cancelled_repeatedly_loses_no_message(url: str) -> None:
    [layer] = make_layers(url)
    begun: list[int] = []
    ended: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        begun.append(message["n"])
        await trio.sleep(0.001)
        ended.append(message["n"])

    async with layer:
        for number in range(90):
            await layer.send("jobs", job(number))
        before = await connections(url)
        for limit in itertools.count(1):
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(Worker(application, ["jobs"], layer, concurrency=4).run)
                    # Cancel at another moment each time: after some more messages, while others are handled.
                    goal = min(len(begun) + limit % 7, len(begun) + 90 - len(set(ended)))
                    await until(lambda goal=goal: len(begun) >= goal)
                    nursery.cancel_scope.cancel()
            if (await backlog(url, layer))[0] == 0:
                break
        assert set(ended) == set(range(90))
        assert len(ended) == 90

        async def as_before() -> bool:
            return await connections(url) == before

        await until(as_before)
