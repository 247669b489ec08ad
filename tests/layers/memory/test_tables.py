"""The tables that code for Channels reads."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import trio
import trio.testing

from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.names import ORDERS


async def test_channels_with_messages() -> None:
    layer = InMemoryChannelLayer()
    assert layer.channels == {}
    await layer.send("jobs", {"type": "a"})
    await layer.send("jobs", {"type": "b"})
    assert layer.channels == {"jobs": 2}
    await layer.receive("jobs")
    assert layer.channels == {"jobs": 1}
    await layer.receive("jobs")
    assert layer.channels == {}


async def test_channel_that_a_task_receives_on(nursery: trio.Nursery) -> None:
    layer = InMemoryChannelLayer()
    nursery.start_soon(layer.receive, "jobs")
    await trio.testing.wait_all_tasks_blocked()
    assert layer.channels == {"jobs": 0}
    nursery.cancel_scope.cancel()


async def test_channel_of_a_connection_lasts_as_long_as_it() -> None:
    layer = InMemoryChannelLayer()
    with layer.open_mailbox() as mailbox:
        assert layer.channels == {mailbox.name: 0}
    assert layer.channels == {}


async def test_groups_and_their_members() -> None:
    layer = InMemoryChannelLayer()
    async with layer.subscribe("room"), layer.subscribe("room"):
        await layer.group_add("room", "jobs")
        await layer.group_send("room", {"type": "a"})
        assert list(layer.groups) == ["room"]
        assert len(layer.groups["room"]) == 3
        assert set(layer.groups["room"].values()) == {1}
        assert layer.groups["room"].keys() == layer.channels.keys()
    await layer.group_discard("room", "jobs")
    assert layer.groups == {}


async def test_groups_of_the_package_are_no_users() -> None:
    layer = InMemoryChannelLayer()
    async with layer.subscribe(ORDERS):
        assert layer.groups == {}
        assert layer.channels == {}


async def test_tables_have_the_members_of_all_runs() -> None:
    layer = InMemoryChannelLayer()

    async def elsewhere() -> tuple[int, int]:
        async with layer.subscribe("room"):
            return len(layer.channels), len(layer.groups["room"])

    async with layer.subscribe("room"):
        assert await trio.to_thread.run_sync(trio.run, elsewhere) == (2, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.groups.clear(),
        lambda layer: layer.groups["room"].clear(),
        lambda layer: layer.channels.pop("a"),
        lambda layer: setattr(layer, "groups", {}),
        lambda layer: setattr(layer, "channels", {}),
        lambda layer: operator.delitem(layer.groups, "room"),
        lambda layer: operator.setitem(layer.channels, "a", 1),
    ],
)
async def test_change_that_would_change_nothing_is_an_error(change: Callable[[InMemoryChannelLayer], object]) -> None:
    layer = InMemoryChannelLayer()
    async with layer.subscribe("room"):
        with pytest.raises((AttributeError, TypeError)):
            change(layer)
