"""The in-memory layer warns, once, of a message from a process in which nobody can receive it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.sync import async_to_sync

MESSAGE = {"type": "x"}

SENDS: list[Callable[[InMemoryChannelLayer], Awaitable[None]]] = [
    lambda layer: layer.group_send("room", MESSAGE),
    lambda layer: layer.send("jobs", MESSAGE),
    lambda layer: layer.send("specific!gone", MESSAGE),
]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    rows = [row for row in caplog.records if row.name == "trio_channels.layers.memory"]
    assert all(row.levelno == logging.WARNING for row in rows)
    return [row.getMessage() for row in rows]


@pytest.mark.parametrize("send", SENDS)
async def test_message_that_nobody_can_receive_is_told_once(send: Any, caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    for _ in range(3):
        await send(layer)
    [warning] = warnings(caplog)
    assert "reaches its own process only" in warning
    assert "RedisStreamsChannelLayer" in warning


def test_script_is_told(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    thread = threading.Thread(target=async_to_sync(layer.group_send), args=("room", MESSAGE))
    thread.start()
    thread.join()
    [warning] = warnings(caplog)
    assert warning.startswith("a message to 'room' was sent in a process that has served no connection")


async def opened(layer: InMemoryChannelLayer) -> None:
    async with layer:
        pass


async def had_a_connection(layer: InMemoryChannelLayer) -> None:
    with layer.open_mailbox():
        pass


async def had_a_subscriber(layer: InMemoryChannelLayer) -> None:
    async with layer.subscribe("other"):
        pass


async def made_a_channel(layer: InMemoryChannelLayer) -> None:
    await layer.new_channel()


async def has_a_worker(layer: InMemoryChannelLayer) -> None:
    layer.work_queue("jobs")


@pytest.mark.parametrize("before", [opened, had_a_connection, had_a_subscriber, made_a_channel, has_a_worker])
@pytest.mark.parametrize("send", SENDS)
async def test_process_that_serves_is_not_told(before: Any, send: Any, caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    await before(layer)
    await send(layer)
    assert warnings(caplog) == []


async def test_receiver_of_a_named_channel_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(layer.receive, "jobs")
        await trio.testing.wait_all_tasks_blocked()
        await layer.send("jobs", MESSAGE)
    assert warnings(caplog) == []
