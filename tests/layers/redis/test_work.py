"""What workers rely on in Redis: take-over, dead letters, lost replies, outages, expiry."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from trio_channels.abc import Delivery, WorkSource
from trio_channels.exceptions import ChannelFull, ChannelLayerUnavailable, InvalidNameError
from trio_channels.layers.redis import RedisStreamsChannelLayer, _work
from trio_channels.layers.redis._work import RedisWorkSource

from .proxy import open_proxy
from .test_named import job, port_of, stream_of
from .world import connections, make_layers, redis, until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "LOOK_INTERVAL", 0.02)


async def take(source: WorkSource, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    with trio.fail_after(20):
        while len(taken) < count:
            taken += await source.take(10)
    return taken


def dying(layer: RedisStreamsChannelLayer, *, claim_after: float = 30.0) -> RedisWorkSource:
    """A source that nobody keeps, and that never says farewell: that of a process which dies."""
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


async def test_what_a_living_worker_has_in_hand_is_not_taken_over(url: str) -> None:
    first, second = make_layers(url, url)
    async with first, second:
        await first.send("jobs", job(0))
        async with (
            first.work_queue("jobs").serve(claim_after=0.6) as holder,
            second.work_queue("jobs").serve(claim_after=0.6) as other,
        ):
            [held] = await take(holder, 1)
            with trio.move_on_after(1.5):
                await other.take(1)
                pytest.fail("taken over from a living worker")
            assert await holder.done(held) is True


async def test_who_was_taken_for_dead_is_told_when_it_settles(url: str, caplog: pytest.LogCaptureFixture) -> None:
    [layer] = make_layers(url)
    async with layer:
        await layer.send("jobs", job(0))
        slow = dying(layer, claim_after=0.1)
        [held] = await take(slow, 1)
        async with layer.work_queue("jobs").serve(claim_after=0.05) as source:
            [taken] = await take(source, 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow.keep)
                await until(lambda: "another worker has taken message" in caplog.text)
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


async def test_a_message_whose_workers_died_often_enough_is_a_dead_letter(
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
            await until(lambda: _took(source, 1))
            assert source.settled.died == 1
        [letter] = await layer.work_queue("jobs").dead_letters()
        assert (letter.message, letter.deliveries) == (job(0), 2)
        assert "was delivered 2 times, and each time the worker died with it" in caplog.text


async def _took(source: WorkSource, number: int) -> bool:
    """Settle what comes, and take on until a dead worker's message has been buried as well."""
    with trio.move_on_after(0.2):
        for delivery in await source.take(10):
            await source.done(delivery)
    return source.settled.died == number


async def test_the_names_of_workers_do_not_pile_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "FORGET_AFTER", 0.0)
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


# -- a network that loses ---------------------------------------------------------------------------------------------


async def test_messages_whose_delivery_was_lost_on_the_way_come_with_the_next_connection(url: str) -> None:
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


async def test_a_settlement_whose_reply_was_lost_is_made_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_work, "SETTLE_AGAIN", 0.01)
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


async def test_an_outage_is_waited_for_and_told_once(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_work, "SETTLE_AGAIN", 0.01)
    async with open_proxy(port_of(url)) as proxy:
        sender, worker = make_layers(url, proxy.url, timeout=0.3)
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
                await trio.sleep(1)
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


async def test_leaving_without_redis_ends_within_the_time_limit_and_says_what_is_left(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_proxy(port_of(url)) as proxy:
        sender, worker = make_layers(url, proxy.url, timeout=0.2)
        async with sender, worker:
            await sender.send("jobs", job(0))
            with trio.fail_after(10):
                async with worker.work_queue("jobs").serve() as source:
                    await take(source, 1)
                    proxy.stall()
            proxy.resume()
    assert "jobs: 1 messages could not be given back" in caplog.text


async def test_a_stream_that_is_deleted_under_a_worker_is_made_again(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await layer.send("jobs", job(0))
        [held] = await take(source, 1)
        await redis(url, "DEL", stream_of(layer))
        assert await source.done(held) is True
        await layer.send("jobs", job(1))
        assert [each.message["n"] for each in await take(source, 1)] == [1]


# -- what cannot be handled -------------------------------------------------------------------------------------------


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


async def test_the_oldest_dead_letter_goes_when_there_are_too_many_and_the_log_says_so(
    url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_work, "DEAD_LETTERS", 2)
    [layer] = make_layers(url)
    async with layer:
        queue = layer.work_queue("jobs")
        async with queue.serve() as source:
            for number in range(3):
                await layer.send("jobs", job(number))
            for delivery in await take(source, 3):
                await source.bury(delivery, "")
        assert [letter.message for letter in await queue.dead_letters()] == [job(1), job(2)]
    assert "jobs has 2 dead letters; the oldest was lost" in caplog.text


@pytest.mark.parametrize("wrong", ["", "x", "1-0 2-0"])
async def test_what_is_no_id_of_a_dead_letter_is_refused(url: str, wrong: str) -> None:
    [layer] = make_layers(url)
    async with layer:
        for call in (layer.work_queue("jobs").requeue, layer.work_queue("jobs").discard):
            with pytest.raises(InvalidNameError, match="the id of a dead letter is as"):
                await call(wrong)


# -- expiry -----------------------------------------------------------------------------------------------------------


async def test_a_message_that_nobody_took_in_time_is_lost_counted_and_logged(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    [layer] = make_layers(url, expiry=0.2)
    async with layer:
        await layer.send("jobs", job(0))
        await trio.sleep(0.3)
        await layer.send("jobs", job(1))
        async with layer.work_queue("jobs").serve() as source:
            assert [each.message["n"] for each in await take(source, 1)] == [1]
            assert source.settled.expired == 1
        assert layer.statistics().expired == 1
    assert "is lost: no worker took it within 0.2 seconds (the layer's 'expiry')" in caplog.text


async def test_a_message_that_a_worker_has_does_not_expire_to_make_room(url: str) -> None:
    [layer] = make_layers(url, expiry=0.2, capacity=2)
    async with layer:
        await layer.send("jobs", job(0))
        await take(dead := dying(layer), 1)
        await layer.send("jobs", job(1))
        await trio.sleep(0.3)
        await layer.send("jobs", job(2))  # job 1 makes room
        with pytest.raises(ChannelFull):
            await layer.send("jobs", job(3))
        await dead._reader.disconnect()
        async with layer.work_queue("jobs").serve(claim_after=0.01) as source:
            assert sorted(each.message["n"] for each in await take(source, 2)) == [0, 2]


async def test_a_queue_of_a_layer_that_is_not_open_says_so(url: str) -> None:
    [layer] = make_layers(url)
    queue: Any = layer.work_queue("jobs")
    with pytest.raises(ChannelLayerUnavailable, match="not open"):
        async with queue.serve():
            pytest.fail("served")


async def test_the_repr_of_a_source_tells_what_is_in_hand(url: str) -> None:
    [layer] = make_layers(url)
    async with layer, layer.work_queue("jobs").serve() as source:
        await layer.send("jobs", job(0))
        await take(source, 1)
        assert repr(source).startswith("<RedisWorkSource jobs as ")
        assert repr(source).endswith(", 1 in hand>")
