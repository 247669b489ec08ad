"""The group of a topic: readable, and never that of another topic."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_channels.exceptions import InvalidChannelLayerError, MessageNotEncodable
from trio_channels.layers.names import is_group_name
from trio_channels.topics import broadcast
from trio_channels.topics.broadcasting import group_of

LONG = "x" * 93 + ":"


@pytest.mark.parametrize(
    ("topic", "group"),
    [
        ("room:lobby", "topic.room.lobby"),
        ("room:a_b.c-d", "topic.room.a__b_.c-d"),
        ("é b", "topic._xe9._x20.b"),
        ("x" * 93, "topic." + "x" * 93),
        (LONG, "topic." + "x" * 48 + "_h" + hashlib.sha256(LONG.encode()).hexdigest()[:40]),
    ],
)
def test_group_is_readable(topic: str, group: str) -> None:
    assert group_of(topic) == group


letters = st.text(st.sampled_from(":._xh0a -é\ud800"), max_size=120) | st.text(max_size=60)


@given(letters, letters)
def test_no_two_topics_share_a_group(one: str, other: str) -> None:
    assert is_group_name(group_of(one))
    assert (group_of(one) == group_of(other)) == (one == other)


@pytest.mark.parametrize("space", ["_", " ", "."])
def test_group_with_a_hash_cannot_be_forged(space: str) -> None:
    for length in range(40, 50):
        long = "x" * length + space * 60
        forged = group_of(long).removeprefix("topic.")
        assert group_of(long) not in {group_of(forged), group_of(forged.replace("_x20", " ").replace("__", "_"))}


@pytest.mark.parametrize(
    ("topic", "event", "payload", "says"),
    [
        ("", "event", {}, "the topic of a broadcast must be a str of 1 to 255 characters; got ''"),
        ("x" * 256, "event", {}, "the topic of a broadcast"),
        (b"room", "event", {}, "got b'room'"),
        ("room", "", {}, "the event of a broadcast"),
        ("room", "event", object(), "the payload of the broadcast 'event' cannot be encoded"),
        ("room", "event", {object: 1}, "cannot be encoded"),
        ("room", "event", "\ud800", "cannot be encoded"),
        ("é" * 200, "event", b"", "must have at most 255 bytes each; got 400"),
    ],
)
async def test_broadcast_that_cannot_be_sent_is_refused(
    topic: Any, event: Any, payload: Any, says: str, channel_layer: Any
) -> None:
    with pytest.raises(MessageNotEncodable, match=says):
        await broadcast(topic, event, payload)


async def test_broadcast_without_a_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_channels.topics.broadcasting.get_channel_layer", lambda: None)
    with pytest.raises(InvalidChannelLayerError, match="CHANNEL_LAYERS has no entry 'default'"):
        await broadcast("room:a", "event")
