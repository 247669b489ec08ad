"""``exclude=`` and ``group_broadcast``, as every channel layer promises them; the clients' side is in tests/server."""

from __future__ import annotations

from typing import Any

import pytest

from trio_channels.exceptions import InvalidNameError, MessageNotEncodable
from trio_channels.layers.base import ChannelLayer
from trio_channels.layers.hub import PART

from .test_contract import LAST, case, layer, message, numbers, until_last

__all__ = ["case", "layer"]  # fixtures

BROADCAST = "group.broadcast"


@pytest.mark.parametrize("others", [1, PART + 1])
async def test_excluded_members_get_nothing(layer: ChannelLayer, others: int) -> None:
    async with layer.subscribe("room") as events:
        mailboxes = [layer.open_mailbox() for _ in range(others + 1)]
        members = [opened.__enter__() for opened in mailboxes]
        for member in members:
            await layer.group_add("room", member.name)
        await layer.group_send("room", message(1), exclude=members[0].name)
        await layer.group_send("room", message(2), exclude=(member.name for member in members))
        await layer.group_send("room", message(3), exclude=["specific!gone"])
        await layer.group_broadcast("room", text="4", exclude=members[0].name)
        await layer.group_send("room", LAST)
        assert [item.get("n", item.get("text")) for item in await until_last(events)] == [1, 2, 3, "4"]
        for member in members:
            got: list[Any] = []
            while (item := await member.get()) != LAST:
                got.append(item)
            wanted = [3] if member is members[0] else [1, 3]
            assert numbers([item for item in got if item["type"] != BROADCAST]) == wanted
            assert [item["text"] for item in got if item["type"] == BROADCAST] == ["4"] * (member is not members[0])
        for opened in mailboxes:
            opened.__exit__()


@pytest.mark.parametrize("exclude", ["with space", ["good", "umlaut-ä"], [None]])
async def test_excluded_names_must_be_valid(layer: ChannelLayer, exclude: Any) -> None:
    async with layer.subscribe("room") as events:
        with pytest.raises(InvalidNameError):
            await layer.group_send("room", message(1), exclude=exclude)
        await layer.group_send("room", LAST)
        assert await until_last(events) == []


@pytest.mark.parametrize(
    ("content", "event"),
    [
        ({"text": ""}, {"text": ""}),
        ({"text": "é"}, {"text": "é"}),
        ({"bytes": b""}, {"bytes": b""}),
        ({"bytes": b"\x00\xff"}, {"bytes": b"\x00\xff"}),
        ({"json": {"a": [1, "é"]}}, {"text": '{"a": [1, "é"]}'}),
        ({"json": None}, {"text": "null"}),
        ({"json": "\ud800"}, {"text": '"\\ud800"'}),
    ],
    ids=str,
)
async def test_subscribers_get_broadcasts_as_events(layer: ChannelLayer, content: Any, event: Any) -> None:
    async with layer.subscribe("room") as events:
        await layer.group_send("room", message(1))
        await layer.group_broadcast("room", **content)
        await layer.group_send("room", LAST)
        assert await until_last(events) == [message(1), {"type": BROADCAST, **event}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "one of text, bytes and json; got none of them"),
        ({"text": "a", "bytes": b"b"}, "got text and bytes"),
        ({"text": "a", "json": None}, "got text and json"),
        ({"text": b"a"}, "the text of .* must be a str; got bytes"),
        ({"bytes": "a"}, "the bytes of .* must be bytes; got str"),
        ({"bytes": bytearray(b"a")}, "the bytes of .* must be bytes; got bytearray"),
        ({"json": {1, 2}}, "the json of .* cannot be encoded: .*set"),
        ({"text": "\ud800"}, "surrogate"),
    ],
    ids=str,
)
async def test_broadcast_without_one_valid_content_is_refused(layer: ChannelLayer, content: Any, says: str) -> None:
    async with layer.subscribe("room") as events:
        with pytest.raises(MessageNotEncodable, match=says):
            await layer.group_broadcast("room", **content)
        await layer.group_send("room", LAST)
        assert await until_last(events) == []
