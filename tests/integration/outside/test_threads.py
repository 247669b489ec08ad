"""``async_to_sync(layer.group_send)`` from threads: on a layer that nobody has opened."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from trio_channels.exceptions import ChannelLayerUnavailable
from trio_channels.layers import get_channel_layer
from trio_channels.layers.redis import RedisStreamsChannelLayer
from trio_channels.sync import async_to_sync, sync_to_async

from ...redis_server import RedisServer, needs_redis
from .conftest import PATIENCE, Room

THREADS, SENDS = 20, 50


def say(text: str, kind: str = "said") -> None:
    layer = get_channel_layer()
    assert layer is not None
    async_to_sync(layer.group_send)("room", {"type": kind, "text": text})


def end() -> None:
    say("", kind="last")


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["text"] for message in messages]


def test_twenty_threads_send_in_order_to_another_process(room: Room) -> None:
    receiver = room.listen()

    def talk(name: int) -> None:
        for number in range(SENDS):
            say(f"{name} {number}")

    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(talk, range(THREADS), timeout=PATIENCE))
    end()

    got = texts(receiver.messages())
    assert len(got) == THREADS * SENDS
    for name in range(THREADS):
        assert [text for text in got if text.startswith(f"{name} ")] == [f"{name} {n}" for n in range(SENDS)]


def test_from_threads_that_serve_asyncio_and_trio_it_arrives_as_well(room: Room) -> None:
    receiver = room.listen()

    async def on_asyncio() -> None:
        await asyncio.to_thread(say, "a thread of asyncio")

    async def on_trio() -> None:
        layer = get_channel_layer()
        assert layer is not None
        async with layer:  # as a server does; the plain thread below uses the background run all the same
            await trio.to_thread.run_sync(say, "a thread of Trio")
            await sync_to_async(say)("a worker")
            plain = threading.Thread(target=say, args=("a plain thread",))
            plain.start()
            await trio.to_thread.run_sync(plain.join)

    asyncio.run(on_asyncio())
    trio.run(on_trio)
    end()

    assert texts(receiver.messages()) == ["a thread of asyncio", "a thread of Trio", "a worker", "a plain thread"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forked_child_opens_the_layer_for_itself(room: Room) -> None:
    receiver = room.listen()
    say("the parent")
    child = os.fork()
    if child == 0:
        try:
            say("the child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    say("the parent again")
    end()

    assert texts(receiver.messages()) == ["the parent", "the child", "the parent again"]


def test_every_operation_opens_the_layer_in_the_background_run(room: Room) -> None:
    async def round_trip(layer: RedisStreamsChannelLayer) -> list[Any]:
        async with layer.subscribe("room") as events:
            await layer.group_send("room", {"type": "one"})
            return [await anext(events)]

    def layer() -> RedisStreamsChannelLayer:
        return RedisStreamsChannelLayer(**room.layers["default"]["CONFIG"])

    first, fresh, last = layer(), layer(), layer()
    assert async_to_sync(round_trip)(first) == [{"type": "one"}]
    channel = async_to_sync(fresh.new_channel)()
    async_to_sync(fresh.group_add)("room", channel)
    async_to_sync(fresh.group_discard)("room", channel)
    async_to_sync(fresh.send)(channel, {"type": "two"})
    assert async_to_sync(fresh.receive)(channel) == {"type": "two"}
    async_to_sync(last.flush)()
    for each in first, fresh, last:
        async_to_sync(each.close)()


def test_layer_that_was_closed_by_hand_is_opened_again(room: Room) -> None:
    receiver = room.listen()
    layer = get_channel_layer()
    assert layer is not None
    say("before")
    async_to_sync(layer.close)()
    say("after")
    end()

    assert texts(receiver.messages()) == ["before", "after"]


def test_inside_a_trio_run_it_must_be_opened_as_before(room: Room) -> None:
    async def main() -> None:
        with pytest.raises(ChannelLayerUnavailable, match="not open in this Trio run: serve through"):
            await sync_to_async(say)("too early")

    trio.run(main)


@needs_redis
@pytest.mark.faults
def test_redis_that_is_away_is_an_error_until_it_is_back() -> None:
    server = RedisServer()
    layer = RedisStreamsChannelLayer(hosts=[server.url], timeout=0.5)

    def refused() -> bool:
        try:
            async_to_sync(layer.group_send)("room", {"type": "said"})
        except ChannelLayerUnavailable:
            return True
        return False

    try:
        with ThreadPoolExecutor(3) as executor:  # all of them wait for one attempt to open it
            assert list(executor.map(lambda _: refused(), range(3), timeout=PATIENCE)) == [True] * 3
        server.start()
        assert not refused()
        server.kill()
        assert refused()
        server.start()
        patience = threading.Event()
        tries = 0
        while refused():
            tries += 1
            assert tries < 100
            patience.wait(0.05)
    finally:
        async_to_sync(layer.close)()
        server.close()
