"""History and resume, as every channel layer promises them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from trio_channels.exceptions import InvalidChannelLayerError, InvalidNameError, MessageNotEncodable
from trio_channels.layers import InMemoryChannelLayer
from trio_channels.layers.base import ChannelLayer, Gap, History, Recovery
from trio_channels.layers.hub import PART

from .test_contract import LAST, LayerCase, case, message, next_of

__all__ = ["case"]  # a fixture

KEPT = 5
HISTORY = {"room*": {"messages": KEPT, "seconds": 600}}
NOT_RECOVERED = Gap(None, "not recovered")
#: Values that a client may hand back in place of a position.
GARBAGE: list[Any] = ["", "x", "-", "0-0", "é" * 10, "a" * 5000, "\0", "-1", 5, b"5", ["5"], True, "1-1-1-1"]


@pytest.fixture
async def layer(case: LayerCase) -> AsyncIterator[ChannelLayer]:
    async with case.make(history=HISTORY) as layer:
        yield layer


async def fill(layer: ChannelLayer, first: int, last: int, group: str = "room") -> list[str]:
    """Send messages with these numbers; returns their positions."""
    positions = [await layer.group_send(group, message(number)) for number in range(first, last + 1)]
    assert all(isinstance(position, str) and 0 < len(position) < 60 for position in positions)
    return [str(position) for position in positions]


def seen(items: list[Any]) -> list[Any]:
    """The numbers of messages, and the gaps."""
    return [item if isinstance(item, Gap) else item["n"] for item in items]


async def until_last(events: AsyncIterator[Any]) -> list[Any]:
    """The items before the last message, which must come."""
    items: list[Any] = []
    while isinstance(item := await next_of(events), Gap) or item["type"] != LAST["type"]:
        items.append(item)
    return items


async def resume(layer: ChannelLayer, since: Any, group: str = "room") -> tuple[Recovery, list[Any]]:
    """The result of a join with a position, and the items that came before the next live message."""
    async with layer.subscribe(group, since=since) as events:
        await layer.group_send(group, LAST)
        return events.recovery[group], seen(await until_last(events))


async def test_position_comes_with_the_message_and_to_its_sender(layer: ChannelLayer) -> None:
    async with layer.subscribe("room", "other") as events:
        position = await layer.group_send("room", message(1))
        assert await next_of(events) == message(1) | {"history": {"group": "room", "position": position}}
        broadcast = await layer.group_broadcast("room", text="hello")
        assert (await next_of(events))["history"]["position"] == broadcast != position
        assert await layer.group_send("other", message(2)) is None
        assert await next_of(events) == message(2)


async def test_missed_messages_come_first_and_then_live_ones(layer: ChannelLayer) -> None:
    first, *_ = await fill(layer, 1, 3)
    async with layer.subscribe("room", since=first) as events:
        assert events.recovery == {"room": Recovery(recovered=True, position=first, missed=2)}
        [live] = await fill(layer, 4, 4)
        items = [await next_of(events) for _ in range(3)]
        assert seen(items) == [2, 3, 4]
        assert items[-1]["history"] == {"group": "room", "position": live}


async def test_boundaries_of_what_is_kept(layer: ChannelLayer) -> None:
    positions = await fill(layer, 1, 2 * KEPT)
    oldest, too_old = positions[-KEPT - 1], positions[-KEPT - 2]
    kept = list(range(KEPT + 1, 2 * KEPT + 1))
    async with (
        layer.subscribe("room", since=oldest) as first,
        layer.subscribe("room", since=too_old) as second,
        layer.subscribe("room", since=positions[-1]) as third,
    ):
        await layer.group_send("room", LAST)
        assert seen(await until_last(first)) == kept
        assert seen(await until_last(second)) == [NOT_RECOVERED]
        assert seen(await until_last(third)) == []
        assert first.recovery["room"] == Recovery(recovered=True, position=oldest, missed=KEPT)
        assert second.recovery["room"] == Recovery(recovered=False, position=positions[-1])
        assert third.recovery["room"] == Recovery(recovered=True, position=positions[-1], missed=0)


async def test_join_gives_a_position_to_begin_with(layer: ChannelLayer) -> None:
    async with layer.subscribe("room") as events:
        first = events.recovery["room"]
        assert first.position is not None
        assert not first.recovered
    await fill(layer, 1, 2)
    assert (await resume(layer, first.position))[1] == [1, 2]
    async with layer.subscribe("room") as events:
        await layer.group_send("room", LAST)
        assert await until_last(events) == []


async def test_what_is_no_position_is_not_recovered(layer: ChannelLayer) -> None:
    await fill(layer, 1, 1)
    for since in GARBAGE:
        position = (await layer.history("room")).position
        assert await resume(layer, since) == (Recovery(recovered=False, position=position), [NOT_RECOVERED]), since
        assert (await layer.history("room", since=since)).messages == ()


async def test_position_of_another_group_is_not_recovered(layer: ChannelLayer) -> None:
    await fill(layer, 1, 3)
    foreign = await fill(layer, 1, 3, "room2")
    for position in foreign:
        recovery, came = await resume(layer, position)
        assert not recovery.recovered
        assert came == [NOT_RECOVERED]


async def test_changed_position_is_not_recovered(layer: ChannelLayer) -> None:
    positions = await fill(layer, 1, 3)
    for place in range(len(positions[1])):
        for digit in "0a9":
            changed = positions[1][:place] + digit + positions[1][place + 1 :]
            if changed not in positions:
                found = await layer.history("room", since=changed)
                # In memory, a position with another number is a valid position of the same history.
                assert not found.recovered or changed.rpartition("-")[0] == positions[1].rpartition("-")[0]


async def test_future_position_is_not_recovered(layer: ChannelLayer) -> None:
    [position] = await fill(layer, 1, 1)
    head, _, tail = position.rpartition("-")
    for future in (f"{head}-{tail}9", f"{head}9-{tail}"):
        assert (await resume(layer, future))[1] == [NOT_RECOVERED]


async def test_flush_begins_another_history(layer: ChannelLayer) -> None:
    positions = await fill(layer, 1, 2)
    await layer.flush()
    assert (await layer.history("room")).messages == ()
    await fill(layer, 1, 3)
    for position in positions:
        assert (await layer.history("room", since=position)) == History((), False, (await newest(layer)))


async def newest(layer: ChannelLayer) -> str | None:
    async with layer.subscribe("room") as events:
        return events.recovery["room"].position


async def test_several_groups_have_a_position_each(layer: ChannelLayer) -> None:
    [one] = await fill(layer, 1, 1)
    await fill(layer, 2, 2)
    [two] = await fill(layer, 11, 11, "room2")
    await fill(layer, 12, 12, "room2")
    async with layer.subscribe("room", "room2", "other", since={"room": one, "room2": two}) as events:
        assert seen([await next_of(events), await next_of(events)]) == [2, 12]
        assert {group: recovery.recovered for group, recovery in events.recovery.items()} == {
            "room": True,
            "room2": True,
            "other": False,
        }


@pytest.mark.parametrize("groups", [("room", "room2"), ()], ids=len)
async def test_one_position_is_not_for_several_groups(layer: ChannelLayer, groups: tuple[str, ...]) -> None:
    with pytest.raises(InvalidChannelLayerError, match=r"since=\{group: position\}"):
        async with layer.subscribe(*groups, since="x"):
            pass


async def test_position_of_a_group_that_is_not_joined_is_ignored(layer: ChannelLayer) -> None:
    async with layer.subscribe("room", since={"room2": "x"}) as events:
        assert set(events.recovery) == {"room"}


async def test_group_without_history_cannot_be_resumed(layer: ChannelLayer) -> None:
    assert [layer.has_history(group) for group in ("room", "other")] == [True, False]
    recovery, came = await resume(layer, "x", "other")
    assert recovery == Recovery(recovered=False, position=None)
    assert came == [NOT_RECOVERED]
    assert await layer.history("other", since="x") == History((), recovered=False, position=None)


async def test_position_comes_too_late_for_a_member(layer: ChannelLayer) -> None:
    [position] = await fill(layer, 1, 1)
    with layer.open_mailbox() as mailbox:
        joined = await layer.group_add("room", mailbox.name)
        assert joined == Recovery(recovered=False, position=position)
        assert await layer.group_add("room", mailbox.name) == Recovery(recovered=False, position=None)
        with pytest.raises(InvalidChannelLayerError, match="member of 'room' already"):
            await layer.group_add("room", mailbox.name, since=position)
        await layer.group_discard("room", mailbox.name)
        assert (await layer.group_add("room", mailbox.name, since=position)).recovered


async def test_message_must_not_use_the_key_of_the_position(layer: ChannelLayer) -> None:
    for value in (None, {"group": "room", "position": "1"}):
        with pytest.raises(MessageNotEncodable, match="'history' of a message to the group 'room'"):
            await layer.group_send("room", message(1, history=value))
        assert await layer.group_send("other", message(1, history=value)) is None
    assert (await layer.history("room")).messages == ()


async def test_missed_messages_do_not_fill_the_mailbox(case: LayerCase) -> None:
    rules = {"room": {"messages": 20, "seconds": 600}}
    async with case.make(history=rules, capacity=3) as layer:
        first, *_ = await fill(layer, 1, 21)
        async with layer.subscribe("room", since=first) as events:
            await fill(layer, 22, 24)
            assert seen([await next_of(events) for _ in range(23)]) == list(range(2, 25))


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
async def test_live_messages_overflow_behind_missed_ones(case: LayerCase, overflow: Any) -> None:
    rules = {"room": {"messages": 20, "seconds": 600}}
    async with case.make(history=rules, capacity=3, overflow=overflow) as layer:
        first, *_ = await fill(layer, 1, 5)
        with layer.open_mailbox() as mailbox, layer.open_mailbox(overflow="drop_newest") as other:
            await layer.group_add("room", mailbox.name, since=first)
            await layer.group_add("room", other.name, since=first)
            await fill(layer, 6, 9)
            with trio.fail_after(30):
                while not (mailbox.statistics().dropped and other.statistics().dropped):  # the last message has come
                    await trio.lowlevel.checkpoint()
            came = [await other.get() for _ in range(8)]
            assert seen(came) == [2, 3, 4, 5, 6, 7, 8, Gap(1, "overflow")]
            items = list(iter(mailbox.get_nowait, None))
            oldest = [Gap(5, "overflow"), 7, 8, 9]
            assert seen(items) == (seen(came) if overflow == "drop_newest" else oldest)


async def test_excluded_member_does_not_get_a_message_on_resuming(layer: ChannelLayer) -> None:
    [position] = await fill(layer, 1, 1)
    with layer.open_mailbox() as mailbox, layer.open_mailbox() as other:
        await layer.group_send("room", message(2), exclude=mailbox.name)
        await layer.group_send("room", message(3))
        for member, wanted in ((mailbox, [3]), (other, [2, 3])):
            recovery = await layer.group_add("room", member.name, since=position)
            assert recovery == Recovery(recovered=True, position=position, missed=len(wanted))
            assert seen([await member.get() for _ in wanted]) == wanted


async def test_large_group_gets_positions_in_order(layer: ChannelLayer) -> None:
    async with trio.open_nursery() as nursery:
        mailboxes = [layer.open_mailbox() for _ in range(PART + 5)]
        members = [opened.__enter__() for opened in mailboxes]
        for member in members:
            await layer.group_add("room", member.name)
        sent: list[str] = []

        async def send(number: int) -> None:
            sent.extend(await fill(layer, number, number))

        for number in range(4):
            nursery.start_soon(send, number)
    assert len(sent) == 4
    for member in members:
        items: list[Any] = [await member.get() for _ in range(4)]
        positions = [item["history"]["position"] for item in items]
        assert positions == [kept["history"]["position"] for kept in (await layer.history("room")).messages]
    for opened in mailboxes:
        opened.__exit__()


# -- reading without joining ------------------------------------------------------------------------------------------


async def test_history_has_the_newest_messages_in_order(layer: ChannelLayer) -> None:
    positions = await fill(layer, 1, KEPT + 2)
    found = await layer.history("room")
    assert seen(list(found.messages)) == list(range(3, KEPT + 3))
    assert [kept["history"]["position"] for kept in found.messages] == positions[-KEPT:]
    assert (found.recovered, found.position) == (False, positions[-1])
    assert seen(list((await layer.history("room", limit=2)).messages)) == [KEPT + 1, KEPT + 2]
    assert seen(list((await layer.history("room", limit=1000)).messages)) == list(range(3, KEPT + 3))


async def test_history_is_read_page_by_page(layer: ChannelLayer) -> None:
    since: str | None = (await fill(layer, 1, KEPT))[0]
    pages = []
    while (page := await layer.history("room", since=since, limit=2)).messages:
        assert page.recovered
        pages.append(seen(list(page.messages)))
        since = page.position
    assert pages == [[2, 3], [4, 5]]
    assert page == History((), recovered=True, position=since)


async def test_empty_history_has_a_position(layer: ChannelLayer) -> None:
    found = await layer.history("room")
    assert found.messages == ()
    await fill(layer, 1, 1)
    assert (await resume(layer, found.position))[1] == [1]


async def test_history_shows_no_message_of_others(layer: ChannelLayer) -> None:
    await fill(layer, 1, 1)
    found = await layer.history("room")
    found.messages[0]["n"] = 5
    assert (await layer.history("room")).messages[0]["n"] == 1


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", True])
async def test_limit_of_history_is_a_number_of_messages(layer: ChannelLayer, limit: Any) -> None:
    with pytest.raises(InvalidChannelLayerError, match="limit"):
        await layer.history("room", limit=limit)


async def test_history_needs_a_group_name(layer: ChannelLayer) -> None:
    with pytest.raises(InvalidNameError):
        await layer.history("with space")


# -- figures and options ----------------------------------------------------------------------------------------------


async def test_statistics_count_histories(layer: ChannelLayer, case: LayerCase) -> None:
    position, *_ = await fill(layer, 1, 3)
    await resume(layer, position)
    await resume(layer, "x")
    await resume(layer, None)
    await resume(layer, "x", "other")
    statistics = layer.statistics()
    assert (statistics.recovered, statistics.not_recovered) == (1, 2)
    wanted = (1, KEPT) if case.name == "memory" else (None, None)  # LAST was sent three times
    assert (statistics.histories, statistics.kept) == wanted


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ([], "history of a channel layer must be a dict"),
        ({5: {}}, "a key of history of a channel layer must be a glob"),
        ({"a": 5}, r"history\['a'\] of a channel layer must be a dict such as"),
        ({"a": {"messages": 5}}, r"history\['a'\] of a channel layer needs the key 'seconds'"),
        ({"a": {"messages": 5, "second": 5}}, "has no key 'second'; did you mean 'seconds'"),
        ({"a": {"messages": 0, "seconds": 5}}, r"history\['a'\]\['messages'\] of a channel layer must be an int"),
        ({"a": {"messages": 5, "seconds": 0}}, r"history\['a'\]\['seconds'\] of a channel layer must be a finite"),
        ({"a": {"messages": 5, "seconds": float("inf")}}, "must be a finite number of seconds"),
    ],
)
def test_option_history_is_checked(case: LayerCase, option: Any, error: str) -> None:
    with pytest.raises(InvalidChannelLayerError, match=error):
        case.make(history=option)


class WithoutHistory(InMemoryChannelLayer):
    """A third-party layer without history."""

    extensions = ("groups", "flush")
    history = ChannelLayer.history


async def test_layer_without_history_says_so_at_once() -> None:
    with pytest.raises(InvalidChannelLayerError, match="WithoutHistory"):
        WithoutHistory(history=HISTORY)
    with pytest.raises(InvalidChannelLayerError, match="WithoutHistory"):
        await WithoutHistory().history("room")


class JoinsPlainly(InMemoryChannelLayer):
    """A third-party layer that knows no positions."""

    async def group_add(self, group: str, channel: str) -> Recovery:  # type: ignore[override]
        return await super().group_add(group, channel)


async def test_layer_that_knows_no_positions_takes_subscribers() -> None:
    layer = JoinsPlainly()
    async with layer.subscribe("room") as events:
        await layer.group_send("room", message(1))
        assert seen([await next_of(events)]) == [1]
